// Quantiles and other figures, and tables of them.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_

#include <string>
#include <vector>

namespace expertmesh::command {

// The smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank). 0
// when there are none.
double Percentile(std::vector<double> values, double share);

// Lines of a table: columns as wide as they need to be, separated by two spaces, aligned to the
// right. The first row is the heading.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_STATISTICS_H_
