#include "client/cpp/library/placement_codec.h"

#include "client/cpp/library/wire_millis.h"

namespace expertmesh::client {
namespace {

PlacementPolicy ReadPolicy(const v1::PlacementPolicy& proto) {
  return {proto.automatic(),  absl::Milliseconds(proto.interval_ms()),
          proto.min_copies(), proto.max_copies(),
          proto.hysteresis(), proto.byte_budget(),
          proto.min_tokens()};
}

PlacementPlan ReadPlan(const v1::PlacementPlan& proto) {
  PlacementPlan plan;
  plan.nodes = {proto.nodes().begin(), proto.nodes().end()};
  for (const v1::LayerPlacement& layer : proto.layers()) {
    plan.layers.push_back({layer.layer(),
                           {layer.copies_per_expert().begin(), layer.copies_per_expert().end()},
                           {layer.copy_nodes().begin(), layer.copy_nodes().end()},
                           {layer.copy_shares().begin(), layer.copy_shares().end()}});
  }
  return plan;
}

PlacementMoves ReadMoves(const v1::PlacementMoves& proto) {
  PlacementMoves moves;
  moves.phase = proto.phase();
  moves.waits_for = proto.waits_for();
  moves.copies_done = proto.copies_done();
  moves.copies_all = proto.copies_all();
  moves.bytes_done = proto.bytes_done();
  moves.bytes_all = proto.bytes_all();
  moves.bytes_per_second = proto.bytes_per_second();
  moves.last_error = proto.last_error();
  moves.moves_completed = proto.moves_completed();
  moves.moves_failed = proto.moves_failed();
  moves.repairs_completed = proto.repairs_completed();
  return moves;
}

}  // namespace

PlacementProposal ReadProposal(const v1::PlacementProposal& proto) {
  PlacementProposal proposal;
  proposal.apply = proto.apply();
  proposal.reason = proto.reason();
  proposal.plan = ReadPlan(proto.plan());
  for (const v1::LayerForecast& layer : proto.layers()) {
    proposal.layers.push_back({layer.layer(), layer.fullest_over_mean(), layer.lower_bound(),
                               layer.present_fullest_over_mean(), layer.changed()});
  }
  proposal.moves = {proto.moves().begin(), proto.moves().end()};
  proposal.move_count = proto.move_count();
  proposal.bytes_loaded = proto.bytes_loaded();
  proposal.bytes_freed = proto.bytes_freed();
  proposal.load_time = absl::Seconds(proto.load_seconds());
  return proposal;
}

PlacementState ReadPlacement(const v1::PlacementState& proto) {
  PlacementState placement;
  placement.epoch = proto.epoch();
  placement.policy = ReadPolicy(proto.policy());
  if (proto.has_plan()) {
    placement.plan = ReadPlan(proto.plan());
  }
  if (proto.has_last_proposal()) {
    placement.last_proposal = ReadProposal(proto.last_proposal());
  }
  placement.moves = ReadMoves(proto.moves());
  if (proto.has_since_planned_ms()) {
    placement.since_planned = absl::Milliseconds(proto.since_planned_ms());
  }
  if (proto.has_since_moved_ms()) {
    placement.since_moved = absl::Milliseconds(proto.since_moved_ms());
  }
  return placement;
}

v1::PlacementPolicy ToProto(const PlacementChange& change) {
  v1::PlacementPolicy policy;
  if (change.automatic) {
    policy.set_automatic(*change.automatic);
  }
  if (change.interval) {
    policy.set_interval_ms(WireMillis(*change.interval));
  }
  if (change.min_copies) {
    policy.set_min_copies(*change.min_copies);
  }
  if (change.max_copies) {
    policy.set_max_copies(*change.max_copies);
  }
  if (change.hysteresis) {
    policy.set_hysteresis(*change.hysteresis);
  }
  if (change.byte_budget) {
    policy.set_byte_budget(*change.byte_budget);
  }
  if (change.min_tokens) {
    policy.set_min_tokens(*change.min_tokens);
  }
  return policy;
}

v1::PlacementPlan ToProto(const PlacementPlan& plan) {
  v1::PlacementPlan proto;
  proto.mutable_nodes()->Add(plan.nodes.begin(), plan.nodes.end());
  for (const LayerPlacement& layer : plan.layers) {
    v1::LayerPlacement& written = *proto.add_layers();
    written.set_layer(layer.layer);
    written.mutable_copies_per_expert()->Add(layer.copies_per_expert.begin(),
                                             layer.copies_per_expert.end());
    written.mutable_copy_nodes()->Add(layer.copy_nodes.begin(), layer.copy_nodes.end());
    written.mutable_copy_shares()->Add(layer.copy_shares.begin(), layer.copy_shares.end());
  }
  return proto;
}

void ClearAges(v1::PlacementState* placement) {
  placement->clear_since_planned_ms();
  placement->clear_since_moved_ms();
  placement->mutable_moves()->clear_bytes_per_second();
}

}  // namespace expertmesh::client
