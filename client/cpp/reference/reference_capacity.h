// The steps of reference routing in which the tokens of a group compete for experts.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CAPACITY_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CAPACITY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/routing_options.h"

namespace expertmesh::reference {

// One token on its way through the steps.
struct TokenState {
  // After temperature and rounding.
  std::vector<float> logits;
  // The scores of all experts with ScoreScope::kAll; otherwise the logits.
  std::vector<float> scores;
  // What experts are chosen by: scores, bias, group limit.
  std::vector<float> choices;
  // Chosen so far, best first.
  std::vector<uint32_t> ids;
  std::vector<float> weights;
  // The largest of the weights before anything changed them.
  float best_weight = 0.0f;
  // Experts that were wanted and had no room.
  std::vector<uint32_t> dropped;
  float margin = 0.0f;
};

// Assignments that an expert accepts from a group of `tokens` tokens. The factor is the decimal
// number that was written: 1.1 times 10 is 11.
size_t CapacityOf(const RoutingOptions& routing, size_t tokens);

// Choice::kExpertChoice: fills in ids and weights of all tokens. Returns the smallest margin by
// which an expert preferred a token.
float LetExpertsChoose(const RoutingOptions& routing, absl::Span<TokenState> tokens);

// Takes away what is beyond capacity by routing.capacity.drop. Returns the smallest margin of a
// decision between tokens.
float DropBeyondCapacity(const RoutingOptions& routing, absl::Span<TokenState> tokens);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_CAPACITY_H_
