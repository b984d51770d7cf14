#include "router_service/tracing/trace_store.h"

#include <algorithm>

#include "common/trace/span_writer.h"

namespace expertmesh::tracing {
namespace {

// What the tables take for each trace.
constexpr size_t kTableBytes = 96;

size_t BytesOf(const TraceRecord& record) {
  return record.MemoryBytes() + (record.requests.size() + 1) * kTableBytes;
}

// Ids of the traces that `record` has spans of; one may be there several times.
absl::InlinedVector<trace::TraceId, 2> TracesOf(const TraceRecord& record) {
  absl::InlinedVector<trace::TraceId, 2> ids;
  for (const RequestRecord& request : record.requests) {
    ids.push_back(request.span.trace_id);
  }
  if (record.batch.valid()) {
    ids.push_back(record.batch.trace_id);
  }
  return ids;
}

absl::Duration LongestOf(const TraceRecord& record) {
  absl::Duration longest;
  for (const RequestRecord& request : record.requests) {
    longest = std::max(longest, request.answered - request.arrival);
  }
  return longest;
}

}  // namespace

void TraceStore::Add(const TraceRecord& record) {
  const Entry entry = std::make_shared<const TraceRecord>(record);
  absl::MutexLock lock(&mutex_);
  newest_.push_back(entry);
  newest_bytes_ += BytesOf(*entry);
  for (const trace::TraceId& id : TracesOf(*entry)) {
    auto& entries = by_id_[id];
    if (entries.empty() || entries.back() != entry) {
      entries.push_back(entry);
    }
  }
  while (newest_bytes_ > max_bytes_ && newest_.size() > 1) {
    DropOldest();
  }
}

void TraceStore::DropOldest() {
  const Entry oldest = std::move(newest_.front());
  newest_.pop_front();
  newest_bytes_ -= BytesOf(*oldest);
  const absl::Duration longest = LongestOf(*oldest);
  if (slowest_.size() == kSlowest && longest <= slowest_.begin()->first) {
    Forget(oldest);
    return;
  }
  slowest_.emplace(longest, oldest);
  slowest_bytes_ += BytesOf(*oldest);
  while (slowest_.size() > kSlowest || (slowest_bytes_ > max_bytes_ && slowest_.size() > 1)) {
    const auto quickest = slowest_.begin();
    slowest_bytes_ -= BytesOf(*quickest->second);
    Forget(quickest->second);
    slowest_.erase(quickest);
  }
}

void TraceStore::Forget(const Entry& entry) {
  for (const trace::TraceId& id : TracesOf(*entry)) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) {
      continue;  // Two of the batch's requests are of one trace.
    }
    auto& entries = found->second;
    entries.erase(std::remove(entries.begin(), entries.end(), entry), entries.end());
    if (entries.empty()) {
      by_id_.erase(found);
    }
  }
}

std::optional<std::string> TraceStore::Find(const trace::TraceId& id) const {
  absl::InlinedVector<Entry, 1> entries;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) {
      return std::nullopt;
    }
    entries = found->second;
  }
  std::string bytes;
  for (const Entry& entry : entries) {
    for (const TraceSpans& spans : SpansOfBatch(*entry, router_)) {
      for (const trace::SpanGroup& group : spans.groups) {
        if (spans.id == id) {
          trace::AppendResourceSpans(group.resource->bytes, group.bytes, &bytes);
        }
      }
    }
  }
  return bytes;
}

std::vector<TraceLine> TraceStore::Recent(size_t limit) const {
  absl::MutexLock lock(&mutex_);
  std::vector<TraceLine> lines;
  for (auto entry = newest_.rbegin(); entry != newest_.rend() && lines.size() < limit; ++entry) {
    const std::vector<TraceLine> more = LinesOf(**entry);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  lines.resize(std::min(lines.size(), limit));
  return lines;
}

std::vector<TraceLine> TraceStore::Slowest(size_t limit) const {
  std::vector<Entry> entries;
  {
    absl::MutexLock lock(&mutex_);
    entries.assign(newest_.begin(), newest_.end());
    for (const auto& [duration, entry] : slowest_) {
      entries.push_back(entry);
    }
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return LongestOf(*a) > LongestOf(*b); });
  // A batch has one of the slowest traces at least, so no more batches than traces are needed.
  std::vector<TraceLine> lines;
  for (size_t i = 0; i < std::min(entries.size(), limit); ++i) {
    const std::vector<TraceLine> more = LinesOf(*entries[i]);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const TraceLine& a, const TraceLine& b) { return a.duration > b.duration; });
  lines.resize(std::min(lines.size(), limit));
  return lines;
}

}  // namespace expertmesh::tracing
