// A check of the router itself, on a sample of live batches: every assignment is in the sum exactly
// once, whichever replicas served it.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_SUM_CHECK_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_SUM_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "router_service/batch/batch_part.h"
#include "router_service/mesh/placement.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe.
class SumCheck {
 public:
  // One in so many batches of a layer is checked.
  static constexpr uint32_t kOneIn = 64;

  // `replicas`: those that the batch was planned on; `parts`: what is summed of it. Rows that
  // `wants` says no to, since no request waits for them, may have anything.
  //   INTERNAL  names a token and an expert, and what is wrong.
  absl::Status Run(const gate::RoutedTokens& routed,
                   const std::vector<mesh::ExpertReplicas>& replicas,
                   absl::Span<BatchPart* const> parts, absl::FunctionRef<bool(uint32_t row)> wants);

  size_t MemoryBytes() const {
    return (wanted_.capacity() + found_.capacity()) * sizeof(Assignment);
  }

 private:
  struct Assignment {
    uint32_t row = 0;
    uint32_t expert = 0;
    float weight = 0;
  };

  static bool Before(const Assignment& a, const Assignment& b);
  absl::Status Compare(absl::FunctionRef<bool(uint32_t row)> wants);

  std::vector<Assignment> wanted_;
  std::vector<Assignment> found_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_SUM_CHECK_H_
