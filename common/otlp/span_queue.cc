#include "common/otlp/span_queue.h"

#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/trace/span_writer.h"

namespace expertmesh::otlp {
namespace {

// What a piece takes beside its bytes: its place, of which a growing queue has twice as many, and
// what the allocator adds.
constexpr uint64_t kPieceBytes = 2 * sizeof(SpanPiece) + 32;
// What a request has for each resource beside its bytes and those of the spans.
constexpr uint64_t kResourceBytes = 64;

}  // namespace

uint64_t SpanPiece::HeldBytes() const { return kPieceBytes + bytes.size(); }

uint64_t SpanPiece::RequestBytes() const {
  return kResourceBytes + resource->bytes.size() + bytes.size();
}

uint64_t MostPieceBytes(const trace::Resource& resource, const OtlpOptions& options) {
  const uint64_t taken = kResourceBytes + resource.bytes.size();
  return taken < options.max_batch_bytes ? options.max_batch_bytes - taken : 0;
}

SpanQueue::SpanQueue(const OtlpOptions& options, OtlpCounts* counts)
    : most_spans_(options.max_queue_spans),
      most_bytes_(options.max_queue_bytes),
      batch_spans_(options.max_batch_spans),
      batch_bytes_(options.max_batch_bytes),
      counts_(counts) {}

bool SpanQueue::Push(SpanPiece&& piece) {
  if (spans_ + piece.count > most_spans_ || bytes_ + piece.HeldBytes() > most_bytes_) {
    return false;
  }
  spans_ += piece.count;
  bytes_ += piece.HeldBytes();
  pieces_.push_back(std::move(piece));
  Publish();
  return true;
}

bool SpanQueue::HasFullBatch() const { return spans_ >= batch_spans_ || bytes_ >= batch_bytes_; }

absl::Time SpanQueue::due() const {
  return pieces_.empty() ? absl::InfiniteFuture() : pieces_.front().due;
}

std::vector<SpanPiece> SpanQueue::TakeBatch() {
  std::vector<SpanPiece> batch;
  uint64_t spans = 0;
  uint64_t bytes = 0;
  const trace::Resource* last = nullptr;
  while (!pieces_.empty()) {
    const SpanPiece& next = pieces_.front();
    spans += next.count;
    // A resource that comes again later is counted again: never too little.
    bytes += next.resource.get() == last ? next.bytes.size() : next.RequestBytes();
    last = next.resource.get();
    if (!batch.empty() && (spans > batch_spans_ || bytes > batch_bytes_)) {
      break;
    }
    spans_ -= next.count;
    bytes_ -= next.HeldBytes();
    batch.push_back(pieces_.Pop());
  }
  Publish();
  return batch;
}

void SpanQueue::Publish() {
  counts_->queue_spans.store(spans_, std::memory_order_relaxed);
  counts_->queue_bytes.store(bytes_, std::memory_order_relaxed);
}

Frame RequestOf(const std::vector<SpanPiece>& pieces) {
  struct Part {
    const trace::Resource* resource;
    std::string spans;
  };
  std::vector<Part> parts;
  absl::flat_hash_map<const trace::Resource*, size_t> places;
  size_t bytes = 0;
  for (const SpanPiece& piece : pieces) {
    const auto [place, added] = places.try_emplace(piece.resource.get(), parts.size());
    if (added) {
      parts.push_back({piece.resource.get(), ""});
      bytes += piece.RequestBytes() - piece.bytes.size();
    }
    parts[place->second].spans += piece.bytes;
    bytes += piece.bytes.size();
  }
  std::string request;
  request.reserve(bytes);
  for (const Part& part : parts) {
    trace::AppendResourceSpans(part.resource->bytes, part.spans, &request);
  }
  return Frame(std::move(request));
}

}  // namespace expertmesh::otlp
