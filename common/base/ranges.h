// Sets of indices as people write them: "0-3,7".
#ifndef EXPERTMESH_COMMON_BASE_RANGES_H_
#define EXPERTMESH_COMMON_BASE_RANGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace expertmesh {

// `indices` must be ascending. Empty: "none".
std::string FormatRanges(absl::Span<const uint32_t> indices);

// Ascending, each once, and all below `limit`, so that a mistyped range costs no memory.
// INVALID_ARGUMENT names the part that is wrong and what is accepted.
absl::StatusOr<std::vector<uint32_t>> ParseRanges(absl::string_view text, uint32_t limit);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_RANGES_H_
