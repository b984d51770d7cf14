// The ceiling: nothing but the experts.
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/tensor/aligned_buffer.h"
#include "tests/bench/baselines/local_layer.h"

namespace expertmesh::bench {
namespace {

class InProcess final : public Target {
 public:
  explicit InProcess(LocalLayer layer) : layer_(std::move(layer)) {}

  absl::Status Call(size_t, const client::Matrix& hidden) override {
    absl::MutexLock lock(&mutex_);
    const size_t rows = hidden.rows();
    RETURN_IF_ERROR(layer_.Route(hidden, &routed_));
    // The library wants aligned rows; those of the caller may lie anywhere.
    rows_.Resize(hidden.bytes().size());
    std::copy(hidden.bytes().begin(), hidden.bytes().end(), rows_.data());
    experts_.clear();
    for (const uint32_t expert : routed_.expert_ids) {
      experts_.push_back(layer_.experts[expert].get());
    }
    sums_.Resize(rows * layer_.d_model * sizeof(float));
    const absl::Time begin = absl::Now();
    RETURN_IF_ERROR(experts::Compute(
        *layer_.backend, {rows_.data(), rows, layer_.d_model, routed_.token_begin, experts_,
                          routed_.weights, layer_.description.routing.apply, sums_.as<float>()}));
    CountWork(absl::Now() - begin);
    RETURN_IF_ERROR(layer_.AddShared(rows_.data(), rows, sums_.as<float>()));
    output_.Resize(hidden.bytes().size());
    ConvertElements(Dtype::kF32, sums_.data(), layer_.dtype, output_.data(), rows * layer_.d_model);
    return absl::OkStatus();
  }

  ExpertWork TakeWork() override {
    absl::MutexLock lock(&mutex_);
    return std::exchange(work_, {});
  }

 private:
  void CountWork(absl::Duration took) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    work_.compute_us += static_cast<uint64_t>(absl::ToInt64Microseconds(took));
    hit_.assign(layer_.experts.size(), false);
    for (const uint32_t expert : routed_.expert_ids) {
      if (!hit_[expert]) {
        hit_[expert] = true;
        work_.weight_bytes += layer_.experts[expert]->bytes();
      }
    }
    work_.flops += 2.0 * static_cast<double>(layer_.description.expert.parameters()) *
                   static_cast<double>(routed_.expert_ids.size());
  }

  absl::Mutex mutex_;
  const LocalLayer layer_;
  gate::RoutedTokens routed_ ABSL_GUARDED_BY(mutex_);
  std::vector<const experts::PackedExpert*> experts_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> hit_ ABSL_GUARDED_BY(mutex_);
  AlignedBuffer rows_ ABSL_GUARDED_BY(mutex_);
  AlignedBuffer sums_ ABSL_GUARDED_BY(mutex_);
  AlignedBuffer output_ ABSL_GUARDED_BY(mutex_);
  ExpertWork work_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeInProcess(const TargetOptions& options) {
  ASSIGN_OR_RETURN(LocalLayer layer, LocalLayer::Load(options, [](uint32_t) { return true; }));
  return std::make_unique<InProcess>(std::move(layer));
}

}  // namespace expertmesh::bench
