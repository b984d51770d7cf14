// How fast synthetic weights are made (memory only) and checkpoints written and opened.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/checkpoint/random_tensor.h"
#include "common/checkpoint/synthetic.h"

namespace expertmesh::checkpoint {
namespace {

void BM_NormalSequence(benchmark::State& state) {
  const Dtype dtype = static_cast<Dtype>(state.range(0));
  constexpr size_t kElements = 1 << 18;
  std::vector<float> target(kElements);
  const NormalSequence sequence(1, "name");
  for (auto _ : state) {
    sequence.Fill(0, kElements, 0.02f, dtype, target.data());
    benchmark::DoNotOptimize(target.data());
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(NameOf(dtype)));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kElements * BytesOf(dtype)));
}
BENCHMARK(BM_NormalSequence)
    ->Arg(static_cast<int>(Dtype::kF32))
    ->Arg(static_cast<int>(Dtype::kBF16))
    ->Arg(static_cast<int>(Dtype::kF16));

void BM_MakeCheckpoint(benchmark::State& state) {
  SyntheticOptions options;
  options.d_model = 1024;
  options.intermediate_size = 512;
  options.num_experts = 64;
  options.num_layers = static_cast<uint32_t>(state.range(0));
  int64_t bytes = 0;
  options.progress = [&](uint64_t, uint64_t total) { bytes = static_cast<int64_t>(total); };
  std::string folder = std::filesystem::temp_directory_path() / "expertmesh_XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    state.SkipWithError("no temporary folder");
    return;
  }
  for (auto _ : state) {
    if (!MakeSyntheticCheckpoint(folder + "/m", options).ok()) {
      state.SkipWithError("MakeSyntheticCheckpoint failed");
      break;
    }
    state.PauseTiming();
    std::filesystem::remove_all(folder + "/m");
    state.ResumeTiming();
  }
  std::filesystem::remove_all(folder);
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(BM_MakeCheckpoint)->Arg(5)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace expertmesh::checkpoint
