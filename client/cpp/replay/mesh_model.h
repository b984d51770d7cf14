// A mesh that is simulated: its nodes, what they cost, and what happens to them.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_MESH_MODEL_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_MESH_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cpp/replay/load_source.h"
#include "common/balance/placement_plan.h"

namespace expertmesh::replay {

struct SimulatedNode {
  // Work that it does in a time, as a multiple of what ServiceTimes say.
  double speed = 1;
  // Time that a row takes on its link, as a multiple of what ServiceTimes say.
  double link = 1;
  // Part of the mesh at the beginning.
  bool present = true;
};

// What a batch of a layer waits for, in microseconds, on nodes of speed 1. FitServiceTimes takes
// them from a recording.
struct ServiceTimes {
  // One assignment through one expert.
  double assignment_us = 2;
  // An expert that a batch uses on a node, once: its weights are read.
  double expert_us = 25;
  // A batch on a node, however small.
  double batch_us = 60;
  // A row to a node and its partial back.
  double row_us = 0.5;
  // A token at the router: gate, plan, combine.
  double token_us = 0.3;
  // Router and two hops, however small the batch.
  double hop_us = 150;
};

// INVALID_ARGUMENT naming the time, its value and what is accepted.
absl::Status ValidateServiceTimes(const ServiceTimes& times);

struct MeshEvent {
  // kFail: the node and what it holds are gone. kJoin: it is there, and holds nothing.
  enum class Kind { kFail, kJoin };

  double at_s = 0;
  Kind kind = Kind::kFail;
  // Position in MeshModel::nodes.
  uint32_t node = 0;
};

// How the placement that all policies begin with is made.
enum class Deal {
  // Experts of all layers in turns, copies half a round apart.
  kTurns,
  // Each layer's in runs, as nodes with --shard and --replicas take them.
  kShards,
};

struct MeshModel {
  std::vector<SimulatedNode> nodes;
  // By time.
  std::vector<MeshEvent> events;
  ServiceTimes times;
  // Bytes of one expert on a node, for each layer of the load.
  std::vector<uint64_t> expert_bytes;
  // What a node has for experts.
  uint64_t node_memory_bytes = 0;
  // Bytes that each node loads in a second beside its work.
  double load_bytes_per_second = 1e9;
  // Copies of every expert in the placement that all policies begin with.
  uint32_t copies = 1;
  Deal deal = Deal::kTurns;
  // Nodes that can compute at the same time, for a mesh of more nodes than its machine has cores;
  // 0: all.
  uint32_t parallel_nodes = 0;
};

inline constexpr uint32_t kMaxSimulatedNodes = 4096;

// INVALID_ARGUMENT naming the field, its value and what is accepted; RESOURCE_EXHAUSTED when the
// first placement does not fit into the nodes.
absl::Status ValidateMeshModel(const MeshModel& mesh,
                               absl::Span<const balance::RecordedLayer> layers);

// The placement that all policies begin with, on the nodes that are present, with equal shares.
// Nodes are positions in MeshModel::nodes.
std::vector<balance::LayerPlacement> FirstPlacement(
    const MeshModel& mesh, absl::Span<const balance::RecordedLayer> layers);

// "node-7".
std::string SimulatedNodeId(uint32_t node);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_MESH_MODEL_H_
