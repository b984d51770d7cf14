#include "common/experts/cpu_backend.h"

#include <memory>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/experts/cpu_backend_case.h"

namespace expertmesh::experts {
namespace {

INSTANTIATE_TEST_SUITE_P(
    Cpu, BackendConformance,
    testing::Values(CpuCase("f32", Dtype::kF32, 1e-5), CpuCase("bf16", Dtype::kBF16, 1e-2),
                    CpuCase("f32_compressed", Dtype::kF32, 1e-5, WeightStorage::kCompressed),
                    CpuCase("bf16_compressed", Dtype::kBF16, 1e-2, WeightStorage::kCompressed)),
    [](const auto& info) { return info.param.name; });

std::unique_ptr<Backend> MakeF32() {
  CpuBackendOptions options;
  options.compute_dtype = Dtype::kF32;
  options.threads = 1;
  return *MakeCpuBackend(options);
}

// Whether expanded once or for every use: the same bits, for any number of threads and rows.
TEST(CpuBackendTest, CompressedWeightsGiveTheSameBits) {
  std::mt19937 random(11);
  const Storage storages[] = {Storage::F8(Dtype::kF32), Storage::F4().InTurns(),
                              Storage::Plain(Dtype::kBF16).Transposed(1).InTurns(),
                              Storage::Plain(Dtype::kF32)};
  for (const Storage& storage : storages) {
    for (const ExpertOptions& options :
         {ExpertOptions{1100, 600, Activation::kClampedSwiglu, true, true},
          ExpertOptions{140, 204, Activation::kRelu, false, true}}) {
      const size_t d = options.d_model;
      const TestExpert a(random, options, storage), b(random, options, storage);
      // Two experts of so many rows in turns; the second rows' blocks are many.
      for (const size_t rows : {1, 5, 600}) {
        const std::vector<float> hidden = RandomValues(random, rows * d, 1.0f, Dtype::kF32);
        std::vector<uint32_t> row_begin(rows + 1);
        std::iota(row_begin.begin(), row_begin.end(), 0u);
        const std::vector<float> weights = RandomValues(random, rows, 1.0f, Dtype::kF32);
        for (const Dtype type : {Dtype::kF32, Dtype::kBF16}) {
          AlignedBuffer x(rows * d * BytesOf(type));
          ConvertElements(Dtype::kF32, hidden.data(), type, x.data(), rows * d);
          const auto run = [&](WeightStorage weight_storage, int threads) {
            const auto backend = *MakeCpuBackend({type, threads, weight_storage});
            const auto first = *backend->Pack(options, a.weights(), {1, 2});
            const auto second = *backend->Pack(options, b.weights(), {});
            std::vector<const PackedExpert*> experts;
            for (size_t row = 0; row < rows; ++row) {
              experts.push_back(row % 7 == 0 ? first.get() : second.get());
            }
            std::vector<float> partials(rows * d);
            EXPECT_TRUE(Compute(*backend, {x.data(), rows, d, row_begin, experts, weights,
                                           ApplyWeight::kOutput, partials.data()})
                            .ok());
            return partials;
          };
          const auto expanded = run(WeightStorage::kExpanded, 2);
          for (const int threads : {1, 2, 5}) {
            const auto compressed = run(WeightStorage::kCompressed, threads);
            ASSERT_TRUE(SameBits(compressed, expanded, d))
                << storage << ", " << rows << " rows, " << threads << " threads";
          }
        }
      }
    }
  }
}

// What is kept is what the checkpoint has, and nothing of the checkpoint is needed afterwards.
TEST(CpuBackendTest, CompressedExpertsKeepTheirBytes) {
  std::mt19937 random(12);
  const auto backend = *MakeCpuBackend({Dtype::kF32, 1, WeightStorage::kCompressed});
  const ExpertOptions options = {1024, 512, Activation::kClampedSwiglu, true, true};
  auto expert = std::make_unique<TestExpert>(random, options, Storage::F4().InTurns());
  for (const IntermediateSlice slice : {IntermediateSlice{0, 1}, IntermediateSlice{1, 4}}) {
    const auto packed = *backend->Pack(options, expert->weights(), slice);
    const size_t width = 512 / slice.count;
    const size_t matrices = 3 * 1024 * width / 2 + 3 * 1024 * width / 32;
    const size_t biases = (2 * width + (slice.index == 0 ? 1024 : 0)) * sizeof(float);
    EXPECT_GE(packed->bytes(), matrices + biases);
    EXPECT_LE(packed->bytes(), matrices + biases + 4096);
  }
  const auto packed = *backend->Pack(options, expert->weights(), {});
  const std::vector<float> hidden = RandomValues(random, 1024, 1.0f, Dtype::kF32);
  std::vector<double> expected(1024, 0.0);
  expert->Apply({hidden.begin(), hidden.end()}, 1.0, Dtype::kF32, &expected);
  expert.reset();
  std::vector<float> partials(1024);
  const std::vector<uint32_t> row_begin = {0, 1};
  const std::vector<const PackedExpert*> experts = {packed.get()};
  const std::vector<float> weights = {1.0f};
  ASSERT_TRUE(Compute(*backend, {hidden.data(), 1, 1024, row_begin, experts, weights,
                                 ApplyWeight::kOutput, partials.data()})
                  .ok());
  EXPECT_TRUE(RowsClose(partials, expected, 1024, 1e-5));
}

TEST(CpuBackendTest, RefusesBadOptions) {
  CpuBackendOptions options;
  options.compute_dtype = Dtype::kF16;
  EXPECT_EQ(MakeCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.compute_dtype = Dtype::kF32;
  options.threads = -1;
  EXPECT_EQ(MakeCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuBackendTest, TellsNameAndType) {
  const auto backend = MakeF32();
  EXPECT_EQ(backend->name(), "cpu");
  EXPECT_EQ(backend->compute_dtype(), Dtype::kF32);
}

TEST(CpuBackendTest, ScratchLimitDoesNotChangeBits) {
  std::mt19937 random(7);
  const TestExpert expert(random, 96, 64, Dtype::kF32);
  const size_t rows = 100;
  const std::vector<float> hidden = RandomValues(random, rows * 96, 1.0f, Dtype::kF32);
  std::vector<uint32_t> row_begin;
  for (uint32_t row = 0; row <= rows; ++row) {
    row_begin.push_back(2 * row);
  }
  const std::vector<float> weights = RandomValues(random, 2 * rows, 1.0f, Dtype::kF32);
  std::vector<std::vector<float>> results;
  for (const size_t limit : {size_t{512} << 20, size_t{1} << 14, size_t{1}}) {
    CpuBackendOptions options;
    options.compute_dtype = Dtype::kF32;
    options.max_scratch_bytes = limit;
    const auto backend = *MakeCpuBackend(options);
    const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
    const std::vector<const PackedExpert*> experts(2 * rows, packed.get());
    std::vector<float> partials(rows * 96);
    ASSERT_TRUE(Compute(*backend, {hidden.data(), rows, 96, row_begin, experts, weights,
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
  const TestExpert expert(random, 32, 16, Dtype::kF32);
  const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
  const std::vector<float> hidden(2 * 32, 1.0f);
  std::vector<float> partials(2 * 32);
  const std::vector<uint32_t> row_begin = {0, 1, 2};
  const std::vector<const PackedExpert*> experts = {packed.get(), packed.get()};
  const std::vector<float> weights = {1.0f, 1.0f};
  const GroupedBatch good = {
      hidden.data(), 2, 32, row_begin, experts, weights, ApplyWeight::kOutput, partials.data()};
  ASSERT_TRUE(Compute(*backend, good).ok());

  const auto refused = [&](auto change) {
    GroupedBatch batch = good;
    change(batch);
    return Compute(*backend, batch).code() == absl::StatusCode::kInvalidArgument;
  };
  const std::vector<uint32_t> decreasing = {0, 3, 2};
  const std::vector<const PackedExpert*> null_expert = {packed.get(), nullptr};
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.rows = 1; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.row_begin = {}; }));
  EXPECT_TRUE(refused([&](GroupedBatch& b) { b.row_begin = decreasing; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.weights = b.weights.subspan(1); }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.experts = b.experts.subspan(1); }));
  EXPECT_TRUE(refused([&](GroupedBatch& b) { b.experts = null_expert; }));
  EXPECT_TRUE(refused([&](GroupedBatch& b) { b.hidden_row_of = decreasing; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.d_model = 16; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.partials = nullptr; }));
  EXPECT_TRUE(refused([](GroupedBatch& b) { b.hidden_states = nullptr; }));
  // And goes on.
  EXPECT_TRUE(Compute(*backend, good).ok());
}

TEST(CpuBackendTest, RefusesExpertsOfAnotherType) {
  std::mt19937 random(9);
  const TestExpert expert(random, 32, 16, Dtype::kF32);
  const auto bf16 = *MakeCpuBackend({Dtype::kBF16, 1});
  const auto packed = *bf16->Pack(expert.options(), expert.weights(), {});
  const std::vector<float> hidden(32, 1.0f);
  std::vector<float> partials(32);
  const std::vector<uint32_t> row_begin = {0, 1};
  const std::vector<const PackedExpert*> experts = {packed.get()};
  const std::vector<float> weights = {1.0f};
  EXPECT_EQ(Compute(*MakeF32(), {hidden.data(), 1, 32, row_begin, experts, weights,
                                 ApplyWeight::kOutput, partials.data()})
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CpuBackendTest, PackedExpertOutlivesItsBackend) {
  std::mt19937 random(10);
  const TestExpert expert(random, 32, 16, Dtype::kF32);
  auto backend = MakeF32();
  const auto packed = *backend->Pack(expert.options(), expert.weights(), {});
  backend.reset();
  EXPECT_GT(packed->bytes(), 0u);
}

}  // namespace
}  // namespace expertmesh::experts
