#include "router_service/batch/retry_stage.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/telemetry/logging.h"
#include "common/wire/error_reason.h"
#include "router_service/batch/trace_stage.h"
#include "router_service/mesh/node_link.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::batch {
namespace {

using mesh::ExpertReplicas;
using mesh::NodeIndex;

// Rows of the batch that `part` brought back with a NaN or an infinity although they, and the
// weights of their assignments, were finite.
std::vector<uint32_t> DoubtfulRows(const Batch& batch, const BatchPart& part) {
  const plan::NodePlan& plan = part.plan;
  const BatchEnvironment& environment = *batch.environment;
  std::vector<uint32_t> rows;
  for (const uint32_t answered : part.nonfinite_rows) {
    const size_t i = environment.layout->PositionOf(plan, answered);
    const uint32_t row = plan.rows[i];
    const bool finite_weights = std::all_of(plan.expert_weights.begin() + plan.row_begin[i],
                                            plan.expert_weights.begin() + plan.row_begin[i + 1],
                                            [](float weight) { return std::isfinite(weight); });
    if (finite_weights &&
        !HasNonFinite(environment.activation_dtype, batch.Row(row), environment.d_model) &&
        (rows.empty() || rows.back() != row)) {
      rows.push_back(row);
    }
  }
  return rows;
}

// Finite rows that came back as they should not: the node may be damaged, or the model's values
// really leave the range. True when another node can be asked, whose answer counts instead.
bool DoubtsAnswer(const Batch& batch, BatchPart* part) {
  if (part->nonfinite_rows.empty()) {
    return false;
  }
  part->doubtful_rows = DoubtfulRows(batch, *part);
  if (part->doubtful_rows.empty() || part->last_attempt || batch.requests.AllAnswered()) {
    return false;
  }
  // As after a refusal: what no other node holds is asked of this one again.
  part->refused_by.insert(part->plan.node);
  const std::vector<ExpertReplicas> replicas =
      ReplicasFor(*part, *batch.environment->fleet->view());
  const auto has_another = [&](uint32_t expert) {
    const std::vector<std::vector<NodeIndex>>& slices = replicas[expert].slices;
    return expert == part->shared_expert ||  // This router can compute those.
           (!slices.empty() &&
            std::none_of(slices[0].begin(), slices[0].end(),
                         [part](NodeIndex node) { return part->refused_by.contains(node); }));
  };
  if (std::none_of(part->plan.expert_ids.begin(), part->plan.expert_ids.end(), has_another)) {
    return false;
  }
  part->why_lost = absl::UnavailableError("a node answered with NaN or an infinity");
  return true;
}

// Whether the node that ended a part so is worth asking again, when no other can serve: it is
// there, and has room.
bool MayBeAskedAgain(absl::StatusCode code) {
  return code != absl::StatusCode::kUnavailable && code != absl::StatusCode::kResourceExhausted &&
         code != absl::StatusCode::kDeadlineExceeded;
}

// An error of a node as one of the mesh: its code means nothing to the caller, who has done nothing
// wrong.
absl::Status ForCaller(const BatchPart& part, const absl::Status& status) {
  const v1::ErrorReason reason =
      absl::IsResourceExhausted(status) ? v1::ERROR_REASON_QUEUE_FULL : v1::ERROR_REASON_NODES_LOST;
  return ErrorOf(reason,
                 absl::StrCat("layer ", part.layer, ": nodes failed ", part.attempt,
                              " times; retry later. Last error: ", status.message(), " (",
                              absl::StatusCodeToString(status.code()), ")"),
                 {{"layer", absl::StrCat(part.layer)}});
}

metrics::RouterMetrics::RetryReason ReasonOf(const BatchPart& part) {
  using Reason = metrics::RouterMetrics::RetryReason;
  if (part.overdue) {
    return Reason::kOverdue;
  }
  switch (part.why_lost.code()) {
    case absl::StatusCode::kUnavailable:
      return Reason::kLost;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kFull;
    default:
      return Reason::kRefused;
  }
}

void CountRetry(const Batch& batch, metrics::RouterMetrics::RetryReason reason) {
  batch.environment->metrics->CountRetry(reason,
                                         batch.environment->clock->Now() - batch.times.dispatched);
}

// What counts for `row` is finite.
bool IsFinite(absl::Span<const std::shared_ptr<BatchPart>> parts, uint32_t row,
              absl::FunctionRef<bool(uint32_t row)> is_finite_here) {
  bool covered = is_finite_here(row);
  for (const std::shared_ptr<BatchPart>& part : parts) {
    const std::vector<uint32_t>& doubtful = part->doubtful_rows;
    if (part->contributes && std::binary_search(doubtful.begin(), doubtful.end(), row)) {
      return false;
    }
    const std::vector<uint32_t>& rows = part->plan.rows;
    covered = covered || (part->contributes && std::binary_search(rows.begin(), rows.end(), row));
  }
  return covered;
}

}  // namespace

bool AsksAgain(const Batch& batch, const absl::Status& status, BatchPart* part) {
  if (status.ok()) {
    const bool doubted = DoubtsAnswer(batch, part);
    part->contributes = !doubted;
    if (doubted) {
      CountRetry(batch, metrics::RouterMetrics::RetryReason::kDoubt);
    } else if (part->attempt > 1) {
      batch.environment->metrics->CountRetryWon(part->second_opinion);
    }
    return doubted;
  }
  if ((part->last_attempt && !part->OnlyShared()) || batch.requests.AllAnswered()) {
    batch.requests.FailRows(part->plan.rows, ForCaller(*part, status));
    return false;
  }
  part->why_lost = status;
  (MayBeAskedAgain(status.code()) ? part->refused_by : part->lost_by).insert(part->plan.node);
  CountRetry(batch, ReasonOf(*part));
  return true;
}

void JudgeDoubtful(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
                   absl::FunctionRef<bool(uint32_t row)> is_finite_here) {
  metrics::RouterMetrics& metrics = *batch.environment->metrics;
  for (const std::shared_ptr<BatchPart>& part : parts) {
    if (part->doubtful_rows.empty()) {
      continue;
    }
    if (part->contributes) {
      metrics.CountNonFiniteAnswer(part->second_opinion ? "confirmed" : "unconfirmed");
    } else if (std::all_of(part->doubtful_rows.begin(), part->doubtful_rows.end(),
                           [&](uint32_t row) { return IsFinite(parts, row, is_finite_here); })) {
      metrics.CountNonFiniteAnswer("fault");
      const telemetry::LogTrace trace(TraceOf(batch));
      part->view->node(part->plan.node).link->CountFault(mesh::NodeFault::kNonFinite);
    }
  }
}

}  // namespace expertmesh::batch
