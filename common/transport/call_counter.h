// Who counts the calls of a server, method by method.
#ifndef EXPERTMESH_COMMON_TRANSPORT_CALL_COUNTER_H_
#define EXPERTMESH_COMMON_TRANSPORT_CALL_COUNTER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh {

// Thread-safe; cheap, and allocates nothing once each code was seen.
class MethodCounter {
 public:
  virtual ~MethodCounter() = default;
  // A call has arrived, and, `duration` after that, is answered: for each that started one that
  // ended.
  virtual void Started() = 0;
  virtual void Handled(absl::StatusCode code, absl::Duration duration) = 0;
};

// Thread-safe.
class CallCounter {
 public:
  virtual ~CallCounter() = default;
  // For a method that is served, "/expertmesh.v1.Router/Forward". Valid for as long as this.
  virtual MethodCounter* Method(const std::string& name, bool streams) = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_CALL_COUNTER_H_
