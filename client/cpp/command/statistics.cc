#include "client/cpp/command/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace expertmesh::command {

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) {
    return 0;
  }
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const size_t index = std::min(values.size(), std::max<size_t>(1, static_cast<size_t>(rank))) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index),
                   values.end());
  return values[index];
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], row[column].size());
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      text.append(column == 0 ? 0 : 2, ' ');
      text.append(widths[column] - row[column].size(), ' ');
      text += row[column];
    }
    text += '\n';
  }
  return text;
}

}  // namespace expertmesh::command
