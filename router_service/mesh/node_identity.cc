#include "router_service/mesh/node_identity.h"

#include <memory>

#include "absl/strings/numbers.h"
#include "common/base/peer_text.h"

namespace expertmesh::mesh {
namespace {

// What a node says of itself is told as it says it, within these limits.
constexpr size_t kMostAttributes = 64;
constexpr size_t kMostKeyBytes = 128;

trace::ResourcePtr ResourceOf(const v1::NodeDescription& description) {
  trace::TextAttributes attributes;
  for (const auto& [key, value] : description.resource_attributes()) {
    if (attributes.size() < kMostAttributes) {
      trace::AddDefault(PeerText(key, kMostKeyBytes), value, &attributes);
    }
  }
  trace::AddDefault("service.name", "expertmesh-expert", &attributes);
  trace::AddDefault("service.version", description.version(), &attributes);
  trace::AddDefault("service.instance.id", description.instance_id(), &attributes);
  trace::AddDefault("expertmesh.node", description.node_id(), &attributes);
  trace::AddDefault("expertmesh.zone", description.zone(), &attributes);
  return std::make_shared<const trace::Resource>(attributes);
}

}  // namespace

NodeIdentity::NodeIdentity(const std::string& address, const v1::NodeDescription& description)
    : host(address),
      node_id(description.node_id()),
      instance_id(description.instance_id()),
      resource(ResourceOf(description)) {
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && absl::SimpleAtoi(address.substr(colon + 1), &port)) {
    host = address.substr(0, colon);
  }
}

}  // namespace expertmesh::mesh
