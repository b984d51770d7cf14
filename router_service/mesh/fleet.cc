#include "router_service/mesh/fleet.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"
#include "common/wire/wire_dtype.h"
#include "router_service/mesh/damaged_experts.h"
#include "router_service/mesh/twins.h"

namespace expertmesh::mesh {
namespace {

// How often nodes that left are looked at, until they are idle.
constexpr absl::Duration kReapInterval = absl::Seconds(1);
constexpr absl::Duration kLogInterval = absl::Seconds(1);

// How many experts are missing in all.
uint64_t CountMissing(const Placement& placement) {
  uint64_t count = 0;
  for (const MissingExperts& layer : placement.missing()) {
    count += layer.experts.size();
  }
  return count;
}

}  // namespace

Fleet::Fleet(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, FleetOptions options,
             metrics::RouterMetrics* metrics, Transport* transport, TimerQueue* timers,
             Clock* clock)
    : checkpoint_(std::move(checkpoint)),
      options_(std::move(options)),
      metrics_(metrics),
      transport_(transport),
      timers_(timers),
      clock_(clock),
      epoch_line_(kLogInterval, timers, clock,
                  [](const std::string& line) { spdlog::info("{}", line); }),
      view_(std::make_shared<const MeshView>(
          ViewVersion(),
          std::make_shared<const Placement>(checkpoint_->model(), absl::Span<const NodeOffer>()),
          ViewBiases{options_.biases, nullptr}, std::vector<NodeView>())),
      reap_timer_(timers),
      verifier_(std::make_unique<WeightVerifier>(checkpoint_, options_.verify_bytes_per_second,
                                                 clock, [this] { Rebuild(); })),
      view_maker_(checkpoint_, verifier_.get()),
      judge_(transport, timers, clock, [this] { return Subjects(); }) {}

Fleet::~Fleet() { Close(); }

void Fleet::Close() {
  Links nodes;
  TimerQueue::Id begun = 0;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    begun = reap_timer_.CancelForGood();
    nodes.swap(nodes_);
    index_of_address_.clear();
  }
  timers_->AwaitEnd(begun);
  judge_.Stop();
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
      if (index_of_address_.contains(address)) {
        continue;
      }
      const NodeIndex index = FreePlace();
      index_of_address_[address] = index;
      nodes_[index] = std::make_shared<NodeLink>(
          address,
          NodeLinkOptions{checkpoint_->model_identity(), checkpoint_->model().d_model,
                          options_.encodings.For(address), options_.health},
          metrics_, timers_, clock_, [this] { Rebuild(); });
      to_connect.push_back(nodes_[index]);
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
                 std::string(WireName(node->encoding().hidden_states)),
                 std::string(WireName(node->encoding().partials)));
    node->Connect(transport_);
  }
}

NodeIndex Fleet::FreePlace() {
  const auto free = std::find(nodes_.begin(), nodes_.end(), nullptr);
  const auto index = static_cast<NodeIndex>(free - nodes_.begin());
  if (free == nodes_.end()) {
    nodes_.emplace_back();
  }
  return index;
}

void Fleet::RecogniseNodes() {
  for (NodeIndex index = 0; index < nodes_.size(); ++index) {
    const std::shared_ptr<NodeLink> link = nodes_[index];
    const std::string node_id = link == nullptr ? std::string() : link->node_id();
    if (node_id.empty() || !recognised_.insert(link.get()).second) {
      continue;
    }
    // Two that are up are two nodes, even if somebody gave them one name.
    const auto before =
        std::find_if(nodes_.begin(), nodes_.end(), [&](const std::shared_ptr<NodeLink>& other) {
          return other != nullptr && other != link && other->state() == LinkState::kDown &&
                 other->node_id() == node_id;
        });
    if (before == nodes_.end()) {
      continue;
    }
    spdlog::info("node {} has moved from {} to {}", node_id, (*before)->address(), link->address());
    link->ContinueFrom(**before);
    std::swap(index_of_address_[link->address()], index_of_address_[(*before)->address()]);
    std::swap(nodes_[index], *before);
  }
}

std::shared_ptr<const MeshView> Fleet::view() const {
  absl::MutexLock lock(&mutex_);
  return view_;
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
    return ErrorOf(
        v1::ERROR_REASON_NODE_UNKNOWN,
        absl::StrCat("address '", address, "' is no node of this mesh; GetTopology lists them"),
        {{"address", address}});
  }
  node->SetDraining(!resume);
  return node->ToProto();
}

NodeJudge::Subjects Fleet::Subjects() const {
  absl::MutexLock lock(&mutex_);
  return {nodes_, view_};
}

v1::Topology Fleet::Topology() const {
  Links nodes;
  std::vector<DamagedExpert> damaged;
  std::shared_ptr<const MeshView> view;
  absl::Status lookup;
  {
    absl::MutexLock lock(&mutex_);
    nodes = nodes_;
    damaged = damaged_;
    view = view_;
    lookup = lookup_status_;
  }
  v1::Topology topology;
  topology.set_lookup_error(std::string(lookup.message()));
  topology.set_epoch(view->epoch());
  topology.set_revision(view->version().revision);
  topology.set_ready(view->placement().complete());
  topology.set_fingerprint(checkpoint_->fingerprint());
  for (const MissingExperts& missing : view->placement().missing()) {
    v1::MissingExperts& layer = *topology.add_missing();
    layer.set_layer(missing.layer);
    layer.mutable_experts()->Add(missing.experts.begin(), missing.experts.end());
  }
  for (NodeIndex index = 0; index < nodes.size(); ++index) {
    if (nodes[index] != nullptr) {
      v1::TopologyNode& node = *topology.add_nodes();
      node = nodes[index]->ToProto();
      AddDamaged(damaged, index, &node);
    }
  }
  return topology;
}

MeshSummary Fleet::Summary() const {
  Links nodes;
  MeshSummary summary;
  summary.nodes = {{LinkState::kDown, 0},
                   {LinkState::kUp, 0},
                   {LinkState::kRefused, 0},
                   {LinkState::kDraining, 0},
                   {LinkState::kEjected, 0}};
  {
    absl::MutexLock lock(&mutex_);
    nodes = nodes_;
    summary.epoch = view_->epoch();
    summary.missing_experts = CountMissing(view_->placement());
    summary.lookup_fails = !lookup_status_.ok();
  }
  for (const std::shared_ptr<NodeLink>& node : nodes) {
    if (node != nullptr) {
      ++summary.nodes[node->state()];
    }
  }
  return summary;
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

ViewVersion Fleet::NextVersion() const {
  const ViewVersion& before = view_->version();
  ViewVersion next;
  next.term = directive_.term;
  next.decision = directive_.decision;
  next.epoch = directive_.follows ? directive_.epoch : std::max(before.epoch + 1, directive_.epoch);
  next.revision = before.revision + 1;
  return next;
}

ViewBiases Fleet::Biases() const { return {options_.biases, directive_.live_biases}; }

uint64_t Fleet::SetDirective(Directive directive) {
  bool same_plan = false;
  {
    absl::MutexLock rebuild(&rebuild_mutex_);
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return view_->epoch();
    }
    same_plan = directive.plan == directive_.plan;
    const bool same = same_plan && directive.live_biases == directive_.live_biases &&
                      directive.epoch <= view_->epoch();
    directive_ = std::move(directive);
    if (same_plan) {
      ViewVersion version = NextVersion();
      version.epoch = same && !directive_.follows ? view_->epoch() : version.epoch;
      view_ = view_->With(version, Biases());
    }
  }
  if (same_plan) {
    TellSubscribers();
  } else {
    Rebuild();
  }
  return view()->epoch();
}

void Fleet::Rebuild() {
  {
    absl::MutexLock rebuild(&rebuild_mutex_);
    Links nodes;
    ViewVersion version;
    ViewBiases biases;
    std::shared_ptr<const balance::PlacementPlan> plan;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) {
        return;
      }
      RecogniseNodes();
      nodes = nodes_;
      version = NextVersion();
      biases = Biases();
      plan = directive_.plan;
    }
    MarkTwins(nodes);
    std::vector<DamagedExpert> damaged;
    std::shared_ptr<const MeshView> view =
        view_maker_.Make(version, nodes, std::move(biases), plan.get(), &damaged);
    LogView(*view, nodes);
    std::vector<DamagedExpert> before = damaged;
    {
      // Together: an operator who is told that a copy is not used may count on it.
      absl::MutexLock lock(&mutex_);
      view_ = std::move(view);
      before.swap(damaged_);
    }
    for (NodeIndex index = 0; index < nodes.size(); ++index) {
      if (nodes[index] != nullptr) {
        const std::string& address = nodes[index]->address();
        metrics_->SetDamagedExperts(address, LogNewlyDamaged(before, damaged, index, address));
      }
    }
  }
  TellSubscribers();
}

void Fleet::LogView(const MeshView& view, const Links& nodes) {
  size_t known = 0;
  size_t usable = 0;
  for (NodeIndex index = 0; index < nodes.size(); ++index) {
    known += nodes[index] != nullptr ? 1 : 0;
    usable += nodes[index] != nullptr && view.node(index).link != nullptr ? 1 : 0;
  }
  epoch_line_.Write(absl::StrCat("epoch ", view.epoch(), ": ", usable, " of ", known,
                                 " nodes usable, ", CountMissing(view.placement()),
                                 " experts missing"));
}

void Fleet::TellSubscribers() {
  absl::MutexLock lock(&subscribers_mutex_);
  for (const auto& [id, callback] : subscribers_) {
    callback();
  }
}

void Fleet::SetLookupStatus(const absl::Status& status) {
  if (status.ok()) {
    spdlog::info("nodes can be looked up again");
  } else {
    spdlog::warn("nodes cannot be looked up: {}; those that are known stay",
                 std::string(status.message()));
  }
  {
    absl::MutexLock lock(&mutex_);
    lookup_status_ = status;
  }
  TellSubscribers();
}

void Fleet::ScheduleReap() {
  reap_timer_.Set(clock_->Now() + kReapInterval, [this] { Reap(); });
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
        index_of_address_.erase(node->address());
        recognised_.erase(node.get());
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
    absl::MutexLock rebuild(&rebuild_mutex_);  // A Rebuild that still knows the node is over then.
    metrics_->ForgetNode(node->address());
  }
  if (!gone.empty()) {
    Rebuild();
  }
}

}  // namespace expertmesh::mesh
