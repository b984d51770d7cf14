#include "common/base/ranges.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace expertmesh {

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

absl::StatusOr<std::vector<uint32_t>> ParseRanges(absl::string_view text, uint32_t limit) {
  std::vector<bool> chosen(limit, false);
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    const bool one = part.find('-') == absl::string_view::npos;
    uint32_t first = 0;
    uint32_t last = 0;
    if (!absl::SimpleAtoi(ends.first, &first) ||
        !absl::SimpleAtoi(one ? ends.first : ends.second, &last)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' is no number or range; give for example 0-31,40"));
    }
    if (last < first) {
      return absl::InvalidArgumentError(
          absl::StrCat("range '", part, "' ends before it begins; give for example 0-31,40"));
    }
    if (last >= limit) {
      return absl::InvalidArgumentError(absl::StrCat(last, " does not exist; numbers go from 0 to ",
                                                     static_cast<int64_t>(limit) - 1));
    }
    std::fill(chosen.begin() + first, chosen.begin() + last + 1, true);
  }
  std::vector<uint32_t> indices;
  for (uint32_t index = 0; index < limit; ++index) {
    if (chosen[index]) {
      indices.push_back(index);
    }
  }
  return indices;
}

}  // namespace expertmesh
