#include "router_service/mesh/wire_encoding.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::mesh {
namespace {

absl::StatusOr<Dtype> ParseType(absl::string_view flag, absl::string_view entry,
                                absl::string_view name, Dtype activation_dtype) {
  if (name == "auto") {
    return activation_dtype;
  }
  if (const std::optional<Dtype> known = FindWireDtype(name)) {
    return *known;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " has an entry '", entry, "'; use auto, ", WireNames(),
                   ", alone for all nodes or as ADDRESS=TYPE for one"));
}

}  // namespace

absl::StatusOr<WireEncodings::Direction> WireEncodings::ParseDirection(absl::string_view flag,
                                                                       absl::string_view text,
                                                                       Dtype activation_dtype) {
  Direction direction;
  direction.of_all = activation_dtype;
  bool seen = false;
  for (const absl::string_view entry : absl::StrSplit(text, ',')) {
    const size_t equals = entry.rfind('=');
    const bool exception = equals != absl::string_view::npos;
    const absl::string_view name = exception ? entry.substr(equals + 1) : entry;
    ASSIGN_OR_RETURN(const Dtype dtype, ParseType(flag, entry, name, activation_dtype));
    if (!exception) {
      if (std::exchange(seen, true)) {
        return absl::InvalidArgumentError(
            absl::StrCat(flag, " has a second type for all nodes, '", entry, "'; give one"));
      }
      direction.of_all = dtype;
      continue;
    }
    const std::string address(entry.substr(0, equals));
    if (address.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, " has an entry '", entry, "' without an address; use ADDRESS=TYPE"));
    }
    if (!direction.of_address.emplace(address, dtype).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, " has a second entry for ", address, "; give one"));
    }
  }
  return direction;
}

absl::StatusOr<WireEncodings> WireEncodings::Parse(absl::string_view hidden_states,
                                                   absl::string_view partials,
                                                   Dtype activation_dtype) {
  WireEncodings encodings;
  ASSIGN_OR_RETURN(encodings.hidden_states_,
                   ParseDirection("--wire-hidden-states", hidden_states, activation_dtype));
  ASSIGN_OR_RETURN(encodings.partials_,
                   ParseDirection("--wire-partials", partials, activation_dtype));
  return encodings;
}

Dtype WireEncodings::Choose(const Direction& direction, const std::string& address) {
  const auto exception = direction.of_address.find(address);
  return exception == direction.of_address.end() ? direction.of_all : exception->second;
}

WireEncoding WireEncodings::For(const std::string& address) const {
  return {Choose(hidden_states_, address), Choose(partials_, address), checksums_};
}

}  // namespace expertmesh::mesh
