#include "client/cpp/command/simulated_mesh.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace expertmesh::command {
namespace {

OptionSpec MicrosOption(const std::string& name, const std::string& help, double fallback) {
  return {.name = name,
          .kind = OptionKind::kNumber,
          .value = "US",
          .help = absl::StrCat(help, " (default ", fallback, ")")};
}

bool ReadTime(absl::string_view text, double* seconds) {
  absl::Duration duration;
  if (absl::SimpleAtod(text, seconds)) {
    return *seconds >= 0;
  }
  const bool read = absl::ParseDuration(text, &duration);
  *seconds = absl::ToDoubleSeconds(duration);
  return read && *seconds >= 0;
}

}  // namespace

std::vector<OptionSpec> ServiceTimeOptions() {
  const replay::ServiceTimes times;
  return {MicrosOption("assignment-us", "time of one assignment on a node of speed 1",
                       times.assignment_us),
          MicrosOption("batch-us", "time of a batch on a node, however small", times.batch_us),
          MicrosOption("row-us", "time of a row to a node and its partial back", times.row_us),
          MicrosOption("hop-us", "time of router and hops, however small the batch", times.hop_us)};
}

replay::ServiceTimes ServiceTimesOf(const Options& options) {
  replay::ServiceTimes times;
  for (const auto& [name, time] :
       {std::pair("assignment-us", &times.assignment_us), std::pair("batch-us", &times.batch_us),
        std::pair("row-us", &times.row_us), std::pair("hop-us", &times.hop_us)}) {
    if (options.Has(name)) {
      *time = options.Number(name);
    }
  }
  return times;
}

absl::StatusOr<std::vector<replay::MeshEvent>> ParseEvents(absl::string_view text,
                                                           replay::MeshEvent::Kind kind) {
  std::vector<replay::MeshEvent> events;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> words =
        absl::StrSplit(part, absl::MaxSplits('@', 1));
    replay::MeshEvent event;
    event.kind = kind;
    if (!absl::SimpleAtoi(words.first, &event.node) || !ReadTime(words.second, &event.at_s)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", part, "' is no node and time; write 3@600 (seconds) or 3@10m, several with commas"));
    }
    events.push_back(event);
  }
  return events;
}

}  // namespace expertmesh::command
