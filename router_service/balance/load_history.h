// Totals of the past minutes, so that what was counted of late can be told.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_HISTORY_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_HISTORY_H_

#include <deque>
#include <memory>

#include "absl/time/time.h"
#include "router_service/balance/load_counts.h"

namespace expertmesh::balance_control {

// Windows that are kept.
inline constexpr absl::Duration kShortWindow = absl::Seconds(1);
inline constexpr absl::Duration kWindow = absl::Seconds(10);
inline constexpr absl::Duration kLongWindow = absl::Minutes(5);

// What was counted in some time.
struct LoadWindow {
  // What was asked for, or a little more; less when nothing older is known.
  absl::Duration span;
  LoadCounts counts;
};

// Keeps totals a second apart for 10 s and 10 s apart for 5 minutes: at most 45. Not thread-safe.
class LoadHistory {
 public:
  // `at` does not go back.
  void Add(absl::Time at, std::shared_ptr<const LoadCounts> totals);

  // From the newest totals back. Empty before the second ones.
  LoadWindow Last(absl::Duration window) const;

 private:
  struct Sample {
    absl::Time at;
    std::shared_ptr<const LoadCounts> totals;
  };
  // `every` apart, back to the first that is `length` old.
  static void Keep(const Sample& sample, absl::Duration every, absl::Duration length,
                   std::deque<Sample>* samples);

  std::deque<Sample> seconds_;
  std::deque<Sample> minutes_;
  Sample newest_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_LOAD_HISTORY_H_
