#include "client/cpp/command/placement_options.h"

#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/command/numbers.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

OptionSpec Count(const std::string& name, const std::string& help) {
  return {.name = name, .kind = OptionKind::kWhole, .value = "N", .help = help};
}

absl::Status ReadCopies(const Options& options, const std::string& name,
                        std::optional<uint32_t>* copies) {
  if (!options.Has(name)) {
    return absl::OkStatus();
  }
  const uint64_t whole = options.Whole(name);
  if (whole > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", name, " is ", whole, "; no mesh has so many nodes"));
  }
  *copies = static_cast<uint32_t>(whole);
  return absl::OkStatus();
}

}  // namespace

std::vector<OptionSpec> WithPlanning(std::vector<OptionSpec> more) {
  std::vector<OptionSpec> options = {
      Count("min-copies", "of every expert, at least; 0: as many as the one with the fewest has"),
      Count("max-copies", "of an expert, at most; 0: as many as there are nodes"),
      {.name = "hysteresis",
       .kind = OptionKind::kNumber,
       .value = "SHARE",
       .help = "by which a layer's fullest node must improve to move its copies"},
      {.name = "byte-budget",
       .value = "SIZE",
       .help = "that one plan may have loaded, such as 4GiB; 0: no bound"},
      Count("min-tokens", "tokens of a layer that must have been counted to plan for it")};
  std::move(more.begin(), more.end(), std::back_inserter(options));
  return options;
}

absl::StatusOr<client::PlacementChange> ReadPlanning(const Options& options) {
  client::PlacementChange change;
  RETURN_IF_ERROR(ReadCopies(options, "min-copies", &change.min_copies));
  RETURN_IF_ERROR(ReadCopies(options, "max-copies", &change.max_copies));
  if (options.Has("hysteresis")) {
    change.hysteresis = options.Number("hysteresis");
  }
  if (options.Has("byte-budget")) {
    const absl::StatusOr<uint64_t> bytes = ParseBytes(options.Text("byte-budget"));
    if (!bytes.ok()) {
      return WithContext("--byte-budget", bytes.status());
    }
    change.byte_budget = *bytes;
  }
  if (options.Has("min-tokens")) {
    change.min_tokens = options.Whole("min-tokens");
  }
  return change;
}

}  // namespace expertmesh::command
