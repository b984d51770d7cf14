// The bound on waits of tests.
#ifndef EXPERTMESH_TESTS_SUPPORT_TOO_LONG_H_
#define EXPERTMESH_TESTS_SUPPORT_TOO_LONG_H_

#include "absl/time/time.h"

namespace expertmesh {

// What a test waits for happens in milliseconds, or in seconds where others keep all cores busy.
// Only a failure takes this long.
inline constexpr absl::Duration kTooLong = absl::Minutes(2);

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_TOO_LONG_H_
