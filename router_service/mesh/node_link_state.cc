// What a link says of its node, and how it judges it.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/wire/peer_message.h"
#include "common/wire/wire_dtype.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/node_link.h"
#include "router_service/mesh/node_probe.h"

namespace expertmesh::mesh {
namespace {

// A node that answers half of what it was asked has not recovered, hence more than one.
constexpr uint32_t kRowsOfATry = 2;
constexpr absl::Duration kLongestTry = absl::Seconds(10);

v1::NodeLink ToWire(LinkState state) {
  switch (state) {
    case LinkState::kDown:
      return v1::NODE_LINK_DOWN;
    case LinkState::kUp:
      return v1::NODE_LINK_UP;
    case LinkState::kRefused:
      return v1::NODE_LINK_REFUSED;
    case LinkState::kDraining:
      return v1::NODE_LINK_DRAINING;
    case LinkState::kEjected:
      return v1::NODE_LINK_EJECTED;
  }
  EXPERTMESH_CHECK(false);
}

}  // namespace

LinkOffer NodeLink::Offer() const {
  absl::MutexLock lock(&mutex_);
  const LinkState state = StateLocked();
  if (state == LinkState::kDown || state == LinkState::kRefused) {
    return {};
  }
  return {description_, identity_, state == LinkState::kDraining || state == LinkState::kEjected};
}

LinkState NodeLink::state() const {
  absl::MutexLock lock(&mutex_);
  return StateLocked();
}

std::string NodeLink::node_id() const {
  absl::MutexLock lock(&mutex_);
  return description_ == nullptr ? std::string() : description_->node_id();
}

std::string NodeLink::instance_id() const {
  absl::MutexLock lock(&mutex_);
  return up_ && description_ != nullptr ? description_->instance_id() : std::string();
}

bool NodeLink::SetTwin(const std::string& address) {
  absl::MutexLock lock(&mutex_);
  if (twin_ == address) {
    return false;
  }
  twin_ = address;
  return true;
}

void NodeLink::ContinueFrom(const NodeLink& before) {
  bool draining = false;
  uint64_t disconnects = 0;
  uint64_t disagreements = 0;
  uint64_t faulty_answers = 0;
  uint64_t overdue_batches = 0;
  uint64_t ejections = 0;
  {
    absl::MutexLock lock(&before.mutex_);
    draining = before.draining_;
    disconnects = before.disconnects_;
    disagreements = before.disagreements_;
    faulty_answers = before.faulty_answers_;
    overdue_batches = before.overdue_batches_;
    ejections = before.ejections_;
  }
  absl::MutexLock lock(&mutex_);
  draining_ = draining_ || draining;
  disconnects_ += disconnects;
  disagreements_ += disagreements;
  faulty_answers_ += faulty_answers;
  overdue_batches_ += overdue_batches;
  ejections_ += ejections;
}

void NodeLink::SetDraining(bool draining) {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = draining;
  }
  on_change_();
}

bool NodeLink::SetListed(bool listed) {
  absl::MutexLock lock(&mutex_);
  return std::exchange(listed_, listed) != listed;
}

bool NodeLink::Listed() const {
  absl::MutexLock lock(&mutex_);
  return listed_;
}

bool NodeLink::Idle() const {
  absl::MutexLock lock(&mutex_);
  return !listed_ && in_flight_.empty();
}

LinkState NodeLink::StateLocked() const {
  if (!up_) {
    return LinkState::kDown;
  }
  if (refused_ || !twin_.empty()) {
    return LinkState::kRefused;
  }
  if (draining_ || !listed_ || node_state_ == v1::NODE_STATE_DRAINING) {
    return LinkState::kDraining;
  }
  return health_.ejected() ? LinkState::kEjected : LinkState::kUp;
}

std::string NodeLink::ReasonLocked() const {
  if (!up_) {
    return why_down_;
  }
  if (refused_) {
    return absl::StrCat("node ", address_, " serves model ", description_->fingerprint(),
                        ", this router ", options_.model.fingerprint,
                        "; start the node with the router's checkpoint");
  }
  if (!twin_.empty()) {
    return absl::StrCat("it is the node of ", twin_, ", where it is used; list it once");
  }
  if (node_state_ == v1::NODE_STATE_FAILED) {
    return description_->message();
  }
  return health_.ejected() ? why_ejected_ : "";
}

void NodeLink::CountFault(NodeFault fault) {
  uint64_t count = 0;
  {
    absl::MutexLock lock(&mutex_);
    count = ++faulty_answers_;
    health_.Failed(fault);
  }
  Count(fault, count);
}

void NodeLink::Count(NodeFault fault, uint64_t count) {
  metrics_->CountNodeFault(address_, NameOf(fault));
  if ((count & (count - 1)) == 0) {  // The first, the second, the fourth ...
    spdlog::warn("node {}: {}; not used. Faulty answers of this node so far: {}", address_,
                 TextOf(fault), count);
  }
}

void NodeLink::CountDisagreement() {
  absl::MutexLock lock(&mutex_);
  ++disagreements_;
}

v1::TopologyNode NodeLink::ToProto() const {
  absl::MutexLock lock(&mutex_);
  v1::TopologyNode node;
  node.set_address(address_);
  node.set_link(ToWire(StateLocked()));
  node.set_reason(ReasonLocked());
  if (description_ != nullptr) {
    *node.mutable_description() = *description_;
  }
  node.set_batches_in_flight(static_cast<uint32_t>(in_flight_.size()));
  node.set_rows_in_flight(rows_in_flight());
  node.set_disconnects(disconnects_);
  node.set_faulty_answers(faulty_answers_);
  node.set_disagreements(disagreements_);
  node.set_ejections(ejections_);
  node.set_overdue_batches(overdue_batches_);
  node.set_computed_assignments(computed_assignments_);
  node.set_compute_us(compute_us_);
  node.set_link_us_per_assignment(link_time_.MicrosPerAssignment());
  node.set_hidden_states_dtype(ToWire(options_.encoding.hidden_states));
  node.set_partials_dtype(ToWire(options_.encoding.partials));
  return node;
}

void NodeLink::OnStatus(const internal::v1::WatchStatusResponse& status) {
  bool changed = false;
  bool came_up = false;
  bool came_back = false;
  absl::Duration away;
  std::string node_id;
  {
    absl::MutexLock lock(&mutex_);
    came_up = !up_;
    came_back = std::exchange(was_up_, true) && came_up;
    changed = came_up || node_state_ != status.state() || status.has_description();
    away = clock_->Now() - down_since_;
    up_ = true;
    node_state_ = status.state();
    if (status.has_description()) {
      auto description = std::make_shared<v1::NodeDescription>(status.description());
      MakeTextsPrintable(description.get());
      identity_ = std::make_shared<const NodeIdentity>(address_, *description);
      description_ = std::move(description);
      refused_ = !SameModel({description_->fingerprint(), description_->outline()}, options_.model);
    }
    node_id = description_->node_id();
  }
  if (came_back) {
    log_.Write(absl::StrCat("node ", address_, " is up again: ", node_id, ", after ",
                            absl::FormatDuration(away)));
  } else if (came_up) {
    spdlog::info("node {} is up: {}", address_, node_id);
  }
  if (changed) {
    on_change_();
  }
}

void NodeLink::OnDisconnected(const absl::Status& why) {
  bool was_up = false;
  size_t batches = 0;
  {
    absl::MutexLock lock(&mutex_);
    was_up = up_;
    up_ = false;
    why_down_ = std::string(why.message());
    if (was_up) {
      ++disconnects_;
      down_since_ = clock_->Now();
      batches = in_flight_.size();
      health_.Restore(down_since_);  // What comes back may be another process.
    }
  }
  if (was_up) {
    log_.Write(absl::StrCat("node ", address_, " is lost, with ", batches,
                            " batches on their way: ", std::string(why.message())));
    // First the new placement, so that what was lost is planned without this node.
    on_change_();
    LoseAll(absl::UnavailableError(
        absl::StrCat("node ", address_, " is gone: ", std::string(why.message()))));
  }
}

std::optional<absl::Duration> NodeLink::RecentPace() const {
  absl::MutexLock lock(&mutex_);
  if (!up_ || health_.pace().unknown()) {
    return std::nullopt;
  }
  return health_.pace().PerAssignment();
}

void NodeLink::Judge(const Judgement& by) {
  std::vector<std::shared_ptr<NodeBatch>> overdue;
  std::string why_ejected;
  bool try_again = false;
  {
    absl::MutexLock lock(&mutex_);
    if (!up_) {
      return;
    }
    overdue = TakeOverdue(by);
    rows_in_flight_.store(in_flight_.rows(), std::memory_order_relaxed);
    why_ejected = EjectIfDue(by.now);
    if (health_.ejected() && by.now >= health_.tried_at() && !trying_) {
      trying_ = true;
      try_again = true;
    }
  }
  if (!why_ejected.empty()) {
    metrics_->CountEjection(address_);
    log_.Write(absl::StrCat("node ", address_, " is ejected: ", why_ejected));
    on_change_();  // First the new placement, as when it is lost.
  }
  for (const std::shared_ptr<NodeBatch>& batch : overdue) {
    batch->overdue = true;
    batch->Done(absl::UnavailableError(
        absl::StrCat("node ", address_, " owes the answer to a batch for too long")));
  }
  if (try_again) {
    Try(by.view->epoch());
  }
}

std::vector<std::shared_ptr<NodeBatch>> NodeLink::TakeOverdue(const Judgement& by) {
  std::vector<uint64_t> elsewhere;
  for (auto& [id, entry] : in_flight_.entries()) {
    const absl::Duration age = by.now - std::max(entry.sent, by.awake_since);
    if (entry.receiving || age <= health_.Limit(by.usual_pace, entry.assignments)) {
      continue;
    }
    if (!std::exchange(entry.overdue, true)) {
      const NodeFault fault = last_answer_ <= entry.sent ? NodeFault::kSilent : NodeFault::kLate;
      ++overdue_batches_;
      health_.Failed(fault);
      metrics_->CountNodeFault(address_, NameOf(fault));
    }
    if (entry.batch->CanGoElsewhere(*by.view)) {
      elsewhere.push_back(id);
    }
  }
  std::vector<std::shared_ptr<NodeBatch>> batches;
  for (const uint64_t id : elsewhere) {
    batches.push_back(in_flight_.Take(id).batch);
  }
  return batches;
}

std::string NodeLink::EjectIfDue(absl::Time now) {
  const std::string why = health_.WhyEject();
  if (why.empty() || health_.ejected()) {
    return "";
  }
  health_.Eject(now);
  ++ejections_;
  why_ejected_ = absl::StrCat(why, "; it serves only what no other node holds, and is tried again");
  return why_ejected_;
}

void NodeLink::Try(uint64_t epoch) {
  std::shared_ptr<const v1::NodeDescription> description;
  {
    absl::MutexLock lock(&mutex_);
    description = description_;
  }
  if (description->hosted().empty() || description->hosted(0).experts().empty()) {
    OnTried(absl::OkStatus());  // There is nothing to ask it.
    return;
  }
  const std::vector<float> zeros(size_t{kRowsOfATry} * options_.d_model);
  ProbeRequest request;
  request.layer = description->hosted(0).layer();
  request.expert = description->hosted(0).experts(0);
  request.epoch = epoch;
  request.timeout = std::min(options_.health.shortest_limit, kLongestTry);
  request.rows = kRowsOfATry;
  request.d_model = options_.d_model;
  request.hidden_states = reinterpret_cast<const uint8_t*>(zeros.data());
  SendProbe(request, this,
            [this](const NodeProbe&, const absl::Status& status) { OnTried(status); });
}

void NodeLink::OnTried(const absl::Status& status) {
  const absl::Time now = clock_->Now();
  {
    absl::MutexLock lock(&mutex_);
    trying_ = false;
    if (!health_.ejected()) {
      return;
    }
    if (!status.ok()) {
      health_.Extend(now);
      return;
    }
    health_.Restore(now);
  }
  log_.Write(absl::StrCat("node ", address_, " answers again, and is used"));
  on_change_();
}

}  // namespace expertmesh::mesh
