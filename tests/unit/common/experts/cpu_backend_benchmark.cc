// A layer of Qwen3-30B-A3B's shape (d_model 2048, width 768, 128 experts, k 8) on the CPU backend
// with all cores, next to the two ceilings of the same machine in the same run: reading memory, and
// oneDNN's bf16 product of a size that suits it.
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

namespace expertmesh {
namespace {

constexpr size_t kModel = 2048;
constexpr size_t kWidth = 768;
constexpr size_t kExperts = 128;
constexpr size_t kTopK = 8;

std::vector<uint8_t> RandomMatrix(std::mt19937& random, size_t count, float spread, DType dtype) {
  std::uniform_real_distribution<float> uniform(-spread, spread);
  std::vector<float> values(count);
  for (float& value : values) {
    value = uniform(random);
  }
  std::vector<uint8_t> bytes(count * BytesOf(dtype));
  ConvertElements(DType::kF32, values.data(), dtype, bytes.data(), count);
  return bytes;
}

struct Layer {
  std::unique_ptr<Backend> backend;
  std::vector<std::shared_ptr<const PackedExpert>> experts;
  size_t bytes = 0;
};

// All experts have the same values: what they are makes no difference to the time.
Layer MakeLayer(DType dtype, size_t experts) {
  Layer layer;
  CpuBackendOptions options;
  options.compute_dtype = dtype;
  layer.backend = *MakeCpuBackend(options);
  std::mt19937 random(1);
  const auto gate = RandomMatrix(random, kModel * kWidth, 0.04f, DType::kBF16);
  const auto up = RandomMatrix(random, kModel * kWidth, 0.04f, DType::kBF16);
  const auto down = RandomMatrix(random, kModel * kWidth, 0.07f, DType::kBF16);
  const ExpertWeights weights = {MatrixView::RowMajor(gate.data(), DType::kBF16, kWidth, kModel),
                                 MatrixView::RowMajor(up.data(), DType::kBF16, kWidth, kModel),
                                 MatrixView::RowMajor(down.data(), DType::kBF16, kModel, kWidth)};
  for (size_t e = 0; e < experts; ++e) {
    layer.experts.push_back(*layer.backend->Pack({kModel, kWidth, Activation::kSilu}, weights, {}));
    layer.bytes += layer.experts.back()->bytes();
  }
  return layer;
}

const Layer& SharedLayer(DType dtype) {
  static std::unique_ptr<Layer> layer;
  if (layer == nullptr || layer->backend->compute_dtype() != dtype) {
    layer.reset();  // Two of them may not fit.
    layer = std::make_unique<Layer>(MakeLayer(dtype, kExperts));
  }
  return *layer;
}

// Arguments: tokens. Counters: tokens/s; bytes of the weights that were hit, per second; FLOP/s.
void BM_Layer(benchmark::State& state, DType dtype) {
  if (dtype == DType::kBF16 && !CpuSupportsBF16()) {
    state.SkipWithError("this CPU has no bf16");
    return;
  }
  const Layer& layer = SharedLayer(dtype);
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
        layer.backend->Compute({hidden.data(), tokens, kModel, row_begin, experts[variant], weights,
                                ApplyWeight::kOutput, partials.data()});
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
void BM_BestProduct(benchmark::State& state, DType dtype) {
  if (dtype == DType::kBF16 && !CpuSupportsBF16()) {
    state.SkipWithError("this CPU has no bf16");
    return;
  }
  const size_t rows = 256, inner = 512, columns = 512;
  const auto shape = *MatmulShape::Create(dtype, inner, columns);
  constexpr int kRepeats = 200;
  for (auto _ : state) {
    OnAllCores([&](int) {
      const SingleThreadedOpenMP single;
      MatmulRunner runner;
      AlignedBuffer x(rows * inner * BytesOf(dtype));
      AlignedBuffer weights(shape->bytes());
      AlignedBuffer y(rows * columns * sizeof(float));
      std::fill_n(x.data(), x.size(), uint8_t{0});
      std::fill_n(weights.data(), weights.size(), uint8_t{0});
      for (int repeat = 0; repeat < kRepeats; ++repeat) {
        benchmark::DoNotOptimize(runner.Run(*shape, shape->splits()[0], 0, rows, x.data(),
                                            weights.data(), y.as<float>()));
      }
    });
  }
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * rows * inner * columns * kRepeats * AvailableCores() *
                             static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}

// Packing as a node loads its experts: from bf16 matrices in memory, one thread.
void BM_Pack(benchmark::State& state, DType dtype) {
  if (dtype == DType::kBF16 && !CpuSupportsBF16()) {
    state.SkipWithError("this CPU has no bf16");
    return;
  }
  size_t experts = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(MakeLayer(dtype, 16));
    experts += 16;
  }
  state.counters["experts/s"] =
      benchmark::Counter(static_cast<double>(experts), benchmark::Counter::kIsRate);
}

BENCHMARK(BM_ReadMemory)->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_BestProduct, bf16, DType::kBF16)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_BestProduct, f32, DType::kF32)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Pack, bf16, DType::kBF16)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Layer, bf16, DType::kBF16)
    ->Arg(1)
    ->Arg(8)
    ->Arg(64)
    ->Arg(512)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Layer, f32, DType::kF32)
    ->Arg(1)
    ->Arg(8)
    ->Arg(64)
    ->Arg(512)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace expertmesh
