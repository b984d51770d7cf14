#include "router_service/batch/combine_stage.h"

#include <algorithm>
#include <tuple>

#include "absl/types/span.h"
#include "common/gate/complement.h"

namespace expertmesh::batch {

void CombineStage::Collect(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
                           const float* shared) {
  batch_ = &batch;
  shared_ = shared;
  for (const std::shared_ptr<BatchPart>& part : parts) {
    if (part->contributes) {
      contributing_.push_back(part.get());
    }
  }
  // Placement order; several of one node by first row, then first expert. Arrival plays no part.
  const auto place = [](const BatchPart* part) {
    const plan::NodePlan& plan = part->plan;
    return std::make_tuple(plan.node, plan.rows.front(), plan.expert_ids.front());
  };
  std::sort(contributing_.begin(), contributing_.end(),
            [&place](const auto* a, const auto* b) { return place(a) < place(b); });
  for (const BatchPart* part : contributing_) {
    contributions_.push_back({&part->plan,
                              part->view->placement().Layer(batch.layer_index()),
                              {part->partials->data(), part->kept_dtype}});
  }
  if (sum_ == nullptr) {
    sum_ = batch.environment->layout->NewSum();
  }
  sum_->Collect(batch.routed, contributions_, batch.layer->description.shared_expert_id(),
                batch.environment->d_model);
}

void CombineStage::Sum(RowRange range, float* output) const {
  sum_->Sum(range, shared_, output);
  if (batch_->layer->description.routing.pass_through == PassThrough::kComplement) {
    const BatchEnvironment& environment = *batch_->environment;
    gate::AddComplements(batch_->routed, batch_->hidden_states->data(),
                         environment.activation_dtype, environment.d_model, range.first,
                         {output, range.count * environment.d_model});
  }
}

void CombineStage::Clear() {
  batch_ = nullptr;
  shared_ = nullptr;
  contributing_.clear();
  contributions_.clear();
}

size_t CombineStage::MemoryBytes() const {
  return contributing_.capacity() * sizeof(BatchPart*) +
         contributions_.capacity() * sizeof(Contribution) +
         (sum_ == nullptr ? 0 : sum_->MemoryBytes());
}

}  // namespace expertmesh::batch
