// Beside the nodes' work: the shared experts, which every token has.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "common/shared_experts/shared_experts.h"
#include "router_service/batch/batch.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe.
class SharedStage {
 public:
  // Computes on this router's backend, from what Gather made. The layer has shared experts.
  absl::Status Run(const Batch& batch);

  // [rows, d_model] float32; null while there is none.
  const float* output() const { return output_ == nullptr ? nullptr : output_->as<float>(); }

  // Drops the output; keeps memory.
  void Clear() { output_.reset(); }
  size_t MemoryBytes() const { return scratch_.MemoryBytes(); }

 private:
  std::shared_ptr<AlignedBuffer> output_;
  shared_experts::SharedExpertsScratch scratch_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_
