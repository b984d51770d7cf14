#include "common/experts/cpu_backend.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/common/experts/backend_conformance.h"

namespace expertmesh {
namespace {

BackendCase CpuCase(std::string name, DType dtype, double tolerance) {
  BackendCase backend_case;
  backend_case.name = std::move(name);
  backend_case.make = [dtype](int threads) { return MakeCpuBackend({dtype, threads}); };
  backend_case.tolerance = tolerance;
  if (dtype == DType::kBF16 && !CpuSupportsBF16()) {
    backend_case.skip = "this CPU has no bf16";
  }
  return backend_case;
}

INSTANTIATE_TEST_SUITE_P(Cpu, BackendConformance,
                         testing::Values(CpuCase("f32", DType::kF32, 1e-5),
                                         CpuCase("bf16", DType::kBF16, 1e-2)),
                         [](const auto& info) { return info.param.name; });

std::unique_ptr<Backend> MakeF32() {
  CpuBackendOptions options;
  options.compute_dtype = DType::kF32;
  options.threads = 1;
  return *MakeCpuBackend(options);
}

TEST(CpuBackendTest, RefusesBadOptions) {
  CpuBackendOptions options;
  options.compute_dtype = DType::kF16;
  EXPECT_EQ(MakeCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.compute_dtype = DType::kF32;
  options.threads = -1;
  EXPECT_EQ(MakeCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuBackendTest, TellsNameAndType) {
  const auto backend = MakeF32();
  EXPECT_EQ(backend->name(), "cpu");
  EXPECT_EQ(backend->compute_dtype(), DType::kF32);
}

TEST(CpuBackendTest, ScratchLimitDoesNotChangeBits) {
  std::mt19937 random(7);
  const TestExpert expert(random, 96, 64, DType::kF32);
  const size_t rows = 100;
  const std::vector<float> hidden = RandomValues(random, rows * 96, 1.0f, DType::kF32);
  std::vector<uint32_t> row_begin;
  for (uint32_t row = 0; row <= rows; ++row) {
    row_begin.push_back(2 * row);
  }
  const std::vector<float> weights = RandomValues(random, 2 * rows, 1.0f, DType::kF32);
  std::vector<std::vector<float>> results;
  for (const size_t limit : {size_t{512} << 20, size_t{1} << 14, size_t{1}}) {
    CpuBackendOptions options;
    options.compute_dtype = DType::kF32;
    options.max_scratch_bytes = limit;
    const auto backend = *MakeCpuBackend(options);
    const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
    const std::vector<const PackedExpert*> experts(2 * rows, packed.get());
    std::vector<float> partials(rows * 96);
    ASSERT_TRUE(backend
                    ->Compute({hidden.data(), rows, 96, row_begin, experts, weights,
                               ApplyWeight::kOutput, partials.data()})
                    .ok());
    results.push_back(std::move(partials));
  }
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

TEST(CpuBackendTest, RefusesBadBatches) {
  std::mt19937 random(8);
  const auto backend = MakeF32();
  const TestExpert expert(random, 32, 16, DType::kF32);
  const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
  const std::vector<float> hidden(2 * 32, 1.0f);
  std::vector<float> partials(2 * 32);
  const std::vector<uint32_t> row_begin = {0, 1, 2};
  const std::vector<const PackedExpert*> experts = {packed.get(), packed.get()};
  const std::vector<float> weights = {1.0f, 1.0f};
  const GroupedBatch good = {
      hidden.data(), 2, 32, row_begin, experts, weights, ApplyWeight::kOutput, partials.data()};
  ASSERT_TRUE(backend->Compute(good).ok());

  const auto refused = [&](auto change) {
    GroupedBatch batch = good;
    change(batch);
    return backend->Compute(batch).code() == absl::StatusCode::kInvalidArgument;
  };
  const std::vector<uint32_t> decreasing = {0, 3, 2};
  const std::vector<const PackedExpert*> null_expert = {packed.get(), nullptr};
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.rows = 1; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.row_begin = {}; }));
  EXPECT_TRUE(refused([&](GroupedBatch& b) { b.row_begin = decreasing; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.weights = b.weights.subspan(1); }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.experts = b.experts.subspan(1); }));
  EXPECT_TRUE(refused([&](GroupedBatch& b) { b.experts = null_expert; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.d_model = 16; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.partials = nullptr; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.hidden_states = nullptr; }));
  // And goes on.
  EXPECT_TRUE(backend->Compute(good).ok());
}

TEST(CpuBackendTest, RefusesExpertsOfAnotherType) {
  if (!CpuSupportsBF16()) {
    GTEST_SKIP() << "this CPU has no bf16";
  }
  std::mt19937 random(9);
  const TestExpert expert(random, 32, 16, DType::kF32);
  const auto bf16 = *MakeCpuBackend({DType::kBF16, 1});
  const auto packed = *bf16->Pack(expert.options(), expert.weights(), {});
  const std::vector<float> hidden(32, 1.0f);
  std::vector<float> partials(32);
  const std::vector<uint32_t> row_begin = {0, 1};
  const std::vector<const PackedExpert*> experts = {packed.get()};
  const std::vector<float> weights = {1.0f};
  EXPECT_EQ(MakeF32()
                ->Compute({hidden.data(), 1, 32, row_begin, experts, weights, ApplyWeight::kOutput,
                           partials.data()})
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CpuBackendTest, PackedExpertOutlivesItsBackend) {
  std::mt19937 random(10);
  const TestExpert expert(random, 32, 16, DType::kF32);
  auto backend = MakeF32();
  const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
  backend.reset();
  EXPECT_GT(packed->bytes(), 0u);
}

}  // namespace
}  // namespace expertmesh
