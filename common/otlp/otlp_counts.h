// What an exporter of spans says of itself.
#ifndef EXPERTMESH_COMMON_OTLP_OTLP_COUNTS_H_
#define EXPERTMESH_COMMON_OTLP_OTLP_COUNTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace expertmesh::otlp {

// Why spans were not exported.
enum class DropReason {
  kQueueFull,    // There was no room.
  kRefused,      // The collector gave an answer after which nothing is sent again.
  kRetriesOver,  // Attempts or time of the batch were used up.
  kTooLarge,     // One span is more than a request may have.
  kMalformed,    // The bytes are no spans.
  kShutdown,     // The process ended before.
  kPartial,      // The collector took the others of the request.
};
inline constexpr std::array<DropReason, 7> kDropReasons = {
    DropReason::kQueueFull, DropReason::kRefused,  DropReason::kRetriesOver, DropReason::kTooLarge,
    DropReason::kMalformed, DropReason::kShutdown, DropReason::kPartial};

// For the label of a metric: "queue_full".
constexpr const char* NameOf(DropReason reason) {
  constexpr std::array<const char*, kDropReasons.size()> kNames = {
      "queue_full", "refused", "retries_over", "too_large", "malformed", "shutdown", "partial"};
  return kNames[static_cast<size_t>(reason)];
}

// May be read at any time. Counts grow only.
struct OtlpCounts {
  std::atomic<uint64_t> exported{0};  // Spans.
  std::array<std::atomic<uint64_t>, kDropReasons.size()> dropped{};
  std::atomic<uint64_t> requests{0};      // Attempts, the first and all others.
  std::atomic<uint64_t> retries{0};       // Those that were not the first of their batch.
  std::atomic<uint64_t> export_nanos{0};  // From sending a request to its answer, of all of them.
  // What waits now, without the batch that is being sent.
  std::atomic<uint64_t> queue_spans{0};
  std::atomic<uint64_t> queue_bytes{0};

  void Drop(DropReason reason, uint64_t spans) {
    dropped[static_cast<size_t>(reason)].fetch_add(spans, std::memory_order_relaxed);
  }
  uint64_t Dropped(DropReason reason) const {
    return dropped[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }
  uint64_t AllDropped() const {
    uint64_t all = 0;
    for (const DropReason reason : kDropReasons) {
      all += Dropped(reason);
    }
    return all;
  }
};

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_OTLP_COUNTS_H_
