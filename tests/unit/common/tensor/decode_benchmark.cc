// How fast weights are decoded to bf16, as bytes of output per second of one thread: a matrix
// [1536, 2048].
#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/tensor/decode_matrix.h"
#include "tests/unit/common/tensor/stored_matrix.h"

namespace expertmesh {
namespace {

void BM_Decode(benchmark::State& state, const Storage& storage) {
  constexpr size_t kRows = 1536, kCols = 2048;
  std::mt19937 random(1);
  const StoredMatrix matrix(random, kRows, kCols, 1.0f, storage);
  const MatrixView view = matrix.view();
  std::vector<uint16_t> target(kRows * kCols);
  for (auto _ : state) {
    DecodeTile(view, 0, kRows, 0, kCols, Dtype::kBF16, target.data(), kCols);
    benchmark::DoNotOptimize(target.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRows * kCols * 2));
}

BENCHMARK_CAPTURE(BM_Decode, bf16, Storage::Plain(Dtype::kBF16));
BENCHMARK_CAPTURE(BM_Decode, f32, Storage::Plain(Dtype::kF32));
BENCHMARK_CAPTURE(BM_Decode, f16, Storage::Plain(Dtype::kF16));
BENCHMARK_CAPTURE(BM_Decode, bf16_transposed, Storage::Plain(Dtype::kBF16).Transposed(0));
BENCHMARK_CAPTURE(BM_Decode, bf16_transposed_in_turns,
                  Storage::Plain(Dtype::kBF16).Transposed(0).InTurns());
BENCHMARK_CAPTURE(BM_Decode, f32_transposed, Storage::Plain(Dtype::kF32).Transposed(0));
BENCHMARK_CAPTURE(BM_Decode, f8_scales_f32, Storage::F8(Dtype::kF32));
BENCHMARK_CAPTURE(BM_Decode, f8_scales_e8m0, Storage::F8(Dtype::kF8E8M0));
BENCHMARK_CAPTURE(BM_Decode, f8_transposed, Storage::F8(Dtype::kF32).Transposed(0));
BENCHMARK_CAPTURE(BM_Decode, f4, Storage::F4());
BENCHMARK_CAPTURE(BM_Decode, f4_in_turns, Storage::F4().InTurns());

}  // namespace
}  // namespace expertmesh
