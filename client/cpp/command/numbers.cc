#include "client/cpp/command/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace expertmesh::command {
namespace {

struct Unit {
  absl::string_view name;
  double bytes;
};

constexpr Unit kUnits[] = {{"", 1},         {"B", 1},       {"kB", 1e3},     {"MB", 1e6},
                           {"GB", 1e9},     {"TB", 1e12},   {"KiB", 0x1p10}, {"MiB", 0x1p20},
                           {"GiB", 0x1p30}, {"TiB", 0x1p40}};

}  // namespace

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

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const absl::string_view unit = absl::StripLeadingAsciiWhitespace(text.substr(digits));
  double number = 0;
  const auto known = std::find_if(std::begin(kUnits), std::end(kUnits),
                                  [unit](const Unit& one) { return one.name == unit; });
  if (absl::SimpleAtod(text.substr(0, digits), &number) && known != std::end(kUnits) &&
      number * known->bytes < 0x1p63) {
    return static_cast<uint64_t>(number * known->bytes);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text.substr(0, 80), "' is no size; write 64GiB, 1.5GB or a number of bytes"));
}

std::string FormatBytes(uint64_t bytes) {
  const Unit* unit = &kUnits[0];
  for (const Unit& larger : kUnits) {
    if (absl::StrContains(larger.name, 'i') && static_cast<double>(bytes) >= larger.bytes) {
      unit = &larger;
    }
  }
  if (unit == &kUnits[0]) {
    return absl::StrCat(bytes, " B");
  }
  return absl::StrFormat("%.3g %s", static_cast<double>(bytes) / unit->bytes, unit->name);
}

absl::StatusOr<std::vector<double>> ParseFactors(absl::string_view text) {
  std::vector<double> factors;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    if (!absl::SimpleAtod(part, &factors.emplace_back()) || !std::isfinite(factors.back()) ||
        !(factors.back() > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' in '", text.substr(0, 80), "' is no number above 0"));
    }
  }
  return factors;
}

absl::Status CheckTokensPerSecond(double tokens_per_second) {
  constexpr double kMost = 1e10;
  if (tokens_per_second <= kMost) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--tokens-per-second is ", tokens_per_second, "; use at most ", kMost));
}

std::string WithThousands(uint64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t at = digits.size(); at > 3; at -= 3) {
    digits.insert(at - 3, 1, ',');
  }
  return digits;
}

}  // namespace expertmesh::command
