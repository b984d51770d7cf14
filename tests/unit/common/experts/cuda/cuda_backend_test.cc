#include "common/experts/cuda/cuda_backend.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/experts/backend_factory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/experts/cuda/owned_batch.h"
#include "tests/unit/common/experts/expert_oracle.h"

namespace expertmesh::experts {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class CudaBackendTest : public testing::Test {
 protected:
  CudaBackendTest() { cuda_host::Reset(7); }

  static std::unique_ptr<Backend> Make(CudaBackendOptions options) {
    auto backend = MakeCudaBackend(options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
  static std::unique_ptr<Backend> Make(Dtype dtype = Dtype::kBF16) {
    return Make(CudaOptions(dtype, CudaProduct::kFixedOrder));
  }

  std::mt19937 random_{5};
};

// What the tiles are cut at: rows of one expert around 8, 32, 64 and 128.
TEST_F(CudaBackendTest, EdgesMatchTheCpuBackend) {
  for (const Dtype dtype : {Dtype::kBF16, Dtype::kF32}) {
    const auto cuda = Make(dtype);
    const auto cpu = *MakeBackend("cpu", {dtype, 1});
    const TestExpert expert(random_, {72, 130, Activation::kSilu, true, true},
                            Storage::Plain(Dtype::kBF16));
    const TestExpert other(random_, {72, 63, Activation::kRelu, false, false},
                           Storage::Plain(Dtype::kBF16));
    const auto pack = [&](Backend& backend) {
      return OwnedBatch::Packed{*backend.Pack(expert.options(), expert.weights(), {}),
                                *backend.Pack(other.options(), other.weights(), {})};
    };
    const auto on_cuda = pack(*cuda);
    const auto on_cpu = pack(*cpu);
    for (const size_t rows : {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129}) {
      OwnedBatch batch(random_, dtype, rows, 72);
      for (size_t row = 0; row < rows; ++row) {
        batch.Assign(row, 0, 0.5f);
        if (row % 5 == 0) {
          batch.Assign(row, 1, 0.25f);
        }
      }
      const auto actual = batch.Run(*cuda, on_cuda);
      const auto expected = batch.Run(*cpu, on_cpu);
      EXPECT_TRUE(RowsNear(actual, expected, 72, dtype == Dtype::kBF16 ? 2e-2 : 1e-4))
          << rows << " rows";
    }
  }
}

// Whatever the order in which the device gets to what is queued: the stream of experts, too.
TEST_F(CudaBackendTest, PackedExpertsAreThere) {
  const TestExpert expert(random_, 72, 130, Dtype::kBF16);
  OwnedBatch batch(random_, Dtype::kBF16, 2, 72);
  batch.Assign(0, 0, 1.0f);
  batch.Assign(1, 0, 1.0f);
  const auto cpu = *MakeBackend("cpu", {Dtype::kBF16, 1});
  const auto expected = batch.Run(*cpu, {*cpu->Pack(expert.options(), expert.weights(), {})});
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    cuda_host::Reset(seed);
    const auto backend = Make();
    const auto actual =
        batch.Run(*backend, {*backend->Pack(expert.options(), expert.weights(), {})});
    EXPECT_TRUE(RowsNear(actual, expected, 72, 2e-2)) << "seed " << seed;
  }
}

TEST_F(CudaBackendTest, MoreExpertsThanRows) {
  const auto backend = Make(Dtype::kF32);
  std::vector<std::shared_ptr<const PackedExpert>> packed;
  OwnedBatch all(random_, Dtype::kF32, 1, 40);
  std::vector<float> expected(40, 0.0f);
  for (size_t e = 0; e < 40; ++e) {
    const TestExpert expert(random_, 40, 24, Dtype::kF32);
    packed.push_back(*backend->Pack(expert.options(), expert.weights(), {}));
    all.Assign(0, e, 1.0f);
  }
  for (size_t e = 0; e < 40; ++e) {
    OwnedBatch one = all;
    one.ClearAssignments();
    one.Assign(0, e, 1.0f);
    const auto part = one.Run(*backend, packed);
    for (size_t c = 0; c < 40; ++c) {
      expected[c] += part[c];
    }
  }
  EXPECT_TRUE(SameRows(all.Run(*backend, packed), expected, 40));
}

TEST_F(CudaBackendTest, BatchesInPartsHaveTheSameBits) {
  const TestExpert expert(random_, 96, 64, Dtype::kBF16);
  OwnedBatch batch(random_, Dtype::kBF16, 50, 96);
  for (size_t row = 0; row < 50; ++row) {
    for (size_t a = 0; a < row % 4; ++a) {
      batch.Assign(row, 0, 1.0f / static_cast<float>(1 + a));
    }
  }
  std::vector<std::vector<float>> results;
  for (const size_t limit : {size_t{512} << 20, size_t{1} << 14, size_t{1}}) {
    CudaBackendOptions options = CudaOptions(Dtype::kBF16, CudaProduct::kFixedOrder);
    options.max_scratch_bytes = limit;
    const auto backend = Make(options);
    const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
    results.push_back(batch.Run(*backend, {packed}));
  }
  EXPECT_TRUE(SameBits(results[1], results[0], 96));
  EXPECT_TRUE(SameBits(results[2], results[0], 96));
}

TEST_F(CudaBackendTest, KeepsToItsMemory) {
  const TestExpert expert(random_, 64, 64, Dtype::kBF16);
  CudaBackendOptions options = CudaOptions(Dtype::kBF16, CudaProduct::kFixedOrder);
  options.device_memory_bytes = 2 * 3 * 64 * 64 * sizeof(uint16_t);
  const auto backend = Make(options);
  const auto pack = [&] { return backend->Pack(expert.options(), expert.weights(), {}); };
  auto first = pack();
  const auto second = pack();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ((*first)->bytes() * 2, options.device_memory_bytes);
  const absl::Status third = pack().status();
  EXPECT_EQ(third.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.message()), HasSubstr("49152 bytes of device memory allowed"));
  first->reset();
  EXPECT_TRUE(pack().ok());
}

TEST_F(CudaBackendTest, LeavesNothingBehind) {
  auto backend = Make();
  const TestExpert expert(random_, 40, 24, Dtype::kBF16);
  auto packed = *backend->Pack(expert.options(), expert.weights(), {});
  OwnedBatch batch(random_, Dtype::kBF16, 3, 40);
  batch.Assign(1, 0, 1.0f);
  (void)batch.Run(*backend, {packed});
  backend.reset();
  EXPECT_GT(packed->bytes(), 0u);
  packed.reset();
  EXPECT_THAT(cuda_host::Leaks(), IsEmpty());
}

TEST_F(CudaBackendTest, TellsWhatItIs) {
  const auto backend = Make(Dtype::kF32);
  EXPECT_EQ(backend->name(), "cuda");
  EXPECT_EQ(backend->compute_dtype(), Dtype::kF32);
  EXPECT_GE(backend->preferred_in_flight(), 2u);
}

TEST_F(CudaBackendTest, RefusesBadOptions) {
  CudaBackendOptions options;
  options.compute_dtype = Dtype::kF16;
  EXPECT_EQ(MakeCudaBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = CudaBackendOptions();
  options.weights = WeightStorage::kCompressed;
  EXPECT_EQ(MakeCudaBackend(options).status().code(), absl::StatusCode::kUnimplemented);
  options = CudaBackendOptions();
  options.device = 99;
  EXPECT_EQ(MakeCudaBackend(options).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CudaBackendTest, SaysThatThereIsNoDriver) {
  cuda_host::RemoveDriver();
  const absl::Status status = MakeCudaBackend({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("driver"));
}

// When grouped products are not supported, each expert has one of its own, with the same result.
TEST_F(CudaBackendTest, DoesWithoutWhatCublasCannot) {
  const TestExpert a(random_, 72, 130, Dtype::kBF16), b(random_, 72, 50, Dtype::kBF16);
  OwnedBatch batch(random_, Dtype::kBF16, 5, 72);
  for (size_t row = 0; row < 5; ++row) {
    batch.Assign(row, row % 2, 1.0f);
    batch.Assign(row, 1, 0.5f);
  }
  std::vector<float> expected;
  int64_t calls = 0;
  int grouped = 0;
  for (int64_t n = 0; n < 2 || cuda_host::FailureHappened(); ++n) {
    cuda_host::Reset(7);
    const auto backend = Make(CudaOptions(Dtype::kBF16, CudaProduct::kCublas));
    const OwnedBatch::Packed packed = {*backend->Pack(a.options(), a.weights(), {}),
                                       *backend->Pack(b.options(), b.weights(), {})};
    if (n == 0) {
      expected = batch.Run(*backend, packed);
      calls = cuda_host::CallCount();
      continue;
    }
    cuda_host::FailCall(n, cuda_host::Failure::kUnsupported);
    std::vector<float> actual;
    const absl::Status status = batch.Compute(*backend, packed, &actual);
    if (status.ok() && cuda_host::FailureHappened()) {
      EXPECT_TRUE(RowsNear(actual, expected, 72, 2e-2)) << "call " << n;
      // Pinned memory is done without as well, but takes no more calls.
      grouped += cuda_host::CallCount() > calls ? 1 : 0;
    }
  }
  EXPECT_EQ(grouped, 2);  // Up and down.
}

TEST_F(CudaBackendTest, RefusesExpertsOfOthers) {
  const auto backend = Make();
  const auto other = Make();
  const TestExpert expert(random_, 40, 24, Dtype::kBF16);
  const auto foreign = *other->Pack(expert.options(), expert.weights(), {});
  const auto own = *backend->Pack(expert.options(), expert.weights(), {});
  OwnedBatch batch(random_, Dtype::kBF16, 1, 40);
  batch.Assign(0, 0, 1.0f);
  std::vector<float> partials;
  EXPECT_EQ(batch.Compute(*backend, {foreign}, &partials).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(batch.Compute(*backend, {own}, &partials).ok());
  OwnedBatch wide(random_, Dtype::kBF16, 1, 48);
  wide.Assign(0, 0, 1.0f);
  EXPECT_EQ(wide.Compute(*backend, {own}, &partials).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaBackendTest, MemoryOfAnExpertThatWentIsUsedAgain) {
  CudaBackendOptions options = CudaOptions(Dtype::kF32, CudaProduct::kFixedOrder);
  const TestExpert expert(random_, 40, 24, Dtype::kF32);
  const TestExpert wider(random_, 40, 200, Dtype::kF32);
  const auto backend = Make(options);
  const uint64_t bytes = *backend->PackedBytes(expert.options(), expert.weights(), {});
  options.device_memory_bytes = *backend->PackedBytes(wider.options(), wider.weights(), {});
  ASSERT_LT(2 * bytes, options.device_memory_bytes);
  const auto limited = Make(options);
  const auto pack = [&](const TestExpert& which) {
    return limited->Pack(which.options(), which.weights(), {});
  };
  auto first = *pack(expert);
  const size_t living = cuda_host::Leaks().size();
  for (int i = 0; i < 5; ++i) {
    first.reset();
    first = *pack(expert);
    EXPECT_EQ(cuda_host::Leaks().size(), living);
  }
  EXPECT_EQ(pack(wider).status().code(), absl::StatusCode::kResourceExhausted);
  first.reset();  // What is spare makes room for another size.
  const auto other = pack(wider);
  EXPECT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(pack(expert).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace expertmesh::experts
