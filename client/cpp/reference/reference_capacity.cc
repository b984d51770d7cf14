#include "client/cpp/reference/reference_capacity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "client/cpp/reference/reference_choice.h"
#include "client/cpp/reference/reference_routing.h"

namespace expertmesh::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A token's claim to an expert.
struct Claim {
  size_t token = 0;
  size_t slot = 0;
};

// First choices before second ones; within, in the order of `tokens`.
std::vector<Claim> SlotBySlot(absl::Span<const TokenState> states,
                              const std::vector<size_t>& tokens) {
  size_t slots = 0;
  for (const TokenState& state : states) {
    slots = std::max(slots, state.ids.size());
  }
  std::vector<Claim> claims;
  for (size_t slot = 0; slot < slots; ++slot) {
    for (const size_t token : tokens) {
      if (slot < states[token].ids.size()) {
        claims.push_back({token, slot});
      }
    }
  }
  return claims;
}

std::vector<size_t> InOrder(size_t count) {
  std::vector<size_t> indices(count);
  for (size_t i = 0; i < count; ++i) {
    indices[i] = i;
  }
  return indices;
}

// Sorts by falling value, equals in the order they have. Returns the smallest difference.
template <typename T, typename Value>
float SortByFalling(std::vector<T>* items, const Value& value) {
  std::stable_sort(items->begin(), items->end(),
                   [&](const T& left, const T& right) { return value(left) > value(right); });
  float margin = kInfinity;
  for (size_t i = 1; i < items->size(); ++i) {
    margin = std::min(margin, value((*items)[i - 1]) - value((*items)[i]));
  }
  return margin;
}

// Grants claims in their order; the rest is dropped. Returns whether any was.
bool Grant(const std::vector<Claim>& claims, size_t capacity, size_t num_experts,
           absl::Span<TokenState> states) {
  std::vector<size_t> room(num_experts, capacity);
  std::vector<std::vector<bool>> granted(states.size());
  for (size_t token = 0; token < states.size(); ++token) {
    granted[token].assign(states[token].ids.size(), false);
  }
  for (const Claim& claim : claims) {
    size_t& left = room[states[claim.token].ids[claim.slot]];
    if (left > 0) {
      --left;
      granted[claim.token][claim.slot] = true;
    }
  }
  bool any_dropped = false;
  for (size_t token = 0; token < states.size(); ++token) {
    TokenState& state = states[token];
    std::vector<uint32_t> ids;
    std::vector<float> weights;
    for (size_t slot = 0; slot < state.ids.size(); ++slot) {
      if (granted[token][slot]) {
        ids.push_back(state.ids[slot]);
        weights.push_back(state.weights[slot]);
      } else {
        state.dropped.push_back(state.ids[slot]);
        any_dropped = true;
      }
    }
    state.ids = std::move(ids);
    state.weights = std::move(weights);
  }
  return any_dropped;
}

// Grants claims in their order; who finds no room takes the best expert that has some and that he
// has not got yet, with its score as weight. Returns the smallest margin of such a choice.
float GrantNextBest(const std::vector<Claim>& claims, size_t capacity, size_t num_experts,
                    absl::Span<TokenState> states) {
  std::vector<size_t> room(num_experts, capacity);
  std::vector<TokenExperts> got(states.size());
  float margin = kInfinity;
  for (const Claim& claim : claims) {
    const TokenState& state = states[claim.token];
    TokenExperts& token = got[claim.token];
    const auto open = [&](uint32_t expert) {
      return room[expert] > 0 && std::find(token.expert_ids.begin(), token.expert_ids.end(),
                                           expert) == token.expert_ids.end();
    };
    uint32_t expert = state.ids[claim.slot];
    float weight = state.weights[claim.slot];
    if (!open(expert)) {
      std::vector<float> left = state.choices;
      for (uint32_t other = 0; other < num_experts; ++other) {
        left[other] = open(other) ? left[other] : -kInfinity;
      }
      const Largest best = SelectLargest(left, 1);
      expert = best.ids[0];
      if (left[expert] == -kInfinity) {
        continue;
      }
      weight = state.scores[expert];
      margin = std::min(margin, best.margin);
    }
    --room[expert];
    token.expert_ids.push_back(expert);
    token.weights.push_back(weight);
  }
  for (size_t i = 0; i < states.size(); ++i) {
    for (const uint32_t wanted : states[i].ids) {
      const std::vector<uint32_t>& ids = got[i].expert_ids;
      if (std::find(ids.begin(), ids.end(), wanted) == ids.end()) {
        states[i].dropped.push_back(wanted);
      }
    }
    states[i].ids = std::move(got[i].expert_ids);
    states[i].weights = std::move(got[i].weights);
  }
  return margin;
}

// The shortest decimal that reads as `value`.
double AsWritten(float value) {
  char text[32];
  for (int digits = 1; digits <= 9; ++digits) {
    std::snprintf(text, sizeof(text), "%.*g", digits, static_cast<double>(value));
    if (std::strtof(text, nullptr) == value) {
      break;
    }
  }
  return std::strtod(text, nullptr);
}

}  // namespace

size_t CapacityOf(const RoutingOptions& routing, size_t tokens) {
  const CapacityOptions& capacity = routing.capacity;
  if (capacity.tokens > 0) {
    return capacity.tokens;
  }
  if (capacity.factor == 0.0f) {
    return tokens;
  }
  const double slots = routing.choice == Choice::kExpertChoice ? 1.0 : routing.top_k;
  const double exact = AsWritten(capacity.factor) * slots * static_cast<double>(tokens) /
                       static_cast<double>(routing.num_experts);
  // A whole number is not exceeded by what double precision adds to it.
  const double wanted = std::ceil(exact * (1.0 - 1e-12));
  return std::max(static_cast<size_t>(wanted), static_cast<size_t>(capacity.minimum));
}

float LetExpertsChoose(const RoutingOptions& routing, absl::Span<TokenState> tokens) {
  const size_t capacity = CapacityOf(routing, tokens.size());
  float margin = kInfinity;
  for (uint32_t expert = 0; expert < routing.num_experts; ++expert) {
    std::vector<float> column;
    for (const TokenState& token : tokens) {
      column.push_back(token.scores[expert]);
    }
    const Largest taken = SelectLargest(column, capacity);
    margin = std::min(margin, taken.margin);
    for (const uint32_t token : taken.ids) {
      tokens[token].ids.push_back(expert);
      tokens[token].weights.push_back(column[token]);
    }
  }
  return margin;
}

float DropBeyondCapacity(const RoutingOptions& routing, absl::Span<TokenState> tokens) {
  const size_t capacity = CapacityOf(routing, tokens.size());
  std::vector<size_t> order = InOrder(tokens.size());
  float margin = kInfinity;
  if (routing.capacity.drop == DropPolicy::kBatchPrioritised) {
    margin = SortByFalling(&order, [&](size_t token) { return tokens[token].best_weight; });
  }
  std::vector<Claim> claims = SlotBySlot(tokens, order);
  if (routing.capacity.drop == DropPolicy::kScore) {
    margin = SortByFalling(
        &claims, [&](const Claim& claim) { return tokens[claim.token].weights[claim.slot]; });
  }
  if (routing.capacity.drop == DropPolicy::kNextBest) {
    return GrantNextBest(claims, capacity, routing.num_experts, tokens);
  }
  return Grant(claims, capacity, routing.num_experts, tokens) ? margin : kInfinity;
}

}  // namespace expertmesh::reference
