#include "router_service/mesh/fleet.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace expertmesh::mesh {
namespace {

// How often nodes that left are looked at, until they are idle.
constexpr absl::Duration kReapInterval = absl::Seconds(1);

// How many experts `missing` names in all.
size_t CountMissing(const Placement& placement) {
  size_t count = 0;
  for (const v1::MissingExperts& layer : placement.missing()) {
    count += static_cast<size_t>(layer.experts_size());
  }
  return count;
}

// What of `damaged` is `node`'s, layer by layer.
void AddDamaged(absl::Span<const DamagedExpert> damaged, NodeIndex node, v1::TopologyNode* told) {
  for (const DamagedExpert& copy : damaged) {
    if (copy.node != node) {
      continue;
    }
    v1::DamagedExperts* group = nullptr;
    for (v1::DamagedExperts& known : *told->mutable_damaged()) {
      if (known.layer() == copy.layer && known.reason() == copy.reason) {
        group = &known;
      }
    }
    if (group == nullptr) {
      group = told->add_damaged();
      group->set_layer(copy.layer);
      group->set_reason(copy.reason);
    }
    group->add_experts(copy.expert);
  }
}

}  // namespace

Fleet::Fleet(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, WireEncodings encodings,
             uint64_t verify_bytes_per_second, metrics::RouterMetrics* metrics,
             Transport* transport, TimerQueue* timers, Clock* clock)
    : checkpoint_(std::move(checkpoint)),
      encodings_(std::move(encodings)),
      metrics_(metrics),
      transport_(transport),
      timers_(timers),
      clock_(clock),
      placement_(std::make_shared<const Placement>(checkpoint_->model(), 1,
                                                   absl::Span<const NodeOffer>())),
      verifier_(std::make_unique<WeightVerifier>(checkpoint_, verify_bytes_per_second, clock,
                                                 [this] { Rebuild(); })) {}

Fleet::~Fleet() { Close(); }

void Fleet::Close() {
  std::vector<std::shared_ptr<NodeLink>> nodes;
  TimerQueue::Id timer = 0;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    timer = std::exchange(reap_timer_, 0);
    nodes.swap(nodes_);
  }
  timers_->CancelAndWait(timer);
  verifier_->Stop();
  for (const std::shared_ptr<NodeLink>& node : nodes) {
    if (node != nullptr) {
      node->Close();
    }
  }
}

void Fleet::SetAddresses(const std::vector<std::string>& addresses) {
  std::vector<std::shared_ptr<NodeLink>> to_connect;
  std::vector<std::pair<std::shared_ptr<NodeLink>, bool>> known;  // And whether it is listed.
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return;
    }
    for (const std::string& address : addresses) {
      const auto [it, added] =
          index_of_address_.try_emplace(address, static_cast<NodeIndex>(nodes_.size()));
      if (added) {
        nodes_.emplace_back();
      }
      std::shared_ptr<NodeLink>& node = nodes_[it->second];
      if (node == nullptr) {
        const WireEncoding encoding = encodings_.For(address);
        node = std::make_shared<NodeLink>(it->second, address, checkpoint_->fingerprint(), encoding,
                                          metrics_, [this] { Rebuild(); });
        to_connect.push_back(node);
      }
    }
    for (const std::shared_ptr<NodeLink>& node : nodes_) {
      if (node != nullptr) {
        const bool listed =
            std::find(addresses.begin(), addresses.end(), node->address()) != addresses.end();
        known.emplace_back(node, listed);
      }
    }
    ScheduleReap();
  }
  bool changed = !to_connect.empty();
  for (const auto& [node, listed] : known) {
    changed = node->SetListed(listed) || changed;
  }
  if (changed) {
    Rebuild();
  }
  for (const std::shared_ptr<NodeLink>& node : to_connect) {
    spdlog::info("node {}: hidden states go as {}, partials come as {}", node->address(),
                 std::string(EncodingName(node->encoding().hidden_states)),
                 std::string(EncodingName(node->encoding().partials)));
    node->Connect(transport_);
  }
}

std::shared_ptr<const Placement> Fleet::placement() const {
  absl::MutexLock lock(&mutex_);
  return placement_;
}

std::shared_ptr<NodeLink> Fleet::node(NodeIndex index) const {
  absl::MutexLock lock(&mutex_);
  return index < nodes_.size() ? nodes_[index] : nullptr;
}

absl::StatusOr<v1::TopologyNode> Fleet::Drain(const std::string& address, bool resume) {
  std::shared_ptr<NodeLink> node;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = index_of_address_.find(address);
    if (it != index_of_address_.end()) {
      node = nodes_[it->second];
    }
  }
  if (node == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("address '", address, "' is no node of this mesh; GetTopology lists them"));
  }
  node->SetDraining(!resume);
  return node->ToProto();
}

v1::GetTopologyResponse Fleet::Topology() const {
  std::vector<std::shared_ptr<NodeLink>> nodes;
  std::vector<DamagedExpert> damaged;
  v1::GetTopologyResponse topology;
  {
    absl::MutexLock lock(&mutex_);
    nodes = nodes_;
    damaged = damaged_;
    topology.set_epoch(placement_->epoch());
    topology.set_ready(placement_->complete());
    for (const v1::MissingExperts& missing : placement_->missing()) {
      *topology.add_missing() = missing;
    }
  }
  topology.set_fingerprint(checkpoint_->fingerprint());
  for (const std::shared_ptr<NodeLink>& node : nodes) {
    if (node != nullptr) {
      v1::TopologyNode& told = *topology.add_nodes();
      told = node->ToProto();
      AddDamaged(damaged, node->index(), &told);
    }
  }
  return topology;
}

uint64_t Fleet::Subscribe(std::function<void()> callback) {
  absl::MutexLock lock(&subscribers_mutex_);
  const uint64_t id = next_subscriber_++;
  subscribers_.emplace(id, std::move(callback));
  return id;
}

void Fleet::Unsubscribe(uint64_t id) {
  absl::MutexLock lock(&subscribers_mutex_);
  subscribers_.erase(id);
}

void Fleet::Rebuild() {
  {
    absl::MutexLock rebuild(&rebuild_mutex_);
    std::vector<std::shared_ptr<NodeLink>> nodes;
    uint64_t epoch = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) {
        return;
      }
      nodes = nodes_;
      epoch = placement_->epoch() + 1;
    }
    std::vector<std::shared_ptr<const v1::DescribeResponse>> descriptions;
    std::vector<std::vector<const v1::HostedExperts*>> hosted;
    std::vector<NodeOffer> offers;
    for (const std::shared_ptr<NodeLink>& node : nodes) {
      NodeOffer offer;
      std::shared_ptr<const v1::DescribeResponse> description =
          node == nullptr ? nullptr : node->Offer(&offer.last_resort);
      if (description == nullptr) {
        continue;
      }
      offer.node = node->index();
      std::vector<const v1::HostedExperts*> entries;
      for (const v1::HostedExperts& entry : description->hosted()) {
        entries.push_back(&entry);
      }
      descriptions.push_back(std::move(description));
      hosted.push_back(std::move(entries));
      offers.push_back(offer);
    }
    for (size_t i = 0; i < offers.size(); ++i) {
      offers[i].hosted = hosted[i];
    }
    const std::vector<DamagedExpert> damaged = ExcludeDamaged(nodes, &offers);
    auto placement = std::make_shared<const Placement>(checkpoint_->model(), epoch, offers);
    spdlog::info("epoch {}: {} of {} nodes usable, {} experts missing", epoch, offers.size(),
                 nodes.size(), CountMissing(*placement));
    std::vector<DamagedExpert> before = damaged;
    {
      // Together: who is told that a copy is not used may count on it.
      absl::MutexLock lock(&mutex_);
      placement_ = std::move(placement);
      before.swap(damaged_);
    }
    TellDamaged(before, damaged, nodes);
  }
  absl::MutexLock lock(&subscribers_mutex_);
  for (const auto& [id, callback] : subscribers_) {
    callback();
  }
}

std::vector<DamagedExpert> Fleet::ExcludeDamaged(absl::Span<const std::shared_ptr<NodeLink>> nodes,
                                                 std::vector<NodeOffer>* offers) {
  std::vector<NodeHoldings> holdings;
  for (const NodeOffer& offer : *offers) {
    holdings.push_back({offer.node, nodes[offer.node]->address(), offer.hosted});
  }
  std::vector<DamagedExpert> damaged = verifier_->Judge(holdings);
  for (NodeOffer& offer : *offers) {
    for (const DamagedExpert& copy : damaged) {
      if (copy.node == offer.node) {
        offer.excluded.emplace_back(copy.layer, copy.expert);
      }
    }
  }
  return damaged;
}

void Fleet::TellDamaged(absl::Span<const DamagedExpert> before, absl::Span<const DamagedExpert> now,
                        absl::Span<const std::shared_ptr<NodeLink>> nodes) {
  for (const std::shared_ptr<NodeLink>& node : nodes) {
    if (node == nullptr) {
      continue;
    }
    v1::TopologyNode old;
    v1::TopologyNode told;
    AddDamaged(before, node->index(), &old);
    AddDamaged(now, node->index(), &told);
    uint64_t count = 0;
    for (const v1::DamagedExperts& layer : told.damaged()) {
      count += static_cast<uint64_t>(layer.experts_size());
      const bool known = std::any_of(
          old.damaged().begin(), old.damaged().end(), [&layer](const v1::DamagedExperts& other) {
            return other.SerializeAsString() == layer.SerializeAsString();
          });
      if (!known) {
        spdlog::error("node {}: layer {} expert{} {}: {}; not used there", node->address(),
                      layer.layer(), layer.experts_size() == 1 ? "" : "s",
                      absl::StrJoin(layer.experts(), ","), layer.reason());
      }
    }
    metrics_->SetDamagedExperts(node->address(), count);
  }
}

void Fleet::ScheduleReap() {
  timers_->Cancel(reap_timer_);
  reap_timer_ = timers_->Schedule(clock_->Now() + kReapInterval, [this] { Reap(); });
}

void Fleet::Reap() {
  std::vector<std::shared_ptr<NodeLink>> gone;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return;
    }
    bool waiting = false;
    for (std::shared_ptr<NodeLink>& node : nodes_) {
      if (node == nullptr) {
        continue;
      }
      if (node->Idle()) {
        gone.push_back(std::move(node));
        node = nullptr;
      } else {
        waiting = waiting || !node->Listed();
      }
    }
    if (waiting) {
      ScheduleReap();
    }
  }
  for (const std::shared_ptr<NodeLink>& node : gone) {
    node->Close();
    metrics_->SetDamagedExperts(node->address(), 0);
  }
  if (!gone.empty()) {
    Rebuild();
  }
}

}  // namespace expertmesh::mesh
