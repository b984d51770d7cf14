// Line charts as inline SVG.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_SVG_CHART_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_SVG_CHART_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace expertmesh::replay {

// For text and for attributes in double quotes.
std::string EscapeXml(absl::string_view text);

// Three digits, more before the point than after it: "12,345", "0.00123".
std::string ShortNumber(double value);

struct ChartLine {
  std::string name;
  std::vector<double> values;
};

// All lines have a value for each of `times` (seconds, ascending), of which there is at least one.
// The vertical axis begins at `low`, and has `unit` at its top. Many values are drawn as means.
std::string LineChart(const std::vector<double>& times, const std::vector<ChartLine>& lines,
                      absl::string_view unit, double low);

// By more than rounding does, so that there is something to draw.
bool IsAbove(double value, double low);

// Colour of line `index`, "#2f6fab".
std::string ChartColour(size_t index);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_SVG_CHART_H_
