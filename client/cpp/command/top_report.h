// A frame of `expertmesh top`, as text and as JSON. Pure. Texts of other processes are cleaned.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TOP_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TOP_REPORT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/command/top_figures.h"
#include "client/cpp/command/top_reading.h"

namespace expertmesh::command {

struct FrameSize {
  // No line is wider; at least 40.
  size_t columns = 80;
  // There are no more lines; at least 12. 0: as many as it takes.
  size_t lines = 0;
};

// Lines without their ends. What does not fit is left out from the end of each table, whose heading
// says of how many.
std::vector<std::string> DrawTop(const std::string& router, const TopReading& reading,
                                 const TopFigures& figures, const FrameSize& size);

// While the router does not answer. `last`: when it did; InfinitePast: never.
std::vector<std::string> DrawAway(const std::string& router, const absl::Status& why,
                                  absl::Time now, absl::Time last, const FrameSize& size);

// One line each, with its end.
std::string TopJson(const std::string& router, const TopReading& reading,
                    const TopFigures& figures);
std::string AwayJson(const std::string& router, const absl::Status& why, absl::Time now);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TOP_REPORT_H_
