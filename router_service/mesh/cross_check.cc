#include "router_service/mesh/cross_check.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/tensor/aligned_buffer.h"
#include "common/wire/tensor_encode.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::mesh {
namespace {

// Largest RelativeChange of healthy nodes: far above what another order of sums does to float32,
// and above what bf16 rounds at every step; far below what wrong weights do.
constexpr double kTolerance = 1e-4;
constexpr double kTolerance16 = 2e-2;

// A node that is busier than this is not asked.
constexpr absl::Duration kPatience = absl::Seconds(10);

double ToleranceOf(const NodeLink& link) {
  const auto description = link.Offer().description;
  return description != nullptr && description->compute_dtype() == v1::DTYPE_F32 ? kTolerance
                                                                                 : kTolerance16;
}

}  // namespace

// One expert's work for one row, on two nodes.
struct CrossChecker::Check {
  uint32_t layer = 0;
  uint32_t expert = 0;
  float weight = 0.0f;
  size_t d_model = 0;
  std::array<std::shared_ptr<NodeLink>, 2> links;
  std::array<std::shared_ptr<AlignedBuffer>, 2> partials;

  absl::Mutex mutex;
  size_t answered ABSL_GUARDED_BY(mutex) = 0;
  bool failed ABSL_GUARDED_BY(mutex) = false;
};

CrossChecker::CrossChecker(absl::Duration interval, metrics::RouterMetrics* metrics, Clock* clock)
    : interval_(interval), metrics_(metrics), clock_(clock) {}

std::optional<uint64_t> CrossChecker::Begin(uint32_t layer) {
  if (interval_ <= absl::ZeroDuration()) {
    return std::nullopt;
  }
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mutex_);
  const auto [it, added] = schedules_.try_emplace(layer, Schedule{now + interval_});
  Schedule& schedule = it->second;
  if (schedule.under_way || now < schedule.next) {
    return std::nullopt;
  }
  schedule.next = now + interval_;
  schedule.under_way = true;
  return schedule.turn++;
}

void CrossChecker::End(uint32_t layer) {
  absl::MutexLock lock(&mutex_);
  schedules_[layer].under_way = false;
}

void CrossChecker::Offer(uint32_t layer, const MeshView& view, const gate::RoutedTokens& routed,
                         const uint8_t* hidden_states, Dtype dtype, size_t d_model) {
  const std::optional<uint64_t> turn = Begin(layer);
  if (!turn) {
    return;
  }
  const std::vector<ExpertReplicas>& replicas = *view.placement().Layer(layer);
  // From a place that moves on, the first assignment that two nodes could serve.
  const size_t count = routed.expert_ids.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t at = (*turn + i) % count;
    const uint32_t expert = routed.expert_ids[at];
    const size_t row = static_cast<size_t>(std::upper_bound(routed.token_begin.begin(),
                                                            routed.token_begin.end(), at) -
                                           routed.token_begin.begin()) -
                       1;
    const uint8_t* const sent = hidden_states + row * d_model * BytesOf(dtype);
    if (replicas[expert].missing() || HasNonFinite(dtype, sent, d_model)) {
      continue;
    }
    const auto& slices = replicas[expert].slices;
    const std::vector<NodeIndex>& nodes = slices[*turn % slices.size()];
    if (nodes.size() < 2) {
      continue;
    }
    auto check = std::make_shared<Check>();
    check->layer = layer;
    check->expert = expert;
    check->weight = routed.weights[at];
    check->d_model = d_model;
    for (size_t which = 0; which < check->links.size(); ++which) {
      check->links[which] = view.node(nodes[(*turn + which) % nodes.size()]).link;
    }
    Send(check, 0, sent, dtype, view.epoch());
    Send(check, 1, sent, dtype, view.epoch());
    return;
  }
  End(layer);
}

void CrossChecker::Send(const std::shared_ptr<Check>& check, size_t which, const uint8_t* row,
                        Dtype dtype, uint64_t epoch) {
  ProbeRequest request;
  request.layer = check->layer;
  request.expert = check->expert;
  request.weight = check->weight;
  request.epoch = epoch;
  request.timeout = kPatience;
  request.d_model = static_cast<uint32_t>(check->d_model);
  request.hidden_states = row;
  request.dtype = dtype;
  SendProbe(request, check->links[which].get(),
            [this, check, which](const NodeProbe& probe, const absl::Status& status) {
              OnAnswer(check, which, probe, status);
            });
}

void CrossChecker::OnAnswer(const std::shared_ptr<Check>& check, size_t which,
                            const NodeProbe& probe, const absl::Status& status) {
  bool last = false;
  bool failed = false;
  check->partials[which] = probe.partials;
  {
    absl::MutexLock lock(&check->mutex);
    check->failed = check->failed || !status.ok();
    last = ++check->answered == check->links.size();
    failed = check->failed;
  }
  if (last && !failed) {
    Compare(*check);
  }
  if (last) {
    End(check->layer);
  }
}

void CrossChecker::Compare(const Check& check) {
  const float* const a = check.partials[0]->as<float>();
  const float* const b = check.partials[1]->as<float>();
  const double tolerance = std::max(ToleranceOf(*check.links[0]), ToleranceOf(*check.links[1]));
  const double difference = RelativeChange(a, b, check.d_model);
  // Where both leave the range, how they do it means nothing.
  const bool beyond =
      HasNonFinite(Dtype::kF32, a, check.d_model) && HasNonFinite(Dtype::kF32, b, check.d_model);
  const bool agree = beyond || difference <= tolerance;  // NaN is not.
  if (!agree) {
    metrics_->CountDisagreement(check.links[0]->address(), check.links[1]->address());
    check.links[0]->CountDisagreement();
    check.links[1]->CountDisagreement();
    spdlog::error(
        "layer {} expert {}: nodes {} and {} compute different values of the same row, by {:.3g} "
        "of its norm; one of them is damaged. Restart it, or drain it",
        check.layer, check.expert, check.links[0]->address(), check.links[1]->address(),
        difference);
  }
  // Last, so that a reader who sees the check counted sees the nodes' counts too.
  metrics_->CountCrossCheck(agree);
}

}  // namespace expertmesh::mesh
