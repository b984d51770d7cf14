#include "router_service/tracing/trace_store.h"

#include <algorithm>
#include <utility>

#include "common/trace/span_writer.h"

namespace expertmesh::tracing {
namespace {

size_t BytesOf(const TraceSpans& spans) {
  size_t bytes = sizeof(spans) + 128;  // What the tables take.
  for (const trace::SpanGroup& group : spans.groups) {
    bytes += sizeof(group) + group.bytes.capacity();
  }
  return bytes;
}

}  // namespace

void TraceStore::Add(TraceSpans spans) {
  for (trace::SpanGroup& group : spans.groups) {
    group.bytes.shrink_to_fit();
  }
  const Entry entry = std::make_shared<const TraceSpans>(std::move(spans));
  absl::MutexLock lock(&mutex_);
  newest_.push_back(entry);
  newest_bytes_ += BytesOf(*entry);
  by_id_[entry->line.id].push_back(entry);
  while (newest_bytes_ > max_bytes_ && newest_.size() > 1) {
    DropOldest();
  }
}

void TraceStore::DropOldest() {
  const Entry oldest = std::move(newest_.front());
  newest_.pop_front();
  newest_bytes_ -= BytesOf(*oldest);
  slowest_.emplace(oldest->line.duration, oldest);
  slowest_bytes_ += BytesOf(*oldest);
  while (slowest_.size() > kSlowest || (slowest_bytes_ > max_bytes_ && slowest_.size() > 1)) {
    const auto quickest = slowest_.begin();
    slowest_bytes_ -= BytesOf(*quickest->second);
    Forget(quickest->second);
    slowest_.erase(quickest);
  }
}

void TraceStore::Forget(const Entry& entry) {
  const auto found = by_id_.find(entry->line.id);
  std::vector<Entry>& entries = found->second;
  entries.erase(std::find(entries.begin(), entries.end(), entry));
  if (entries.empty()) {
    by_id_.erase(found);
  }
}

std::optional<std::string> TraceStore::Find(const trace::TraceId& id) const {
  std::vector<Entry> entries;
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
    for (const trace::SpanGroup& group : entry->groups) {
      trace::AppendResourceSpans(group.resource->bytes, group.bytes, &bytes);
    }
  }
  return bytes;
}

std::vector<TraceLine> TraceStore::Recent(size_t limit) const {
  absl::MutexLock lock(&mutex_);
  std::vector<TraceLine> lines;
  for (auto entry = newest_.rbegin(); entry != newest_.rend() && lines.size() < limit; ++entry) {
    lines.push_back((*entry)->line);
  }
  return lines;
}

std::vector<TraceLine> TraceStore::Slowest(size_t limit) const {
  std::vector<TraceLine> lines;
  {
    absl::MutexLock lock(&mutex_);
    for (const Entry& entry : newest_) {
      lines.push_back(entry->line);
    }
    for (const auto& [duration, entry] : slowest_) {
      lines.push_back(entry->line);
    }
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const TraceLine& a, const TraceLine& b) { return a.duration > b.duration; });
  lines.resize(std::min(lines.size(), limit));
  return lines;
}

}  // namespace expertmesh::tracing
