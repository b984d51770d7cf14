// Every call of CUDA and cuBLAS fails once, in every way: while a backend is made, an expert is
// packed, batches are computed, and all of it is freed.
#include <memory>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/experts/cuda/cuda_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/experts/cuda/owned_batch.h"
#include "tests/unit/common/experts/expert_oracle.h"

namespace expertmesh::experts {
namespace {

using cuda_host::Failure;
using testing::IsEmpty;
using testing::Not;

constexpr size_t kModel = 40;
constexpr size_t kRows = 12;

bool IsSticky(Failure failure) {
  return failure == Failure::kSticky || failure == Failure::kLaunchFailure;
}

struct Flight {
  std::vector<float> partials;
  absl::Status status;
  absl::Mutex mutex;
  int completions = 0;
};
using Flights = std::vector<std::unique_ptr<Flight>>;

// `count` times `batch` in flight at once. Each completes once.
Flights Fly(Backend& backend, const OwnedBatch::Packed& packed, OwnedBatch& batch, int count) {
  GroupedBatch grouped = batch.Grouped(packed, nullptr);
  Flights flights;
  for (int i = 0; i < count; ++i) {
    Flight& flight = *flights.emplace_back(std::make_unique<Flight>());
    flight.partials.assign(batch.size(), 12345.0f);
    grouped.partials = flight.partials.data();
    backend.Submit(grouped, [&flight](absl::Status status) {
      const absl::MutexLock lock(&flight.mutex);
      flight.status = std::move(status);
      ++flight.completions;
    });
  }
  for (const auto& flight : flights) {
    const absl::MutexLock lock(&flight->mutex);
    flight->mutex.Await(absl::Condition(
        +[](int* completions) { return *completions > 0; }, &flight->completions));
    EXPECT_EQ(flight->completions, 1);
  }
  return flights;
}

// Rows of a longer batch begin with those of a shorter one.
OwnedBatch BatchOf(size_t rows) {
  std::mt19937 random(3);
  OwnedBatch batch(random, Dtype::kBF16, rows, kModel);
  for (size_t row = 0; row < rows; ++row) {
    batch.Assign(row, 0, 0.5f);
    batch.Assign(row, row % 3, 0.25f);
  }
  return batch;
}

// One run of all that a backend does, with a failing call somewhere.
class Sweep {
 public:
  Sweep(CudaProduct product, Failure failure) : product_(product), failure_(failure) {}

  // Fails call `n`. False: there are not so many calls.
  bool With(int64_t n) {
    SCOPED_TRACE(absl::StrCat("call ", n, " of failure ", static_cast<int>(failure_)));
    cuda_host::Reset(static_cast<uint64_t>(n));
    // Other tests look for what blocks do to one another.
    cuda_host::CheckBlocksUpTo(0);
    lost_calls_ = 0;
    seen_ = absl::OkStatus();
    cuda_host::FailCall(n, failure_);
    Everything();
    EXPECT_THAT(cuda_host::Leaks(), IsEmpty());
    EXPECT_LE(lost_calls_, 1);
    if (!seen_.ok()) {
      EXPECT_THAT(seen_.message(), Not(IsEmpty()));
      EXPECT_TRUE(cuda_host::FailureHappened());
    }
    return cuda_host::FailureHappened();
  }

  int errors() const { return errors_; }

 private:
  // A first error that is not sticky leaves everything as it was: the second attempt succeeds.
  template <typename T, typename F>
  T Try(F attempt) {
    T result = attempt();
    if (!result.ok()) {
      Note(result.status());
      if (!lost()) {
        result = attempt();
        EXPECT_TRUE(result.ok()) << result.status();
      }
    }
    return result;
  }

  void Note(const absl::Status& status) {
    ++errors_;
    EXPECT_TRUE(cuda_host::FailureHappened()) << status;
    // Why, or that the device is lost: then for good.
    if (IsSticky(failure_)) {
      EXPECT_TRUE(absl::StrContains(status.message(), "the device is lost")) << status;
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    }
    if (seen_.ok()) {
      seen_ = status;
    }
  }
  bool lost() const { return !seen_.ok() && IsSticky(failure_); }

  void Everything();
  void Compute(Backend& backend, const OwnedBatch::Packed& packed);
  // How many failed.
  int NoteAll(const Flights& flights);

  const CudaProduct product_;
  const Failure failure_;
  absl::Status seen_;
  int lost_calls_ = 0;
  int errors_ = 0;
};

int Sweep::NoteAll(const Flights& flights) {
  int failed = 0;
  for (const auto& flight : flights) {
    if (!flight->status.ok()) {
      Note(flight->status);
      ++failed;
    }
  }
  return failed;
}

// Three in flight: two on the device, one waits. Then, on each slot, a batch that needs more
// memory.
void Sweep::Compute(Backend& backend, const OwnedBatch::Packed& packed) {
  OwnedBatch batch = BatchOf(kRows);
  OwnedBatch larger = BatchOf(2 * kRows);
  const Flights flights = Fly(backend, packed, batch, 3);
  const int failed = NoteAll(flights);
  Flights after;
  while (!lost() && after.empty()) {
    after = Fly(backend, packed, larger, 2);
    // A call of these may be the one that fails.
    if (NoteAll(after) > 0) {
      EXPECT_EQ(failed, 0);
      after.clear();
    }
  }
  if (lost()) {
    std::vector<float> partials;
    EXPECT_EQ(batch.Compute(backend, packed, &partials).code(), absl::StatusCode::kUnavailable);
    return;
  }
  EXPECT_LE(failed, 1);
  const auto expected = absl::MakeConstSpan(after[0]->partials).first(batch.size());
  EXPECT_TRUE(SameBits(after[1]->partials, after[0]->partials, kModel));
  for (const auto& flight : flights) {
    if (flight->status.ok()) {
      EXPECT_TRUE(product_ == CudaProduct::kFixedOrder
                      ? SameBits(flight->partials, expected, kModel)
                      : RowsNear(flight->partials, expected, kModel, 1e-2));
    }
  }
}

void Sweep::Everything() {
  CudaBackendOptions options = CudaOptions(Dtype::kBF16, product_);
  options.on_device_lost = [this](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    ++lost_calls_;
  };
  using Made = absl::StatusOr<std::unique_ptr<Backend>>;
  Made backend = Try<Made>([&] { return MakeCudaBackend(options); });
  if (!backend.ok()) {
    return;
  }
  std::mt19937 random(2);
  OwnedBatch::Packed packed;
  for (int e = 0; e < 3; ++e) {
    const TestExpert expert(random, {kModel, 24, Activation::kSilu, true, e == 0},
                            Storage::Plain(Dtype::kBF16));
    using Packed = absl::StatusOr<std::shared_ptr<const PackedExpert>>;
    Packed one =
        Try<Packed>([&] { return (*backend)->Pack(expert.options(), expert.weights(), {}); });
    if (!one.ok()) {
      EXPECT_EQ(lost_calls_, 1);
      return;
    }
    packed.push_back(*std::move(one));
  }
  Compute(**backend, packed);
  EXPECT_EQ(lost_calls_, lost() ? 1 : 0);
}

class CudaFaultsTest : public testing::TestWithParam<std::tuple<CudaProduct, Failure>> {};

TEST_P(CudaFaultsTest, EveryCallMayFail) {
  Sweep sweep(std::get<0>(GetParam()), std::get<1>(GetParam()));
  int64_t n = 1;
  while (sweep.With(n) && !HasFailure()) {
    ++n;
  }
  // Making, packing and computing take many calls, and most of their failures are told.
  EXPECT_GT(n, 60);
  EXPECT_GT(sweep.errors(), 40);
}

INSTANTIATE_TEST_SUITE_P(
    All, CudaFaultsTest,
    testing::Combine(testing::Values(CudaProduct::kFixedOrder, CudaProduct::kCublas),
                     testing::Values(Failure::kOutOfMemory, Failure::kPlain,
                                     Failure::kLaunchFailure, Failure::kSticky)));

}  // namespace
}  // namespace expertmesh::experts
