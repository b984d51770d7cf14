// Sets of indices and lists of numbers as people write them: "0-3,7".
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_RANGES_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_RANGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace expertmesh::command {

// `indices` must be ascending. Empty: "none".
std::string FormatRanges(absl::Span<const uint32_t> indices);

// Ascending, each once. INVALID_ARGUMENT names the part that is wrong; at most 65536 indices.
absl::StatusOr<std::vector<uint32_t>> ParseRanges(absl::string_view text);

// "17,4,256" in that order. INVALID_ARGUMENT names the part that is wrong.
absl::StatusOr<std::vector<uint32_t>> ParseNumbers(absl::string_view text);

// 1234567 as "1,234,567".
std::string WithThousands(uint64_t number);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_RANGES_H_
