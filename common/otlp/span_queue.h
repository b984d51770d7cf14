// Inside of otlp_exporter: spans that wait, bounded in number and bytes, and the request that some
// of them become.
#ifndef EXPERTMESH_COMMON_OTLP_SPAN_QUEUE_H_
#define EXPERTMESH_COMMON_OTLP_SPAN_QUEUE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ring_queue.h"
#include "common/otlp/otlp_counts.h"
#include "common/otlp/otlp_options.h"
#include "common/trace/resource.h"
#include "common/wire/frame.h"

namespace expertmesh::otlp {

// Spans of one process; small enough for a request of their own.
struct SpanPiece {
  trace::ResourcePtr resource;
  std::string bytes;
  uint32_t count = 0;
  // When it is to be sent at the latest.
  absl::Time due;

  // In memory.
  uint64_t HeldBytes() const;
  // In a request, with the resource.
  uint64_t RequestBytes() const;
};

// The most that the spans of a piece may have, so that it fits into a request.
uint64_t MostPieceBytes(const trace::Resource& resource, const OtlpOptions& options);

// Not thread-safe; its lengths in OtlpCounts may be read at any time.
class SpanQueue {
 public:
  // `counts` must outlive it.
  SpanQueue(const OtlpOptions& options, OtlpCounts* counts);

  // False, and nothing is changed, when there is no room.
  bool Push(SpanPiece&& piece);
  bool empty() const { return pieces_.empty(); }
  // There are spans for a whole request.
  bool HasFullBatch() const;
  // When the oldest piece is to be sent at the latest; InfiniteFuture when there is none.
  absl::Time due() const;
  // The oldest pieces, as many as go into a request; at least one unless it is empty.
  std::vector<SpanPiece> TakeBatch();

 private:
  void Publish();

  const uint64_t most_spans_;
  const uint64_t most_bytes_;
  const uint64_t batch_spans_;
  const uint64_t batch_bytes_;
  OtlpCounts* const counts_;
  RingQueue<SpanPiece> pieces_;
  uint64_t spans_ = 0;
  uint64_t bytes_ = 0;  // Held.
};

// One ExportTraceServiceRequest, in which each resource stands once.
Frame RequestOf(const std::vector<SpanPiece>& pieces);

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_SPAN_QUEUE_H_
