// The mesh's answers against the reference.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/command/options.h"
#include "client/cpp/expertmesh/client.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh::command {

// Some tokens of one layer, and what the mesh made of them.
struct Sample {
  size_t tokens = 0;
  std::vector<float> hidden;  // [tokens, d_model]
  std::vector<float> output;  // [tokens, d_model]
  // [tokens], as the router reported it; empty when an answer brought no routing.
  std::vector<reference::TokenExperts> chosen;
  // [tokens], or empty when the requests had none.
  std::vector<uint32_t> token_ids;
  // Tokens of each request, each of which was one group.
  std::vector<uint32_t> group_sizes;
  // Every token of every request is here. Otherwise routing that looks at groups cannot be
  // repeated.
  bool whole = true;

  // Adds the first tokens of a request, at most `limit`. FAILED_PRECONDITION when the answer has
  // not the shape of the question.
  absl::Status Add(const client::Matrix& request, const client::ForwardResult& answer,
                   size_t limit);

  // Adds all of another sample of the same layer.
  void Append(const Sample& other);
};

struct Agreement {
  // Largest norm of a token's difference over the norm of the reference; not a number counts as
  // infinite.
  double worst_error = 0;
  // Tokens with the reference's experts.
  size_t same_experts = 0;
  // Tokens with other experts or weights that are as good a choice: the last one chosen and the
  // first one left out score the same, or logits that differ in their last bits lead there. Their
  // error says nothing and is left out.
  size_t ties = 0;
  // Tokens with other experts and no such excuse.
  size_t other_experts = 0;
  // Why routing was not checked: experts and weights were then taken as the router reported them,
  // and only what the experts make of the tokens was compared. Empty: it was checked.
  std::string routing_taken_because;

  bool Within(double tolerance) const { return other_experts == 0 && worst_error <= tolerance; }
};

// `sample` against what the reference says of its tokens: `expected` [tokens, d_model], and how it
// routes each of them.
Agreement Compare(const Sample& sample, absl::Span<const reference::ReferenceRouting> routed,
                  absl::Span<const float> expected);

// The routing options in force for a layer of the mesh: the checkpoint's own, with what the router
// says it changed. INTERNAL when the router's description cannot be read.
absl::StatusOr<RoutingOptions> RoutingInForce(const checkpoint::MoeCheckpoint& checkpoint,
                                              const client::LayerInfo& layer);

// The same with a reference computed here, which rounds where a mesh with activations of
// `activation_dtype` (DescribeModelResponse) does.
//   FAILED_PRECONDITION  routing cannot be repeated here (it is random, or the sample is not whole)
//                        and the answers do not bring it.
absl::StatusOr<Agreement> CompareWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                               const client::LayerInfo& layer,
                                               client::Dtype activation_dtype,
                                               const Sample& sample);

// --tolerance, and its value: by default what the type of activations in the mesh allows.
OptionSpec ToleranceOption();
double Tolerance(const Options& options, client::Dtype activation_dtype);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_
