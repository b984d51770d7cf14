#include "router_service/mesh/view_maker.h"

#include <utility>

#include "common/model/model_description.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::mesh {
namespace {

// What the nodes of a fleet offer, kept for as long as a placement is made from it.
struct Offers {
  std::vector<std::shared_ptr<const v1::NodeDescription>> descriptions;
  std::vector<std::vector<const v1::HostedExperts*>> hosted;
  std::vector<NodeOffer> offers;
};

// Adds what `link`, of index `node`, offers; what of it goes into a view.
NodeView AddOffer(NodeIndex node, const std::shared_ptr<NodeLink>& link, Offers* offers) {
  LinkOffer offered = link->Offer();
  if (offered.description == nullptr) {
    return {};
  }
  const v1::NodeDescription& description = *offered.description;
  NodeOffer offer;
  offer.node = node;
  offer.last_resort = offered.last_resort;
  offer.node_id = description.node_id();
  std::vector<const v1::HostedExperts*>& entries = offers->hosted.emplace_back();
  for (const v1::HostedExperts& entry : description.hosted()) {
    entries.push_back(&entry);
  }
  offer.hosted = entries;  // What the vector points to stays where it is when it moves.
  offers->offers.push_back(std::move(offer));
  NodeView view{link, link->encoding(), description.max_batch_rows(),
                description.max_frame_bytes(), std::move(offered.identity)};
  offers->descriptions.push_back(std::move(offered.description));
  return view;
}

}  // namespace

ViewMaker::ViewMaker(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                     WeightVerifier* verifier)
    : checkpoint_(std::move(checkpoint)), verifier_(verifier) {}

std::shared_ptr<const MeshView> ViewMaker::Make(ViewVersion version,
                                                absl::Span<const std::shared_ptr<NodeLink>> links,
                                                ViewBiases biases,
                                                const balance::PlacementPlan* plan,
                                                std::vector<DamagedExpert>* damaged) const {
  Offers offers;
  std::vector<NodeView> views(links.size());
  std::vector<NodeHoldings> holdings;
  for (NodeIndex index = 0; index < links.size(); ++index) {
    if (links[index] == nullptr) {
      continue;
    }
    views[index] = AddOffer(index, links[index], &offers);
    if (views[index].link != nullptr) {
      holdings.push_back({index, links[index]->address(), offers.offers.back().hosted});
    }
  }
  *damaged = verifier_->Judge(holdings);
  for (NodeOffer& offer : offers.offers) {
    for (const DamagedExpert& copy : *damaged) {
      if (copy.node == offer.node) {
        offer.excluded.emplace_back(copy.layer, copy.expert);
      }
    }
  }
  auto placement = std::make_shared<const Placement>(checkpoint_->model(), offers.offers, plan);
  return std::make_shared<const MeshView>(version, std::move(placement), std::move(biases),
                                          std::move(views));
}

}  // namespace expertmesh::mesh
