// A layer of Qwen3-30B-A3B's shape (d_model 2048, width 768, 128 experts, k 8) on the CPU backend
// with all cores, next to the two ceilings of the same machine in the same run: reading memory, and
// a bf16 product of a size that suits the kernels.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/base/process.h"
#include "common/experts/backend.h"
#include "common/experts/cpu_backend.h"
#include "common/experts/matmul.h"
#include "common/experts/packed_memory.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"
#include "tests/unit/common/experts/expert_oracle.h"

namespace expertmesh::experts {
namespace {

constexpr size_t kModel = 2048;
constexpr size_t kWidth = 768;
constexpr size_t kExperts = 128;
constexpr size_t kTopK = 8;

std::vector<uint8_t> RandomMatrix(std::mt19937& random, size_t count, float spread, Dtype dtype) {
  std::uniform_real_distribution<float> uniform(-spread, spread);
  std::vector<float> values(count);
  for (float& value : values) {
    value = uniform(random);
  }
  std::vector<uint8_t> bytes(count * BytesOf(dtype));
  ConvertElements(Dtype::kF32, values.data(), dtype, bytes.data(), count);
  return bytes;
}

struct Layer {
  std::unique_ptr<Backend> backend;
  std::vector<std::shared_ptr<const PackedExpert>> experts;
  size_t bytes = 0;
};

// How a layer's experts are stored, and what the backend holds of them.
struct LayerKind {
  Dtype compute = Dtype::kBF16;
  Storage storage = Storage::Plain(Dtype::kBF16);
  WeightStorage weights = WeightStorage::kExpanded;

  friend bool operator==(const LayerKind&, const LayerKind&) = default;
};

constexpr ExpertOptions kExpert = {kModel, kWidth};

// All experts have the same values: what they are makes no difference to the time.
Layer MakeLayer(const LayerKind& kind, const TestExpert& expert, size_t experts) {
  Layer layer;
  CpuBackendOptions options;
  options.compute_dtype = kind.compute;
  options.weights = kind.weights;
  layer.backend = *MakeCpuBackend(options);
  for (size_t e = 0; e < experts; ++e) {
    layer.experts.push_back(*layer.backend->Pack(kExpert, expert.weights(), {}));
    layer.bytes += layer.experts.back()->bytes();
  }
  return layer;
}

const Layer& SharedLayer(const LayerKind& kind) {
  static std::unique_ptr<Layer> layer;
  static LayerKind kind_of_layer;
  if (layer == nullptr || !(kind_of_layer == kind)) {
    layer.reset();  // Two of them may not fit.
    std::mt19937 random(1);
    layer = std::make_unique<Layer>(
        MakeLayer(kind, TestExpert(random, kExpert, kind.storage), kExperts));
    kind_of_layer = kind;
  }
  return *layer;
}

// Arguments: tokens. Counters: tokens/s; bytes of the weights that were hit, per second; FLOP/s.
void BM_Layer(benchmark::State& state, const LayerKind& kind) {
  const Dtype dtype = kind.compute;
  const Layer& layer = SharedLayer(kind);
  const size_t tokens = static_cast<size_t>(state.range(0));
  std::mt19937 random(2);
  const auto values = RandomMatrix(random, tokens * kModel, 1.0f, dtype);
  AlignedBuffer hidden(values.size());
  std::copy(values.begin(), values.end(), hidden.data());
  // Fresh routing in every iteration, as if layer followed layer: weights come from memory.
  constexpr size_t kVariants = 16;
  std::vector<std::vector<const PackedExpert*>> experts(kVariants);
  std::vector<size_t> hit(kVariants);
  std::vector<uint32_t> ids(kExperts);
  for (size_t variant = 0; variant < kVariants; ++variant) {
    std::vector<bool> used(kExperts, false);
    for (size_t e = 0; e < kExperts; ++e) {
      ids[e] = static_cast<uint32_t>(e);
    }
    for (size_t token = 0; token < tokens; ++token) {
      std::shuffle(ids.begin(), ids.end(), random);
      for (size_t slot = 0; slot < kTopK; ++slot) {
        experts[variant].push_back(layer.experts[ids[slot]].get());
        used[ids[slot]] = true;
      }
    }
    hit[variant] = static_cast<size_t>(std::count(used.begin(), used.end(), true));
  }
  std::vector<uint32_t> row_begin;
  for (size_t token = 0; token <= tokens; ++token) {
    row_begin.push_back(static_cast<uint32_t>(token * kTopK));
  }
  const std::vector<float> weights(tokens * kTopK, 0.125f);
  std::vector<float> partials(tokens * kModel);
  size_t iteration = 0;
  size_t experts_hit = 0;
  const auto compute = [&] {
    const size_t variant = iteration++ % kVariants;
    experts_hit += hit[variant];
    const absl::Status status =
        Compute(*layer.backend, {hidden.data(), tokens, kModel, row_begin, experts[variant],
                                 weights, ApplyWeight::kOutput, partials.data()});
    if (!status.ok()) {
      state.SkipWithError(status.ToString().c_str());
    }
  };
  for (size_t warm = 0; warm < kVariants; ++warm) {
    compute();
  }
  experts_hit = 0;
  for (auto _ : state) {
    compute();
  }
  const double per_expert = static_cast<double>(layer.bytes) / kExperts;
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens * state.iterations()),
                                                  benchmark::Counter::kIsRate);
  state.counters["bytes/s"] = benchmark::Counter(static_cast<double>(experts_hit) * per_expert,
                                                 benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] = benchmark::Counter(
      static_cast<double>(tokens * state.iterations()) * kTopK * 6 * kModel * kWidth,
      benchmark::Counter::kIsRate);
}

// Runs `work(thread)` on all cores at once.
template <typename Work>
void OnAllCores(Work work) {
  std::vector<std::thread> threads;
  for (int t = 1; t < AvailableCores(); ++t) {
    threads.emplace_back(work, t);
  }
  work(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void BM_ReadMemory(benchmark::State& state) {
  constexpr size_t kBytes = size_t{1} << 30;
  PackedMemory memory = *PackedMemory::Allocate(kBytes, /*huge_pages=*/true);
  std::fill_n(memory.data(), kBytes, uint8_t{1});
  const size_t share = kBytes / 64 / static_cast<size_t>(AvailableCores());
  for (auto _ : state) {
    OnAllCores([&](int thread) {
      const auto* at = reinterpret_cast<const uint64_t*>(memory.data()) +
                       static_cast<size_t>(thread) * share * 8;
      uint64_t sums[8] = {};
      for (size_t line = 0; line < share; ++line, at += 8) {
        for (size_t i = 0; i < 8; ++i) {
          sums[i] += at[i];
        }
      }
      for (uint64_t& sum : sums) {
        benchmark::DoNotOptimize(sum);
      }
    });
  }
  state.counters["bytes/s"] = benchmark::Counter(static_cast<double>(kBytes * state.iterations()),
                                                 benchmark::Counter::kIsRate);
}

// One product per core, of packed weights that stay in its cache.
void BM_BestProduct(benchmark::State& state, Dtype dtype, bool tiles) {
  if (tiles && !matmul::TilesAvailable()) {
    state.SkipWithError("this CPU has no AMX");
    return;
  }
  const size_t rows = 256, inner = 512, columns = 512;
  const MatmulShape shape(dtype, inner, columns, tiles);
  constexpr int kRepeats = 200;
  for (auto _ : state) {
    OnAllCores([&](int) {
      MatmulRunner runner;
      AlignedBuffer x(rows * shape.x_row_bytes());
      AlignedBuffer weights(shape.bytes());
      AlignedBuffer y(rows * columns * sizeof(float));
      std::fill_n(x.data(), x.size(), uint8_t{0});
      std::fill_n(weights.data(), weights.size(), uint8_t{0});
      for (int repeat = 0; repeat < kRepeats; ++repeat) {
        runner.Run(shape, shape.splits()[0], rows, x.data(), weights.data(), y.as<float>());
        benchmark::ClobberMemory();
      }
    });
  }
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * rows * inner * columns * kRepeats * AvailableCores() *
                             static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}

// Packing as a node loads its experts: from matrices in memory, one thread.
void BM_Pack(benchmark::State& state, const LayerKind& kind) {
  std::mt19937 random(1);
  const TestExpert expert(random, kExpert, kind.storage);
  size_t experts = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(MakeLayer(kind, expert, 16));
    experts += 16;
  }
  state.counters["experts/s"] =
      benchmark::Counter(static_cast<double>(experts), benchmark::Counter::kIsRate);
}

BENCHMARK(BM_ReadMemory)->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_BestProduct, bf16_tiles, Dtype::kBF16, true)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_BestProduct, bf16, Dtype::kBF16, false)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_BestProduct, f32, Dtype::kF32, false)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
void Timing(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
}
void Tokens(benchmark::internal::Benchmark* benchmark) {
  Timing(benchmark->Arg(1)->Arg(8)->Arg(64)->Arg(512));
}

constexpr WeightStorage kCompressed = WeightStorage::kCompressed;
const LayerKind kBF16 = {};
const LayerKind kF32 = {Dtype::kF32, Storage::Plain(Dtype::kBF16)};
const LayerKind kTransposed = {Dtype::kBF16, Storage::Plain(Dtype::kBF16).Transposed(0)};
const LayerKind kF8 = {Dtype::kBF16, Storage::F8(Dtype::kF32)};
const LayerKind kF4 = {Dtype::kBF16, Storage::F4().InTurns()};
const LayerKind kBF16Compressed = {Dtype::kBF16, Storage::Plain(Dtype::kBF16), kCompressed};
const LayerKind kF8Compressed = {Dtype::kBF16, Storage::F8(Dtype::kF32), kCompressed};
const LayerKind kF4Compressed = {Dtype::kBF16, Storage::F4().InTurns(), kCompressed};

BENCHMARK_CAPTURE(BM_Pack, bf16, kBF16)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Pack, bf16_transposed, kTransposed)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Pack, f8, kF8)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Pack, f4, kF4)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Pack, f8_compressed, kF8Compressed)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Pack, f4_compressed, kF4Compressed)->Apply(Timing);
BENCHMARK_CAPTURE(BM_Layer, bf16, kBF16)->Apply(Tokens);
BENCHMARK_CAPTURE(BM_Layer, bf16_compressed, kBF16Compressed)->Apply(Tokens);
BENCHMARK_CAPTURE(BM_Layer, f8_compressed, kF8Compressed)->Apply(Tokens);
BENCHMARK_CAPTURE(BM_Layer, f4_compressed, kF4Compressed)->Apply(Tokens);
BENCHMARK_CAPTURE(BM_Layer, f32, kF32)->Apply(Tokens);

}  // namespace
}  // namespace expertmesh::experts
