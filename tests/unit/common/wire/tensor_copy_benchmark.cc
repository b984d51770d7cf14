// What it costs to see, on the way, that all rows of a frame are finite: DecodeRows beside the bare
// conversion.

#include <benchmark/benchmark.h>

#include <vector>

#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"

namespace expertmesh {
namespace {

constexpr size_t kCols = 2048;

TensorFrame Rows(Dtype dtype, size_t rows) {
  const std::vector<float> values(rows * kCols, 0.5f);
  return EncodeRows(Dtype::kF32, values.data(), rows, kCols, dtype);
}

void Decode(benchmark::State& state, Dtype from, Dtype to) {
  const size_t rows = static_cast<size_t>(state.range(0));
  const TensorFrame tensor = Rows(from, rows);
  AlignedBuffer target(rows * kCols * BytesOf(to));
  for (auto _ : state) {
    benchmark::DoNotOptimize(DecodeRows(tensor, to, target.data()));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(tensor.data.size()));
}

void Bare(benchmark::State& state, Dtype from, Dtype to) {
  const size_t rows = static_cast<size_t>(state.range(0));
  const TensorFrame tensor = Rows(from, rows);
  AlignedBuffer target(rows * kCols * BytesOf(to));
  for (auto _ : state) {
    ConvertElements(from, tensor.data.slices()[0].data(), to, target.data(), rows * kCols);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(tensor.data.size()));
}

BENCHMARK_CAPTURE(Decode, f32, Dtype::kF32, Dtype::kF32)->Arg(1)->Arg(64)->Arg(512);
BENCHMARK_CAPTURE(Bare, f32, Dtype::kF32, Dtype::kF32)->Arg(1)->Arg(64)->Arg(512);
BENCHMARK_CAPTURE(Decode, bf16, Dtype::kBF16, Dtype::kBF16)->Arg(1)->Arg(64)->Arg(512);
BENCHMARK_CAPTURE(Bare, bf16, Dtype::kBF16, Dtype::kBF16)->Arg(1)->Arg(64)->Arg(512);
BENCHMARK_CAPTURE(Decode, f16_to_f32, Dtype::kF16, Dtype::kF32)->Arg(64);
BENCHMARK_CAPTURE(Bare, f16_to_f32, Dtype::kF16, Dtype::kF32)->Arg(64);

}  // namespace
}  // namespace expertmesh
