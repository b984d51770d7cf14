// Times as the contract's fields of 32 bits have them.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_WIRE_MILLIS_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_WIRE_MILLIS_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"

namespace expertmesh::client {

// Rounded up, so that a short time is not taken for none.
inline uint32_t WireMillis(absl::Duration duration) {
  const int64_t millis = absl::ToInt64Milliseconds(absl::Ceil(duration, absl::Milliseconds(1)));
  return static_cast<uint32_t>(
      std::clamp<int64_t>(millis, 0, std::numeric_limits<uint32_t>::max()));
}

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_WIRE_MILLIS_H_
