// Percent-encoding, as environment variables of OpenTelemetry have it.
#ifndef EXPERTMESH_COMMON_BASE_PERCENT_H_
#define EXPERTMESH_COMMON_BASE_PERCENT_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh {

// Nothing where two hexadecimal digits do not follow each "%".
std::optional<std::string> PercentDecoded(absl::string_view text);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_PERCENT_H_
