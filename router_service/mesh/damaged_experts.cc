#include "router_service/mesh/damaged_experts.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_join.h"

namespace expertmesh::mesh {

void AddDamaged(absl::Span<const DamagedExpert> damaged, NodeIndex node,
                v1::TopologyNode* topology) {
  for (const DamagedExpert& copy : damaged) {
    if (copy.node != node) {
      continue;
    }
    v1::DamagedExperts* group = nullptr;
    for (v1::DamagedExperts& known : *topology->mutable_damaged()) {
      if (known.layer() == copy.layer && known.reason() == copy.reason) {
        group = &known;
      }
    }
    if (group == nullptr) {
      group = topology->add_damaged();
      group->set_layer(copy.layer);
      group->set_reason(copy.reason);
    }
    group->add_experts(copy.expert);
  }
}

uint64_t LogNewlyDamaged(absl::Span<const DamagedExpert> before,
                         absl::Span<const DamagedExpert> now, NodeIndex node,
                         const std::string& address) {
  v1::TopologyNode old;
  v1::TopologyNode current;
  AddDamaged(before, node, &old);
  AddDamaged(now, node, &current);
  uint64_t count = 0;
  for (const v1::DamagedExperts& layer : current.damaged()) {
    count += static_cast<uint64_t>(layer.experts_size());
    const bool known = std::any_of(old.damaged().begin(), old.damaged().end(),
                                   [&layer](const v1::DamagedExperts& other) {
                                     return other.SerializeAsString() == layer.SerializeAsString();
                                   });
    if (!known) {
      spdlog::error("node {}: layer {} expert{} {}: {}; not used there", address, layer.layer(),
                    layer.experts_size() == 1 ? "" : "s", absl::StrJoin(layer.experts(), ","),
                    layer.reason());
    }
  }
  return count;
}

}  // namespace expertmesh::mesh
