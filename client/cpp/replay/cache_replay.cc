#include "client/cpp/replay/cache_replay.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/expert_cache/cache_policy.h"
#include "common/expert_cache/expert_cache.h"

namespace expertmesh::replay {
namespace {

constexpr size_t kNever = std::numeric_limits<size_t>::max();

// Experts are worth more the sooner they are used again.
class OfflinePolicy final : public expert_cache::CachePolicy {
 public:
  // `trace` must outlive it.
  explicit OfflinePolicy(const CacheTrace& trace) : trace_(trace) {
    std::vector<size_t> later;
    for (const balance::RecordedLayer& layer : trace.layers()) {
      first_of_layer_.push_back(later.size());
      later.resize(later.size() + layer.num_experts, kNever);
    }
    for (size_t batch = 0; batch < trace.batches(); ++batch) {
      use_of_batch_.push_back(next_of_use_.size());
      next_of_use_.resize(next_of_use_.size() + trace.experts(batch).size(), kNever);
    }
    for (size_t batch = trace.batches(); batch-- > 0;) {
      size_t use = use_of_batch_[batch];
      for (const uint32_t expert : trace.experts(batch)) {
        next_of_use_[use++] =
            std::exchange(later[first_of_layer_[trace.layer(batch)] + expert], batch);
      }
    }
    next_.assign(later.size(), kNever);
  }

  void Use(size_t layer, absl::Span<const uint32_t> experts) override {
    EXPERTMESH_CHECK(trace_.layer(batch_) == layer);
    size_t use = use_of_batch_[batch_++];
    for (const uint32_t expert : experts) {
      next_[first_of_layer_[layer] + expert] = next_of_use_[use++];
    }
  }

  double Worth(size_t layer, uint32_t expert) const override {
    return -static_cast<double>(next_[first_of_layer_[layer] + expert]);
  }

 private:
  const CacheTrace& trace_;
  std::vector<size_t> first_of_layer_;
  std::vector<size_t> use_of_batch_;
  // By use: the batch that uses the same expert next.
  std::vector<size_t> next_of_use_;
  // By expert, at present.
  std::vector<size_t> next_;
  size_t batch_ = 0;
};

std::vector<uint32_t> ExpertsOf(const CacheTrace& trace) {
  std::vector<uint32_t> experts;
  for (const balance::RecordedLayer& layer : trace.layers()) {
    experts.push_back(layer.num_experts);
  }
  return experts;
}

absl::StatusOr<std::unique_ptr<expert_cache::CachePolicy>> MakePolicy(absl::string_view name,
                                                                      const CacheTrace& trace) {
  if (name == kOfflinePolicy) {
    return std::make_unique<OfflinePolicy>(trace);
  }
  return expert_cache::MakeCachePolicy(name, ExpertsOf(trace));
}

}  // namespace

void CacheTrace::Add(size_t layer, absl::Span<const uint32_t> experts) {
  layer_of_.push_back(static_cast<uint16_t>(layer));
  uses_.insert(uses_.end(), experts.begin(), experts.end());
  begin_.push_back(static_cast<uint32_t>(uses_.size()));
}

absl::StatusOr<CacheTrace> CacheTrace::Read(const std::string& name) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, balance::RecordingFiles(name));
  ASSIGN_OR_RETURN(const auto newest, balance::RoutingRecordReader::Open(files.back()));
  CacheTrace trace(newest->model().layers);
  for (const std::string& file : files) {
    RETURN_IF_ERROR(trace.ReadFile(file));
  }
  if (trace.batches() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": the recording has no batches; record while there is traffic"));
  }
  return trace;
}

absl::Status CacheTrace::ReadFile(const std::string& path) {
  ASSIGN_OR_RETURN(const auto reader, balance::RoutingRecordReader::Open(path));
  if (!std::equal(layers_.begin(), layers_.end(), reader->model().layers.begin(),
                  reader->model().layers.end())) {
    return absl::OkStatus();
  }
  balance::RecordedBatch batch;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader->Next(&batch));
    if (!more) {
      return absl::OkStatus();
    }
    const auto layer = std::find_if(layers_.begin(), layers_.end(),
                                    [&batch](const auto& one) { return one.layer == batch.layer; });
    std::vector<uint32_t>& experts = batch.experts;
    std::sort(experts.begin(), experts.end());
    experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
    if (!experts.empty() && experts.back() == balance::kNoExpert) {
      experts.pop_back();
    }
    if (uses_.size() + experts.size() > kMostUses) {
      return absl::ResourceExhaustedError(absl::StrCat(path, ": the recording has more than ",
                                                       kMostUses,
                                                       " uses of experts; use one of less time"));
    }
    Add(static_cast<size_t>(layer - layers_.begin()), experts);
    tokens_ += batch.tokens;
  }
}

absl::StatusOr<CacheOutcome> RunCache(const CacheTrace& trace,
                                      absl::Span<const uint64_t> expert_bytes,
                                      uint64_t capacity_bytes, absl::string_view policy) {
  ASSIGN_OR_RETURN(std::unique_ptr<expert_cache::CachePolicy> made, MakePolicy(policy, trace));
  expert_cache::ExpertCache cache(ExpertsOf(trace), capacity_bytes, std::move(made));
  CacheOutcome outcome;
  std::vector<expert_cache::CachedExpert> dropped;
  for (size_t batch = 0; batch < trace.batches(); ++batch) {
    const size_t layer = trace.layer(batch);
    uint64_t missed = 0;
    for (const uint32_t expert : trace.experts(batch)) {
      if (!cache.Has(layer, expert)) {
        cache.Add(layer, expert, expert_bytes[layer]);
        ++missed;
      }
    }
    cache.Use(layer, trace.experts(batch));
    cache.MakeRoom(0, layer, {}, &dropped);
    outcome.uses += trace.experts(batch).size();
    outcome.hits += trace.experts(batch).size() - missed;
    outcome.loaded_bytes += missed * expert_bytes[layer];
  }
  return outcome;
}

}  // namespace expertmesh::replay
