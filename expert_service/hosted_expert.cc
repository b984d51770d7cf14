#include "expert_service/hosted_expert.h"

#include <utility>

namespace expertmesh::node {

HostedExpert::HostedExpert(Parts parts, std::shared_ptr<const experts::PackedExpert> packed)
    : parts_(std::move(parts)), packed_(std::move(packed)) {}

HostedExpert::~HostedExpert() {
  if (parts_.on_gone) {
    parts_.on_gone(this);
  }
  packed_.reset();
  parts_.ledger->RemoveEntry(parts_.ledger_id);
}

}  // namespace expertmesh::node
