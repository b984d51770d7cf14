#include "router_service/mesh/node_source.h"

#include <utility>

#include "common/base/status_macros.h"
#include "router_service/mesh/dns_nodes.h"

namespace expertmesh::mesh {
namespace {

// A list that never changes: it has told all there is to tell.
class ListedNodes final : public NodeSource {};

}  // namespace

absl::StatusOr<std::unique_ptr<NodeSource>> MakeNodeSource(const std::string& spec,
                                                           const NodeSourceOptions& options,
                                                           NodeSource::OnChange on_change,
                                                           NodeSource::OnStatus on_status) {
  // Refuses what makes no sense before a name is looked up.
  const HostLookup nowhere = [](const std::string&) { return std::vector<std::string>(); };
  ASSIGN_OR_RETURN(const std::vector<std::string> listed, ResolveAddresses(spec, nowhere));
  if (HasNames(spec)) {
    return std::make_unique<DnsNodes>(spec, options, std::move(on_change), std::move(on_status));
  }
  on_change(listed);
  return std::make_unique<ListedNodes>();
}

}  // namespace expertmesh::mesh
