#include "client/cpp/command/numbers.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace expertmesh::command {

absl::StatusOr<std::vector<uint32_t>> ParseNumbers(absl::string_view text) {
  std::vector<uint32_t> numbers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    if (!absl::SimpleAtoi(part, &numbers.emplace_back())) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' in '", text.substr(0, 80), "' is no whole number"));
    }
  }
  return numbers;
}

std::string WithThousands(uint64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t at = digits.size(); at > 3; at -= 3) {
    digits.insert(at - 3, 1, ',');
  }
  return digits;
}

}  // namespace expertmesh::command
