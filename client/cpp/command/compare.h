// The mesh's answers against the reference.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/command/options.h"
#include "client/cpp/expertmesh/client.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh {

// Some tokens of one layer, and what the mesh made of them.
struct Sample {
  size_t tokens = 0;
  std::vector<float> hidden;         // [tokens, d_model]
  std::vector<float> output;         // [tokens, d_model]
  std::vector<uint32_t> expert_ids;  // [tokens, top_k]

  // Adds the first tokens of a request, at most `limit`. FAILED_PRECONDITION when the answer has
  // not the shape of the question.
  absl::Status Add(const client::Matrix& request, const client::ForwardResult& answer,
                   size_t limit);
};

struct Agreement {
  // Largest norm of a token's difference over the norm of the reference; not a number counts as
  // infinite.
  double worst_error = 0;
  // Tokens with the reference's experts.
  size_t same_experts = 0;
  // Tokens with other experts that are as good a choice (the last one chosen and the first one left
  // out score the same). Their error says nothing and is left out.
  size_t ties = 0;
  // Tokens with other experts and no such excuse.
  size_t other_experts = 0;

  bool Within(double tolerance) const { return other_experts == 0 && worst_error <= tolerance; }
};

// `sample` must have the shapes of `reference`.
Agreement Compare(const Sample& sample, const ReferenceOutput& reference);

// The same with a reference computed here.
absl::StatusOr<Agreement> CompareWithReference(const MoeCheckpoint& checkpoint, uint32_t layer,
                                               const Sample& sample);

// --tolerance, and its value: by default what the type of activations in the mesh allows.
OptionSpec ToleranceOption();
double Tolerance(const Options& options, client::DType activation_dtype);

}  // namespace expertmesh

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_COMPARE_H_
