// A stand-in for libexpertmesh_cuda.so that computes on the CPU and fails as it is told to by
// EXPERTMESH_FAKE_GPU, words separated by spaces:
//
//   devices=N     GPUs that there are (default 1)
//   no_driver     counting them fails
//   other_build   the module is of another build
//   lost_after=N  after N batches the device is lost
//   hangs         what is submitted to a lost device is never completed
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/version.h"
#include "common/experts/backend_factory.h"
#include "common/experts/cuda_module.h"

namespace expertmesh::experts {
namespace {

std::vector<std::string> Words() {
  const char* const words = std::getenv("EXPERTMESH_FAKE_GPU");
  return absl::StrSplit(words == nullptr ? "" : words, ' ');
}

bool IsSaid(absl::string_view word) {
  for (const std::string& each : Words()) {
    if (each == word) {
      return true;
    }
  }
  return false;
}

int Number(absl::string_view key, int otherwise) {
  for (const std::string& each : Words()) {
    absl::string_view word = each;
    int number = 0;
    if (absl::ConsumePrefix(&word, key) && absl::SimpleAtoi(word, &number)) {
      return number;
    }
  }
  return otherwise;
}

class LosableBackend final : public Backend {
 public:
  LosableBackend(std::unique_ptr<Backend> cpu, const DeviceOptions& options)
      : cpu_(std::move(cpu)), options_(options), lost_after_(Number("lost_after=", -1)) {}

  absl::string_view name() const override { return "cuda"; }
  Dtype compute_dtype() const override { return cpu_->compute_dtype(); }
  size_t preferred_in_flight() const override { return cpu_->preferred_in_flight(); }

  absl::StatusOr<std::shared_ptr<const PackedExpert>> Pack(const ExpertOptions& options,
                                                           const ExpertWeights& weights,
                                                           IntermediateSlice slice) override {
    return cpu_->Pack(options, weights, slice);
  }
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights& weights,
                                       IntermediateSlice slice) override {
    return cpu_->PackedBytes(options, weights, slice);
  }

  void Submit(const GroupedBatch& batch, Completion done) override {
    const int before = submitted_++;
    if (lost_after_ < 0 || before < lost_after_) {
      cpu_->Submit(batch, std::move(done));
      return;
    }
    const absl::Status why = absl::UnavailableError(
        "the device is lost: cudaStreamSynchronize: unspecified launch failure");
    if (before == lost_after_) {
      errors_ = 1;
      options_.on_lost(why);
    }
    if (IsSaid("hangs")) {
      new Completion(std::move(done));  // Never called, nor destroyed.
      return;
    }
    std::move(done)(why);
  }

  DeviceStats stats() const { return {1000, 4000, 0, 0, errors_}; }

 private:
  const std::unique_ptr<Backend> cpu_;
  const DeviceOptions options_;
  const int lost_after_;
  std::atomic<int> submitted_ = 0;
  std::atomic<uint64_t> errors_ = 0;
};

absl::StatusOr<int> CountDevices() {
  if (IsSaid("no_driver")) {
    return absl::UnavailableError("cudaGetDeviceCount: CUDA driver version is insufficient");
  }
  return Number("devices=", 1);
}

absl::StatusOr<Device> Open(int, const DeviceOptions& options) {
  absl::StatusOr<std::unique_ptr<Backend>> cpu = MakeBackend("cpu", options.backend);
  if (!cpu.ok()) {
    return cpu.status();
  }
  auto backend = std::make_unique<LosableBackend>(*std::move(cpu), options);
  Device device;
  device.info = {"stand-in", 4e12, 1e15};
  device.stats = [backend = backend.get()] { return backend->stats(); };
  device.backend = std::move(backend);
  return device;
}

const CudaModule* Describe() {
  static const auto* const build = new std::string(ProgramVersion().Text());
  static const CudaModule right = {build->c_str(), CountDevices, Open};
  static const CudaModule other = {"0.0.1", CountDevices, Open};
  return IsSaid("other_build") ? &other : &right;
}

}  // namespace
}  // namespace expertmesh::experts

EXPERTMESH_CUDA_MODULE(expertmesh::experts::Describe)
