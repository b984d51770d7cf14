#include "router_service/fleet.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh {
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

}  // namespace

Fleet::Fleet(const ModelDescription* model, std::string fingerprint, WireEncodings encodings,
             Transport* transport, TimerQueue* timers, Clock* clock)
    : model_(model),
      fingerprint_(std::move(fingerprint)),
      encodings_(std::move(encodings)),
      transport_(transport),
      timers_(timers),
      clock_(clock),
      placement_(std::make_shared<const Placement>(*model, 1, absl::Span<const NodeOffer>())) {}

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
        node = std::make_shared<NodeLink>(it->second, address, fingerprint_, encoding,
                                          [this] { Rebuild(); });
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
  v1::GetTopologyResponse topology;
  {
    absl::MutexLock lock(&mutex_);
    nodes = nodes_;
    topology.set_epoch(placement_->epoch());
    topology.set_ready(placement_->complete());
    for (const v1::MissingExperts& missing : placement_->missing()) {
      *topology.add_missing() = missing;
    }
  }
  topology.set_fingerprint(fingerprint_);
  for (const std::shared_ptr<NodeLink>& node : nodes) {
    if (node != nullptr) {
      *topology.add_nodes() = node->ToProto();
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
    auto placement = std::make_shared<const Placement>(*model_, epoch, offers);
    spdlog::info("epoch {}: {} of {} nodes usable, {} experts missing", epoch, offers.size(),
                 nodes.size(), CountMissing(*placement));
    absl::MutexLock lock(&mutex_);
    placement_ = std::move(placement);
  }
  absl::MutexLock lock(&subscribers_mutex_);
  for (const auto& [id, callback] : subscribers_) {
    callback();
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
  }
  if (!gone.empty()) {
    Rebuild();
  }
}

}  // namespace expertmesh
