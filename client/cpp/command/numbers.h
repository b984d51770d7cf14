// Numbers as people write and read them.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::command {

// "17,4,256" in that order. INVALID_ARGUMENT names the part that is wrong.
absl::StatusOr<std::vector<uint32_t>> ParseNumbers(absl::string_view text);

// "64GiB", "1.5GB", "800": bytes, with the units B, kB, MB, GB, TB (of 1000) and KiB, MiB, GiB, TiB
// (of 1024). INVALID_ARGUMENT says what is accepted.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);
// "1.5 GiB": three digits, in the largest unit of 1024 that is not above.
std::string FormatBytes(uint64_t bytes);

// "2,0.5": in that order, each above 0.
absl::StatusOr<std::vector<double>> ParseFactors(absl::string_view text);

// INVALID_ARGUMENT when a load of so many tokens a second cannot be counted with.
absl::Status CheckTokensPerSecond(double tokens_per_second);

// 1234567 as "1,234,567".
std::string WithThousands(uint64_t number);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_NUMBERS_H_
