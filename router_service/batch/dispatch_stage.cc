#include "router_service/batch/dispatch_stage.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/trace/sampling.h"
#include "common/wire/error_reason.h"
#include "common/wire/tensor_encode.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::batch {
namespace {

// As many as a program is told; people are told all of them.
constexpr size_t kMostExpertsNamed = 32;

// What a request is told of the experts that could not be placed for it. `held`: nodes of the mesh
// hold all of them, but those have been asked in vain. `cause`: the last of their errors, OK if
// none was asked.
absl::Status UnplacedError(uint32_t layer, const std::set<uint32_t>& experts, bool held,
                           const absl::Status& cause) {
  const std::string which =
      absl::StrCat(experts.size() == 1 ? "expert " : "experts ", absl::StrJoin(experts, ", "));
  const std::string last =
      cause.ok() ? "" : absl::StrCat("; last error: ", std::string(cause.message()));
  if (absl::IsResourceExhausted(cause)) {
    return ErrorOf(v1::ERROR_REASON_QUEUE_FULL,
                   absl::StrCat("layer ", layer, ": the queues are full of all nodes that hold ",
                                which, "; retry later", last));
  }
  if (held && !cause.ok()) {
    return ErrorOf(v1::ERROR_REASON_NODES_LOST,
                   absl::StrCat("layer ", layer, ": all nodes that hold ", which,
                                " have failed or were lost; retry later", last),
                   {{"layer", absl::StrCat(layer)}});
  }
  const std::vector<uint32_t> named(
      experts.begin(), std::next(experts.begin(), std::min(experts.size(), kMostExpertsNamed)));
  return ErrorOf(v1::ERROR_REASON_EXPERTS_MISSING,
                 absl::StrCat("layer ", layer, ": no ready node holds ", which,
                              "; retry when one does (Control.GetTopology tells)", last),
                 {{"layer", absl::StrCat(layer)}, {"experts", absl::StrJoin(named, ",")}});
}

void FailUnplaced(const Batch& batch, const std::vector<plan::Unplaced>& unplaced,
                  const mesh::MeshView& view, const absl::Status& cause) {
  const std::vector<mesh::ExpertReplicas>& replicas = *view.placement().Layer(batch.layer_index());
  std::map<size_t, std::set<uint32_t>> experts_of_request;
  for (const plan::Unplaced& assignment : unplaced) {
    experts_of_request[batch.requests.RequestOfRow(assignment.row)].insert(assignment.expert);
  }
  for (const auto& [request, experts] : experts_of_request) {
    const bool held = std::none_of(experts.begin(), experts.end(),
                                   [&](uint32_t expert) { return replicas[expert].missing(); });
    batch.requests.jobs()[request]->Fail(UnplacedError(batch.layer_index(), experts, held, cause));
  }
}

// The smaller of two limits, of which 0 is none.
template <typename T>
T SmallerLimit(T a, T b) {
  return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

// Rows that `node` may answer a plan with.
uint32_t AnswerLimit(const BatchEnvironment& environment, const mesh::NodeView& node) {
  const uint64_t row_bytes = environment.d_model * sizeof(float);
  return SmallerLimit(node.max_batch_rows, static_cast<uint32_t>(std::max<uint64_t>(
                                               1, environment.max_node_batch_bytes / row_bytes)));
}

// Assignments, those to shared experts as the number of routed ones that they take as long as.
uint32_t WorkOf(const MoeLayerDescription& layer, const plan::NodePlan& plan) {
  const auto shared = static_cast<uint64_t>(
      std::count(plan.expert_ids.begin(), plan.expert_ids.end(), layer.shared_expert_id()));
  const uint64_t more = shared * layer.shared_expert().parameters() / layer.expert.parameters();
  return static_cast<uint32_t>(plan.expert_ids.size() + std::max(shared, more) - shared);
}

}  // namespace

void DispatchStage::Dispatch(const Batch& batch, plan::BatchPlan* plan,
                             const std::shared_ptr<const mesh::MeshView>& view,
                             const BatchPart* replaces, PartObserver* observer,
                             std::atomic<uint32_t>* work) {
  const BatchEnvironment& environment = *batch.environment;
  if (!plan->unplaced.empty()) {
    FailUnplaced(batch, plan->unplaced, *view,
                 replaces == nullptr ? absl::OkStatus() : replaces->why_lost);
  }
  const Order order{batch, view, replaces, observer, work};
  for (plan::NodePlan& node_plan : plan->nodes) {
    const uint32_t limit = AnswerLimit(environment, view->node(node_plan.node));
    environment.layout->Cut(std::move(node_plan), limit, environment.node_plans, &pieces_);
    for (plan::NodePlan& piece : pieces_) {
      if (batch.requests.Wants(piece.rows)) {
        SendAsItFits(order, std::move(piece));
      }
    }
    pieces_.clear();
  }
}

void DispatchStage::SendAsItFits(const Order& order, plan::NodePlan plan) {
  const BatchEnvironment& environment = *order.batch.environment;
  const Dtype activation = environment.activation_dtype;
  const Dtype narrow = order.view->node(plan.node).encoding.hidden_states;
  if (CanOverflow(activation, narrow)) {
    const std::vector<uint32_t> beyond = RowsBeyond(order.batch, plan, narrow);
    if (!beyond.empty()) {
      // Apart from the others, whose bits shall not depend on them.
      plan::NodePlan wide = plan::TakeRows(beyond, environment.node_plans, &plan);
      Send(order, std::move(wide), activation);
    }
  }
  if (!plan.rows.empty()) {
    Send(order, std::move(plan), narrow);
  }
}

std::shared_ptr<BatchPart> DispatchStage::MakePart(const Order& order, plan::NodePlan plan) {
  const BatchEnvironment& environment = *order.batch.environment;
  const mesh::NodeView& node = order.view->node(plan.node);
  std::shared_ptr<BatchPart> part = environment.parts->Take();
  part->observer = order.observer;
  part->view = order.view;
  if (const BatchPart* const replaces = order.replaces; replaces != nullptr) {
    part->lost_by = replaces->lost_by;
    part->refused_by = replaces->refused_by;
    part->attempt = replaces->attempt + 1;
    const bool doubted = !replaces->doubtful_rows.empty() && replaces->plan.node != plan.node;
    part->second_opinion = doubted || replaces->second_opinion;
  }
  if (const ForwardJob* const lead = order.batch.lead; lead != nullptr) {
    part->span = trace::NewSpanId();
    if (const trace::TraceContext& parent = lead->trace().span; parent.sampled()) {
      part->trace = {parent.trace_id, part->span, parent.flags};
    }
  }
  part->layer = order.batch.layer_index();
  part->last_attempt = part->attempt >= environment.max_attempts;
  part->plan = std::move(plan);
  part->shared_expert = order.batch.layer->description.shared_expert_id();
  part->assignments = WorkOf(order.batch.layer->description, part->plan);
  part->rows = static_cast<uint32_t>(part->plan.rows.size());
  part->answer_rows = environment.layout->AnswerRows(part->plan);
  part->d_model = environment.d_model;
  part->partials_dtype = node.encoding.partials;
  part->kept_dtype =
      IsActivationDtype(node.encoding.partials) ? node.encoding.partials : Dtype::kF32;
  part->partials = environment.buffers->Take(size_t{part->answer_rows} * environment.d_model *
                                             BytesOf(part->kept_dtype));
  parts_.push_back(part);
  return part;
}

void DispatchStage::Send(const Order& order, plan::NodePlan plan, Dtype hidden_states) {
  const mesh::NodeView& node = order.view->node(plan.node);
  const std::shared_ptr<BatchPart> part = MakePart(order, std::move(plan));
  FrameEncoder::Address address;
  address.batch_id = node.link->NextBatchId();
  address.epoch = order.view->epoch();
  address.encoding = node.encoding;
  address.encoding.hidden_states = hidden_states;
  address.frame_limit =
      SmallerLimit(order.batch.environment->max_frame_bytes, node.max_frame_bytes);
  address.span = part->span;
  std::vector<Frame>& frames = encoder_.Encode(order.batch, part->plan, address);
  order.work->fetch_add(1, std::memory_order_relaxed);
  part->sent = order.batch.environment->clock->Now();
  node.link->Send(address.batch_id, part, absl::MakeSpan(frames));
}

size_t DispatchStage::MemoryBytes() const {
  return parts_.capacity() * sizeof(parts_[0]) + pieces_.capacity() * sizeof(plan::NodePlan) +
         encoder_.MemoryBytes();
}

}  // namespace expertmesh::batch
