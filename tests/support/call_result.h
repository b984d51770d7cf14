// Waits for what a callback is told, and fails the test when it is told twice.
#ifndef EXPERTMESH_TESTS_SUPPORT_CALL_RESULT_H_
#define EXPERTMESH_TESTS_SUPPORT_CALL_RESULT_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "tests/support/too_long.h"

namespace expertmesh {

// Thread-safe. The callbacks may outlive it.
template <typename Value>
class CallResult {
 public:
  absl::AnyInvocable<void(absl::StatusOr<Value>)> done() {
    return [state = state_](absl::StatusOr<Value> result) {
      absl::MutexLock lock(&state->mutex);
      EXPECT_FALSE(state->result.has_value()) << "told twice";
      state->result = std::move(result);
    };
  }

  bool told() const {
    absl::MutexLock lock(&state_->mutex);
    return state_->result.has_value();
  }

  absl::StatusOr<Value> Await() const {
    State* const state = state_.get();
    absl::MutexLock lock(&state->mutex);
    const auto told = [state]()
                          ABSL_NO_THREAD_SAFETY_ANALYSIS { return state->result.has_value(); };
    if (!state->mutex.AwaitWithTimeout(absl::Condition(&told), kTooLong)) {
      ADD_FAILURE() << "never told";
      return absl::InternalError("never told");
    }
    return *state->result;
  }

 private:
  struct State {
    absl::Mutex mutex;
    std::optional<absl::StatusOr<Value>> result ABSL_GUARDED_BY(mutex);
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_CALL_RESULT_H_
