// What is noted of a batch whose requests are traced, while it is worked on: plain data, of which
// another thread makes spans later.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_RECORD_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/trace/trace_context.h"
#include "router_service/mesh/node_batch.h"
#include "router_service/mesh/node_identity.h"

namespace expertmesh::tracing {

// Where a request is in its trace. Nothing is valid while the router does not trace.
struct RequestTrace {
  // The caller's span; not valid: it has none.
  trace::TraceContext parent;
  // The router's span of the request.
  trace::TraceContext span;
  // What came with the parent, or what a new trace has. Valid for as long as the request.
  absl::string_view tracestate;
};

// Why spans are made of a request.
enum class Keep {
  kNo,
  kSampled,  // By its caller, or by the router's ratio.
  kSlow,     // Longer than KeepOptions::slow.
  kFailed,   // The answer is an error.
  kRetried,  // Some node had to be asked again for what another one lost.
  kOfBatch,  // A request of the same batch is kept for one of these reasons.
};

absl::string_view NameOf(Keep keep);

// A piece of TraceRecord::texts.
struct TextRange {
  size_t begin = 0;
  size_t size = 0;
};

struct RequestRecord {
  trace::TraceContext parent;
  trace::TraceContext span;
  // The router's span of the batch, as part of this request's trace.
  trace::SpanId dispatch = 0;
  TextRange tracestate;
  TextRange peer;
  Keep keep = Keep::kNo;
  // It came on a stream.
  bool streamed = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  uint64_t request_id = 0;
  uint64_t tokens = 0;
  absl::Time arrival;
  absl::Time answered;
};

// One call of a node.
struct CallRecord {
  trace::SpanId span = 0;
  // The node's spans in it.
  trace::SpanId node_span = 0;
  trace::SpanId queue_span = 0;
  trace::SpanId compute_span = 0;
  // Never null.
  std::shared_ptr<const mesh::NodeIdentity> node;
  absl::Time sent;
  absl::Time done;
  uint32_t rows = 0;
  uint32_t assignments = 0;
  uint32_t attempt = 1;
  bool second_opinion = false;
  // Its answer is in the sum.
  bool contributes = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  TextRange message;
  mesh::NodeReport report;
};

// Lives in a SharedPool.
struct TraceRecord {
  uint32_t layer = 0;
  uint32_t top_k = 0;
  uint64_t epoch = 0;
  // All of the batch, kept or not.
  uint64_t batch_tokens = 0;
  uint32_t batch_requests = 0;
  // False of a request that never was in a batch.
  bool dispatched = false;
  // The span of the batch; not valid when it has one request.
  trace::TraceContext batch;
  // Added to times of the router's clock gives those of the calendar. Set when spans are made.
  absl::Duration to_calendar;
  absl::Time closed;
  absl::Time planned;
  absl::Time received;
  absl::Time answered;
  // Those that spans are made of; the first has the calls in its trace.
  std::vector<RequestRecord> requests;
  std::vector<CallRecord> calls;
  std::string texts;

  TextRange AddText(absl::string_view text) {
    const TextRange range{texts.size(), text.size()};
    texts.append(text.data(), text.size());
    return range;
  }
  absl::string_view Text(const TextRange& range) const {
    return absl::string_view(texts).substr(range.begin, range.size);
  }

  // SharedPool.
  void Recycle() {
    dispatched = false;
    batch = {};
    requests.clear();
    calls.clear();
    texts.clear();
  }
  size_t MemoryBytes() const {
    return sizeof(*this) + requests.capacity() * sizeof(RequestRecord) +
           calls.capacity() * sizeof(CallRecord) + texts.capacity();
  }
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_TRACE_RECORD_H_
