// What spans say of the process that they are of: OpenTelemetry's resource.
#ifndef EXPERTMESH_COMMON_TRACE_RESOURCE_H_
#define EXPERTMESH_COMMON_TRACE_RESOURCE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace expertmesh::trace {

// Keys and values, in order.
using TextAttributes = std::vector<std::pair<std::string, std::string>>;

// The pairs of OTEL_RESOURCE_ATTRIBUTES ("key=value,key=value", percent-encoded), in which the
// downward API of Kubernetes puts names of pod, node and namespace. As the specification wants, a
// text with a mistake anywhere means nothing at all. At most 64 pairs of at most 1024 bytes.
TextAttributes ParseResourceAttributes(absl::string_view text);

// ParseResourceAttributes of the environment, and OTEL_SERVICE_NAME as service.name.
TextAttributes ResourceAttributesFromEnvironment();

// Where `key` has a value already it stays; else adds it.
void AddDefault(absl::string_view key, absl::string_view value, TextAttributes* attributes);

// An encoded OTLP Resource.
struct Resource {
  explicit Resource(const TextAttributes& attributes);
  std::string bytes;
};
using ResourcePtr = std::shared_ptr<const Resource>;

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_RESOURCE_H_
