#include "common/gate/capacity.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "common/base/check.h"

namespace expertmesh::gate {
namespace {

// The double nearest to the shortest decimal that reads as `value`.
double DecimalOf(float value) {
  char text[32];
  const std::to_chars_result written = std::to_chars(text, text + sizeof(text), value);
  double decimal = 0.0;
  std::from_chars(text, written.ptr, decimal);
  return decimal;
}

// NaN first, as everywhere in routing.
bool Larger(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// One group while its experts fill up.
class Filling {
 public:
  Filling(const RoutingOptions& options, const GroupSlots& group, CapacityScratch* scratch)
      : group_(group),
        k_(options.top_k),
        experts_(options.num_experts),
        tokens_(group.expert_ids.size() / options.top_k),
        capacity_(CapacityOf(options, tokens_)),
        scratch_(scratch) {
    scratch->load.assign(experts_, 0);
    scratch->wanted.assign(group.expert_ids.begin(), group.expert_ids.end());
  }

  // First choices of all tokens in `order` (all tokens by position when empty), then second ones.
  template <typename Place>
  void BySlot(absl::Span<const uint32_t> order, const Place& place) {
    for (size_t slot = 0; slot < k_; ++slot) {
      for (size_t i = 0; i < tokens_; ++i) {
        place((order.empty() ? i : order[i]) * k_ + slot);
      }
    }
  }

  void KeepOrDrop(size_t at) {
    uint32_t& expert = group_.expert_ids[at];
    if (expert != kNoExpert && !Enter(expert)) {
      expert = kNoExpert;
    }
  }

  void KeepOrTakeNextBest(size_t at) {
    uint32_t& expert = group_.expert_ids[at];
    if (scratch_->wanted[at] == kNoExpert) {
      return;
    }
    const size_t token = at / k_;
    if (!HasBefore(token, at, expert) && Enter(expert)) {
      return;
    }
    expert = NextBest(token, at);
    if (expert != kNoExpert) {
      Enter(expert);
      group_.weights[at] = group_.scores[token * experts_ + expert];
    }
  }

  void ReportDropped(std::vector<DroppedAssignment>* dropped, double* mass) const {
    for (size_t token = 0; token < tokens_; ++token) {
      const auto got = group_.expert_ids.subspan(token * k_, k_);
      for (size_t slot = 0; slot < k_; ++slot) {
        const uint32_t wanted = scratch_->wanted[token * k_ + slot];
        if (wanted != kNoExpert && std::find(got.begin(), got.end(), wanted) == got.end()) {
          dropped->push_back({static_cast<uint32_t>(group_.first_token + token), wanted});
          // A slot that was emptied keeps its weight; one that was filled again has another.
          const float score = group_.scores.empty() ? group_.weights[token * k_ + slot]
                                                    : group_.scores[token * experts_ + wanted];
          *mass += std::isfinite(score) ? score : 0.0;
        }
      }
    }
  }

  size_t tokens() const { return tokens_; }

 private:
  bool Enter(uint32_t expert) {
    if (scratch_->load[expert] >= capacity_) {
      return false;
    }
    ++scratch_->load[expert];
    return true;
  }

  // An earlier slot of the token has got `expert`.
  bool HasBefore(size_t token, size_t at, uint32_t expert) const {
    const auto begin = group_.expert_ids.begin() + static_cast<ptrdiff_t>(token * k_);
    const auto end = group_.expert_ids.begin() + static_cast<ptrdiff_t>(at);
    return std::find(begin, end, expert) != end;
  }

  uint32_t NextBest(size_t token, size_t at) const {
    const auto choices = group_.choices.subspan(token * experts_, experts_);
    uint32_t best = kNoExpert;
    for (uint32_t expert = 0; expert < experts_; ++expert) {
      const bool open = scratch_->load[expert] < capacity_ &&
                        choices[expert] != -std::numeric_limits<float>::infinity();
      if (open && (best == kNoExpert || Larger(choices[expert], choices[best])) &&
          !HasBefore(token, at, expert)) {
        best = expert;
      }
    }
    return best;
  }

  const GroupSlots& group_;
  const size_t k_;
  const size_t experts_;
  const size_t tokens_;
  const uint32_t capacity_;
  CapacityScratch* const scratch_;
};

// 0 to count - 1, the largest `keys` first, the lower index first among equals.
absl::Span<const uint32_t> Ranked(absl::Span<const float> keys, std::vector<uint32_t>* order) {
  order->resize(keys.size());
  std::iota(order->begin(), order->end(), 0);
  std::sort(order->begin(), order->end(), [keys](uint32_t a, uint32_t b) {
    return Larger(keys[a], keys[b]) || (!Larger(keys[b], keys[a]) && a < b);
  });
  return *order;
}

}  // namespace

uint32_t CapacityOf(const RoutingOptions& options, size_t tokens) {
  const CapacityOptions& capacity = options.capacity;
  if (capacity.unlimited()) {
    return static_cast<uint32_t>(tokens);
  }
  double room = capacity.tokens;
  if (capacity.tokens == 0) {
    const double k = options.choice == Choice::kExpertChoice ? 1.0 : options.top_k;
    const double exact = DecimalOf(capacity.factor) * k * static_cast<double>(tokens) /
                         static_cast<double>(options.num_experts);
    // Products of decimals come out a hair beside the whole number that they are.
    const double nearest = std::round(exact);
    room = std::fabs(exact - nearest) <= 1e-12 * exact ? nearest : std::ceil(exact);
    room = std::max(room, static_cast<double>(capacity.minimum));
  }
  return static_cast<uint32_t>(std::min(room, static_cast<double>(tokens)));
}

void LimitCapacity(const RoutingOptions& options, const GroupSlots& group, CapacityScratch* scratch,
                   std::vector<DroppedAssignment>* dropped, double* mass) {
  Filling filling(options, group, scratch);
  const auto keep_or_drop = [&filling](size_t at) { filling.KeepOrDrop(at); };
  switch (options.capacity.drop) {
    case DropPolicy::kPosition:
      filling.BySlot({}, keep_or_drop);
      break;
    case DropPolicy::kBatchPrioritised:
      EXPERTMESH_CHECK(group.best_scores.size() == filling.tokens());
      filling.BySlot(Ranked(group.best_scores, &scratch->order), keep_or_drop);
      break;
    case DropPolicy::kScore:
      for (const uint32_t at : Ranked(group.weights, &scratch->order)) {
        filling.KeepOrDrop(at);
      }
      break;
    case DropPolicy::kNextBest:
      EXPERTMESH_CHECK(group.choices.size() == filling.tokens() * options.num_experts &&
                       group.scores.size() == group.choices.size());
      filling.BySlot({}, [&filling](size_t at) { filling.KeepOrTakeNextBest(at); });
      break;
  }
  double unused = 0;
  filling.ReportDropped(dropped, mass == nullptr ? &unused : mass);
}

}  // namespace expertmesh::gate
