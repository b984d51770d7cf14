#include "router_service/mesh/twins.h"

#include <spdlog/spdlog.h>

#include <string>

#include "absl/container/flat_hash_map.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::mesh {

void MarkTwins(absl::Span<const std::shared_ptr<NodeLink>> links) {
  absl::flat_hash_map<std::string, std::string> address_of;  // By instance.
  for (const std::shared_ptr<NodeLink>& link : links) {
    if (link == nullptr) {
      continue;
    }
    std::string twin;
    if (const std::string instance = link->instance_id(); !instance.empty()) {
      const auto [known, added] = address_of.try_emplace(instance, link->address());
      twin = added ? "" : known->second;
    }
    if (link->SetTwin(twin) && !twin.empty()) {
      spdlog::warn("nodes {} and {} are one process, which counts once; list one of the two", twin,
                   link->address());
    }
  }
}

}  // namespace expertmesh::mesh
