// What is noted of a batch for its spans.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_TRACE_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_TRACE_STAGE_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::batch {

// The request in whose trace the calls of a batch are to be: the first that is sampled, else the
// first. Null when the router does not trace.
const ForwardJob* LeadOf(const BatchEnvironment& environment, const BatchRequests& requests);

// The router's span of that request, for what is logged of the batch; not valid where there is
// none.
trace::TraceContext TraceOf(const Batch& batch);

// Keeps memory. Not thread-safe.
class TraceStage {
 public:
  // Once all requests are answered: decides which are kept, and notes those with the calls of
  // nodes. Nothing is noted when none is.
  void Run(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts);

  size_t MemoryBytes() const { return keeps_.capacity() * sizeof(keeps_[0]); }

 private:
  // Why each request is kept. False when none is.
  bool Decide(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
              absl::Time now);

  std::vector<tracing::Keep> keeps_;
};

// Notes a request that is answered and never was in a batch, where that is to be kept. `tracer` may
// be null.
void NoteUnbatched(tracing::Tracer* tracer, const ForwardJob& job, absl::Time arrival,
                   absl::StatusCode code, absl::Time now);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_TRACE_STAGE_H_
