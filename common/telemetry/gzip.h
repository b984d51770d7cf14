// gzip as the encoding of HTTP answers.
#ifndef EXPERTMESH_COMMON_TELEMETRY_GZIP_H_
#define EXPERTMESH_COMMON_TELEMETRY_GZIP_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh::telemetry {

// Whether a caller that sends this Accept-Encoding reads gzip (RFC 9110, 12.5.3). Empty: it does
// not say so, so no.
bool AcceptsGzip(absl::string_view accept_encoding);

// `text` in the gzip format; nothing when there is no memory for it.
std::optional<std::string> Gzip(absl::string_view text);

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_GZIP_H_
