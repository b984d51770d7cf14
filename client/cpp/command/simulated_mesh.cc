#include "client/cpp/command/simulated_mesh.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace expertmesh::command {
namespace {

// A time, and the option that gives it.
struct NamedTime {
  const char* option;
  const char* help;
  double* time;
};

std::array<NamedTime, 6> NamesOf(replay::ServiceTimes* times) {
  return {{
      {"assignment-us", "time of one assignment on a node of speed 1", &times->assignment_us},
      {"expert-us", "time of an expert that a batch uses, however little", &times->expert_us},
      {"batch-us", "time of a batch on a node, however small", &times->batch_us},
      {"row-us", "time of a row to a node and its partial back", &times->row_us},
      {"token-us", "time of a token at the router", &times->token_us},
      {"hop-us", "time of router and hops, however small the batch", &times->hop_us},
  }};
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
  std::vector<OptionSpec> options;
  replay::ServiceTimes fallback;
  for (const NamedTime& named : NamesOf(&fallback)) {
    options.push_back({.name = named.option,
                       .kind = OptionKind::kNumber,
                       .value = "US",
                       .help = absl::StrCat(named.help, " (default ", *named.time, ")")});
  }
  return options;
}

replay::ServiceTimes ServiceTimesOf(const Options& options) {
  replay::ServiceTimes times;
  for (const NamedTime& named : NamesOf(&times)) {
    if (options.Has(named.option)) {
      *named.time = options.Number(named.option);
    }
  }
  return times;
}

bool HasServiceTimes(const Options& options) {
  replay::ServiceTimes times;
  const std::array<NamedTime, 6> named = NamesOf(&times);
  return std::any_of(named.begin(), named.end(),
                     [&options](const NamedTime& one) { return options.Has(one.option); });
}

std::string FormatServiceTimes(replay::ServiceTimes times) {
  return absl::StrJoin(NamesOf(&times), " ", [](std::string* text, const NamedTime& named) {
    absl::StrAppend(text, "--", named.option, " ", absl::StrFormat("%.4g", *named.time));
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
