#include "client/cpp/command/text_columns.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"

namespace expertmesh::command {
namespace {

constexpr size_t kGap = 2;
// Between tables.
constexpr size_t kWideGap = 4;
constexpr size_t kLeastName = 8;

bool IsAscii(char c) { return static_cast<unsigned char>(c) < 0x80; }
bool Continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

std::string Spaces(size_t wanted, size_t taken) {
  return std::string(wanted > taken ? wanted - taken : 0, ' ');
}

}  // namespace

size_t ColumnsOf(absl::string_view text) {
  size_t columns = 0;
  for (const char c : text) {
    columns += IsAscii(c) ? 1 : (Continues(c) ? 0 : 2);
  }
  return columns;
}

std::string FitColumns(absl::string_view text, size_t columns) {
  if (ColumnsOf(text) <= columns) {
    return std::string(text);
  }
  if (columns == 0) {
    return "";
  }
  size_t bytes = text.size();
  while (ColumnsOf(text.substr(0, bytes)) > columns - 1) {
    bytes = CutText(text, bytes - 1).size();
  }
  return absl::StrCat(text.substr(0, bytes), "~");
}

std::vector<std::string> TableLines(const std::vector<std::vector<std::string>>& rows,
                                    size_t columns) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], ColumnsOf(row[column]));
    }
  }
  size_t others = 0;
  for (size_t column = 1; column < widths.size(); ++column) {
    others += kGap + widths[column];
  }
  if (!widths.empty() && widths[0] + others > columns) {
    const size_t left = columns > others ? columns - others : 0;
    widths[0] = std::min(widths[0], std::max(kLeastName, left));
  }
  std::vector<std::string> lines;
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string cell = FitColumns(row[column], widths[column]);
      const std::string spaces = Spaces(widths[column], ColumnsOf(cell));
      absl::StrAppend(&line, column == 0 ? "" : std::string(kGap, ' '),
                      column == 0 ? cell + spaces : spaces + cell);
    }
    lines.push_back(FitColumns(absl::StripTrailingAsciiWhitespace(line), columns));
  }
  return lines;
}

std::vector<std::string> Beside(const std::vector<std::string>& left,
                                const std::vector<std::string>& right, size_t columns) {
  size_t width = 0;
  for (const std::string& line : left) {
    width = std::max(width, ColumnsOf(line));
  }
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    std::string line = i < left.size() ? left[i] : "";
    if (i < right.size()) {
      absl::StrAppend(&line, Spaces(width + kWideGap, ColumnsOf(line)), right[i]);
    }
    lines.push_back(FitColumns(line, columns));
  }
  return lines;
}

}  // namespace expertmesh::command
