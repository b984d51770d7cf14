// A partial for each token row of a node's plan.
#include <algorithm>
#include <utility>

#include "router_service/batch/partials_layout.h"

namespace expertmesh::batch {
namespace {

class RowSum final : public PartialsSum {
 public:
  void Collect(const gate::RoutedTokens&, absl::Span<const Contribution> contributions, uint32_t,
               size_t d_model) override {
    contributions_ = contributions;
    d_model_ = d_model;
  }

  void Sum(RowRange range, const float* shared, float* sum) const override {
    std::fill_n(sum, range.count * d_model_, 0.0f);
    for (const Contribution& contribution : contributions_) {
      const std::vector<uint32_t>& rows = contribution.plan->rows;
      size_t i = static_cast<size_t>(std::lower_bound(rows.begin(), rows.end(), range.first) -
                                     rows.begin());
      for (; i < rows.size() && rows[i] < range.first + range.count; ++i) {
        AddElements(contribution.partials.dtype, contribution.partials.Row(i, d_model_), d_model_,
                    sum + (rows[i] - range.first) * d_model_);
      }
    }
    if (shared != nullptr) {
      AddElements(Dtype::kF32, shared + range.first * d_model_, range.count * d_model_, sum);
    }
  }

  size_t MemoryBytes() const override { return sizeof(*this); }

 private:
  absl::Span<const Contribution> contributions_;
  size_t d_model_ = 0;
};

class RowPartials final : public PartialsLayout {
 public:
  bool per_assignment() const override { return false; }

  uint32_t AnswerRows(const plan::NodePlan& plan) const override {
    return static_cast<uint32_t>(plan.rows.size());
  }

  void Cut(plan::NodePlan plan, uint32_t limit, plan::NodePlanPool* pool,
           std::vector<plan::NodePlan>* pieces) const override {
    plan::CutToRows(std::move(plan), limit, pool, pieces);
  }

  size_t PositionOf(const plan::NodePlan&, uint32_t answered) const override { return answered; }

  std::unique_ptr<PartialsSum> NewSum() const override { return std::make_unique<RowSum>(); }
};

}  // namespace

std::unique_ptr<const PartialsLayout> MakeRowPartials() { return std::make_unique<RowPartials>(); }

}  // namespace expertmesh::batch
