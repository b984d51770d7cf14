// Last stage: each request gets its rows, as it wants them.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_ANSWER_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_ANSWER_STAGE_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/wire/message_codec.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/combine_stage.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe; sums on the environment's pool.
class AnswerStage {
 public:
  // Answers the requests that are not answered yet.
  void Run(const Batch& batch, const CombineStage& combined);

  size_t MemoryBytes() const;

 private:
  // The job's rows, which are those of the batch from `first` on. OUT_OF_RANGE when a finite value
  // of theirs would be infinite as the type that it wants.
  absl::StatusOr<TensorFrame> Output(const Batch& batch, const CombineStage& combined,
                                     const ForwardJob& job, size_t first);
  // What the timing of all requests has in common.
  void WriteTiming(const Batch& batch, const CombineStage& combined);
  // Overwrites response_, but for its timing.
  void WriteResponse(const Batch& batch, const ForwardJob& job, size_t first);

  v1::ForwardResponse response_;
  // Belongs into response_, while a request does not ask for it.
  std::unique_ptr<v1::Routing> spare_routing_;
  // One for each thread that sums.
  std::vector<AlignedBuffer> sums_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_ANSWER_STAGE_H_
