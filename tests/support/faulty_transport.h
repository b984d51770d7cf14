// Transport that breaks things on purpose: wraps another one and drops, delays, duplicates,
// truncates and flips frames and cuts connections, by chance, from a seed.
//
// The n-th frame of a direction of the n-th connection always has the same fate for the same seed
// and plan, whatever time and threads do. The order of frames is kept.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAULTY_TRANSPORT_H_
#define EXPERTMESH_TESTS_SUPPORT_FAULTY_TRANSPORT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/transport/transport.h"

namespace expertmesh {

// Probabilities per frame, 0 to 1; each is drawn on its own, for both directions. Of those per call
// (LoadExperts, UnloadExperts) likewise.
struct FaultPlan {
  uint64_t seed = 0;
  double drop = 0;
  double delay = 0;       // By up to max_delay; holds up the frames behind it.
  double duplicate = 0;   // The copy follows at once.
  double truncate = 0;    // Some bytes of the end are lost, at least one.
  double flip = 0;        // One bit changes.
  double disconnect = 0;  // The frame is lost and the connection is cut; it reconnects.
  absl::Duration max_delay = absl::Milliseconds(10);
  double lose_call = 0;    // The node never hears of it; the caller gets UNAVAILABLE.
  double lose_answer = 0;  // The node does what was asked; the caller gets UNAVAILABLE.
};

// What has been done to frames of all connections so far.
struct FaultCounts {
  uint64_t frames = 0;
  uint64_t dropped = 0;
  uint64_t delayed = 0;
  uint64_t duplicated = 0;
  uint64_t truncated = 0;
  uint64_t flipped = 0;
  uint64_t disconnected = 0;
  uint64_t calls = 0;
  uint64_t lost_calls = 0;
  uint64_t lost_answers = 0;

  friend bool operator==(const FaultCounts&, const FaultCounts&) = default;
};

// Counters behind FaultCounts, shared by connections.
class FaultCounters;

// Thread-safe.
class FaultyTransport final : public Transport {
 public:
  // `inner` and `clock` (for delays) must outlive the transport.
  FaultyTransport(Transport* inner, const FaultPlan& plan, Clock* clock);
  ~FaultyTransport() override;

  std::unique_ptr<NodeConnection> Connect(std::string address, NodeObserver* observer) override;
  absl::Time AwakeSince() const override { return inner_->AwakeSince(); }

  FaultCounts counts() const;

 private:
  Transport* const inner_;
  const FaultPlan plan_;
  Clock* const clock_;
  const std::shared_ptr<FaultCounters> counters_;
  std::atomic<uint64_t> connections_{0};
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_FAULTY_TRANSPORT_H_
