// A partial for each assignment of a node's plan (strict).
#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "router_service/batch/partials_layout.h"

namespace expertmesh::batch {
namespace {

class AssignmentSum final : public PartialsSum {
 public:
  void Collect(const gate::RoutedTokens& routed, absl::Span<const Contribution> contributions,
               uint32_t shared_expert, size_t d_model) override {
    routed_ = &routed;
    shared_expert_ = shared_expert;
    d_model_ = d_model;
    slices_ = 1;
    for (const Contribution& contribution : contributions) {
      for (const uint32_t expert : contribution.plan->expert_ids) {
        slices_ = std::max(slices_, (*contribution.replicas)[expert].slices.size());
      }
    }
    of_slot_.assign(routed.expert_ids.size() * slices_, {});
    of_shared_.assign(routed.tokens(), {});
    for (const Contribution& contribution : contributions) {
      FindSlots(contribution);
    }
  }

  void Sum(RowRange range, const float* shared, float* output) const override {
    for (size_t i = 0; i < range.count; ++i) {
      const size_t token = range.first + i;
      float* const sum = output + i * d_model_;
      std::fill_n(sum, d_model_, 0.0f);
      const size_t end = routed_->token_begin[token + 1] * slices_;
      for (size_t at = routed_->token_begin[token] * slices_; at < end; ++at) {
        if (of_slot_[at].data != nullptr) {
          AddElements(of_slot_[at].dtype, of_slot_[at].data, d_model_, sum);
        }
      }
      if (of_shared_[token].data != nullptr) {
        AddElements(of_shared_[token].dtype, of_shared_[token].data, d_model_, sum);
      } else if (shared != nullptr) {
        AddElements(Dtype::kF32, shared + token * d_model_, d_model_, sum);
      }
    }
  }

  size_t MemoryBytes() const override {
    return sizeof(*this) + (of_slot_.capacity() + of_shared_.capacity()) * sizeof(Partials);
  }

 private:
  void FindSlots(const Contribution& contribution) {
    const plan::NodePlan& plan = *contribution.plan;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      // A plan has a row's assignments in slot order, so each is found behind the one before.
      uint32_t slot = routed_->token_begin[plan.rows[i]];
      for (uint32_t a = plan.row_begin[i]; a < plan.row_begin[i + 1]; ++a) {
        const uint32_t expert = plan.expert_ids[a];
        const Partials partials = {contribution.partials.Row(a, d_model_),
                                   contribution.partials.dtype};
        if (expert == shared_expert_) {
          of_shared_[plan.rows[i]] = partials;
          continue;
        }
        while (routed_->expert_ids[slot] != expert) {
          ++slot;
          EXPERTMESH_CHECK(slot < routed_->token_begin[plan.rows[i] + 1]);
        }
        const size_t slice = (*contribution.replicas)[expert].SliceOn(plan.node).value_or(0);
        of_slot_[slot * slices_ + slice] = partials;
      }
    }
  }

  const gate::RoutedTokens* routed_ = nullptr;
  uint32_t shared_expert_ = 0;
  size_t d_model_ = 0;
  // Most that an expert lies in.
  size_t slices_ = 1;
  // [assignments of the batch, slices_], without data where there are none.
  std::vector<Partials> of_slot_;
  // [rows] Without data where the router has them.
  std::vector<Partials> of_shared_;
};

class AssignmentPartials final : public PartialsLayout {
 public:
  bool per_assignment() const override { return true; }

  uint32_t AnswerRows(const plan::NodePlan& plan) const override {
    return static_cast<uint32_t>(plan.expert_ids.size());
  }

  void Cut(plan::NodePlan plan, uint32_t limit, plan::NodePlanPool* pool,
           std::vector<plan::NodePlan>* pieces) const override {
    plan::CutToAssignments(std::move(plan), limit, pool, pieces);
  }

  size_t PositionOf(const plan::NodePlan& plan, uint32_t answered) const override {
    const auto after = std::upper_bound(plan.row_begin.begin(), plan.row_begin.end(), answered);
    return static_cast<size_t>(after - plan.row_begin.begin()) - 1;
  }

  std::unique_ptr<PartialsSum> NewSum() const override { return std::make_unique<AssignmentSum>(); }
};

}  // namespace

std::unique_ptr<const PartialsLayout> MakeAssignmentPartials() {
  return std::make_unique<AssignmentPartials>();
}

}  // namespace expertmesh::batch
