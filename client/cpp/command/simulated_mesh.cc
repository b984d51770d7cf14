#include "client/cpp/command/simulated_mesh.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace expertmesh::command {
namespace {

struct TimeOption {
  const char* name;
  double replay::ServiceTimes::*time;
  const char* help;
};

constexpr TimeOption kTimes[] = {
    {"assignment-us", &replay::ServiceTimes::assignment_us,
     "time of one assignment on a node of speed 1"},
    {"expert-us", &replay::ServiceTimes::expert_us,
     "time of an expert that a batch uses, however little"},
    {"batch-us", &replay::ServiceTimes::batch_us, "time of a batch on a node, however small"},
    {"row-us", &replay::ServiceTimes::row_us, "time of a row to a node and its partial back"},
    {"token-us", &replay::ServiceTimes::token_us, "time of a token at the router"},
    {"hop-us", &replay::ServiceTimes::hop_us, "time of router and hops, however small the batch"},
};

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
  std::vector<OptionSpec> options;
  for (const TimeOption& option : kTimes) {
    options.push_back({.name = option.name,
                       .kind = OptionKind::kNumber,
                       .value = "US",
                       .help = absl::StrCat(option.help, " (default ",
                                            replay::ServiceTimes().*option.time, ")")});
  }
  return options;
}

replay::ServiceTimes ServiceTimesOf(const Options& options) {
  replay::ServiceTimes times;
  for (const TimeOption& option : kTimes) {
    if (options.Has(option.name)) {
      times.*option.time = options.Number(option.name);
    }
  }
  return times;
}

bool HasServiceTimes(const Options& options) {
  return std::any_of(std::begin(kTimes), std::end(kTimes),
                     [&options](const TimeOption& option) { return options.Has(option.name); });
}

std::string FormatServiceTimes(const replay::ServiceTimes& times) {
  return absl::StrJoin(kTimes, " ", [&times](std::string* text, const TimeOption& option) {
    absl::StrAppend(text, "--", option.name, " ", absl::StrFormat("%.4g", times.*option.time));
  });
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
