// Quantiles and other figures, and tables of them.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::command {

// The smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank). 0
// when there are none.
double Percentile(std::vector<double> values, double share);

// MaxVio (Wang et al., 2024): how far the busiest expert is above the mean, as a share of the mean.
// 0 when there is no load.
double MaxViolation(absl::Span<const uint64_t> load);

// Lines of a table: columns as wide as they need to be, separated by two spaces, aligned to the
// right. The first row is the heading.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_
