// Numbers as people write and read them.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::command {

// "17,4,256" in that order. INVALID_ARGUMENT names the part that is wrong.
absl::StatusOr<std::vector<uint32_t>> ParseNumbers(absl::string_view text);

// 1234567 as "1,234,567".
std::string WithThousands(uint64_t number);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_
