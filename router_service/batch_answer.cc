// The end of a batch: sums partials and answers each request with its rows.
#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "common/base/message_bytes.h"
#include "common/wire/tensor_encode.h"
#include "router_service/batch_run.h"
#include "router_service/combine.h"

namespace expertmesh {

void BatchRun::SumParts(const std::vector<std::shared_ptr<Part>>& parts, float* sum) const {
  const size_t d_model = environment_->d_model;
  const float* const shared =
      layer_->shared_expert == nullptr ? nullptr : shared_output_.as<float>();
  if (!environment_->strict) {
    std::vector<Contribution> contributions;
    for (const std::shared_ptr<Part>& part : parts) {
      contributions.push_back({part->batch->plan.rows, part->batch->partials.as<float>()});
    }
    Combine(contributions, shared, rows_, d_model, sum);
    return;
  }
  std::vector<AssignmentContribution> contributions;
  for (const std::shared_ptr<Part>& part : parts) {
    contributions.push_back({&part->batch->plan, part->placement->Layer(layer_->description.layer),
                             part->batch->partials.as<float>()});
  }
  CombineInSlotOrder(routed_, contributions, shared, d_model, sum);
}

void BatchRun::CombineAndAnswer() {
  const absl::Time received_at = environment_->clock->Now();
  std::vector<std::shared_ptr<Part>> parts;
  {
    absl::MutexLock lock(&mutex_);
    parts.swap(contributions_);
  }
  // Placement order; several of one node by first row, then first expert. Arrival plays no part.
  const auto place = [](const std::shared_ptr<Part>& part) {
    const NodePlan& plan = part->batch->plan;
    return std::make_tuple(plan.node, plan.rows.front(), plan.expert_ids.front());
  };
  std::sort(parts.begin(), parts.end(),
            [&place](const auto& a, const auto& b) { return place(a) < place(b); });
  std::set<NodeIndex> nodes;
  uint64_t node_queue_us = 0;
  uint64_t node_compute_us = 0;
  for (const std::shared_ptr<Part>& part : parts) {
    const NodeBatch& batch = *part->batch;
    nodes.insert(batch.plan.node);
    if (batch.queue_us + batch.compute_us > node_queue_us + node_compute_us) {
      node_queue_us = batch.queue_us;
      node_compute_us = batch.compute_us;
    }
  }
  const size_t d_model = environment_->d_model;
  auto sum = std::make_shared<AlignedBuffer>(rows_ * d_model * sizeof(float));
  SumParts(parts, sum->as<float>());
  if (layer_->description.routing.pass_through == PassThrough::kComplement) {
    AddComplements(routed_, hidden_states_->data(), environment_->activation_dtype, d_model,
                   sum->as<float>());
  }
  for (size_t i = 0; i < jobs_.size(); ++i) {
    ForwardJob& job = *jobs_[i];
    const size_t first = first_row_of_job_[i];
    const size_t elements = job.rows() * d_model;
    TensorFrame output{job.output_dtype, job.rows(), d_model, {}};
    const float* rows = sum->as<float>() + first * d_model;
    if (job.output_dtype == DType::kF32) {
      output.data.Append(Slice(rows, elements * sizeof(float), sum));
    } else {
      output = EncodeRows(DType::kF32, rows, job.rows(), d_model, job.output_dtype);
      CountCopiedTensorBytes(output.data.size());
    }
    v1::ForwardResponse response;
    response.mutable_status();
    response.set_epoch(epoch_.load());
    if (job.request.return_routing()) {
      WriteRouting(first, job.rows(), response.mutable_routing());
    }
    WriteDropped(first, job.rows(), &response);
    v1::ForwardTiming& timing = *response.mutable_timing();
    timing.set_queue_us(ToMicros(closed_at_ - job.arrival));
    timing.set_route_us(ToMicros(dispatched_at_ - closed_at_));
    timing.set_experts_us(ToMicros(received_at - dispatched_at_));
    timing.set_combine_us(ToMicros(environment_->clock->Now() - received_at));
    timing.set_batch_tokens(rows_);
    timing.set_nodes(static_cast<uint32_t>(nodes.size()));
    timing.set_node_queue_us(node_queue_us);
    timing.set_node_compute_us(node_compute_us);
    job.Answer(std::move(response), std::move(output));
  }
  std::vector<NodePlan> plans;
  for (const std::shared_ptr<Part>& part : parts) {
    plans.push_back(std::move(part->batch->plan));
  }
  environment_->node_plans->Recycle(&plans);
}

void BatchRun::WriteRouting(size_t first, size_t rows, v1::Routing* routing) const {
  const RoutingOptions& options = layer_->description.routing;
  const auto begin = routed_.token_begin.begin() + static_cast<ptrdiff_t>(first);
  bool uniform = options.choice != Choice::kExpertChoice;
  for (size_t row = 0; row < rows && uniform; ++row) {
    uniform = begin[row + 1] - begin[row] == options.top_k;
  }
  if (uniform) {
    routing->set_experts_per_token(options.top_k);
  } else {
    for (size_t row = 0; row < rows; ++row) {
      routing->add_assignments_per_token(begin[row + 1] - begin[row]);
    }
  }
  routing->mutable_expert_ids()->Add(routed_.expert_ids.begin() + begin[0],
                                     routed_.expert_ids.begin() + begin[rows]);
  routing->mutable_expert_weights()->Add(routed_.weights.begin() + begin[0],
                                         routed_.weights.begin() + begin[rows]);
}

void BatchRun::WriteDropped(size_t first, size_t rows, v1::ForwardResponse* response) const {
  const auto by_token = [](const DroppedAssignment& dropped, size_t token) {
    return dropped.token < token;
  };
  auto dropped = std::lower_bound(routed_.dropped.begin(), routed_.dropped.end(), first, by_token);
  for (; dropped != routed_.dropped.end() && dropped->token < first + rows; ++dropped) {
    v1::DroppedAssignment& told = *response->add_dropped();
    told.set_token(dropped->token - static_cast<uint32_t>(first));
    told.set_expert(dropped->expert);
  }
}

}  // namespace expertmesh
