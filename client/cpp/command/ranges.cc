#include "client/cpp/command/ranges.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace expertmesh::command {
namespace {

constexpr size_t kMaxIndices = 65536;

}  // namespace

std::string FormatRanges(absl::Span<const uint32_t> indices) {
  if (indices.empty()) {
    return "none";
  }
  std::string text;
  for (size_t begin = 0; begin < indices.size();) {
    size_t end = begin + 1;
    while (end < indices.size() && indices[end] == indices[end - 1] + 1) {
      ++end;
    }
    absl::StrAppend(&text, text.empty() ? "" : ",", indices[begin]);
    if (end - begin > 1) {
      absl::StrAppend(&text, "-", indices[end - 1]);
    }
    begin = end;
  }
  return text;
}

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

absl::StatusOr<std::vector<uint32_t>> ParseRanges(absl::string_view text) {
  std::vector<uint32_t> indices;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    const bool one = part.find('-') == absl::string_view::npos;
    uint32_t first = 0;
    uint32_t last = 0;
    if (!absl::SimpleAtoi(ends.first, &first) ||
        !absl::SimpleAtoi(one ? ends.first : ends.second, &last) || last < first ||
        last - first >= kMaxIndices - indices.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' in '", text, "' is no index or range such as 0-3"));
    }
    for (uint64_t index = first; index <= last; ++index) {
      indices.push_back(static_cast<uint32_t>(index));
    }
  }
  std::sort(indices.begin(), indices.end());
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  return indices;
}

std::string WithThousands(uint64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t at = digits.size(); at > 3; at -= 3) {
    digits.insert(at - 3, 1, ',');
  }
  return digits;
}

}  // namespace expertmesh::command
