// How many experts of each layer a node has room for: its capacity, divided between layers.
#ifndef EXPERTMESH_COMMON_BALANCE_SLOT_TABLE_H_
#define EXPERTMESH_COMMON_BALANCE_SLOT_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::balance {

// What a layer needs of the nodes that accept copies.
struct SlotNeeds {
  uint64_t copies = 0;
  // [zones] Experts that have no copy yet in the zone on a node that accepts none. Empty: zones are
  // alike.
  std::vector<uint32_t> without;
  // Every one of them must have a copy in each zone that accepts copies; false: its copies are in
  // different zones.
  bool in_each_zone = false;
};

class SlotTable {
 public:
  // `zones`: [nodes], numbers from 0. `held`: [layers, nodes], how many experts nodes hold.
  // `needs`: [layers]. RESOURCE_EXHAUSTED naming a layer when nodes have not room for so many
  // copies; where they have, and not in the zones that it needs, what there is.
  //
  // A node keeps slots for what it holds, as far as its capacity goes; the rest goes to layers as
  // they need it, in turns, so that a capacity of less than one expert of each layer is used, too.
  // Layers that are short then get slots of those that have more than they need.
  absl::Status Fill(const PlanningInput& input, uint32_t min_copies,
                    absl::Span<const uint32_t> zones, absl::Span<const uint32_t> held,
                    absl::Span<const SlotNeeds> needs);

  // [nodes]
  absl::Span<const uint32_t> OfLayer(size_t layer) const {
    return absl::MakeConstSpan(slots_).subspan(layer * nodes_, nodes_);
  }

 private:
  uint32_t& At(size_t layer, size_t node) { return slots_[(layer * nodes_) + node]; }
  uint32_t Most(size_t layer, size_t node) const;
  bool FillBySlots(size_t node);
  void FillByBytes(size_t node, absl::Span<const uint32_t> held);
  void CountSlots();
  uint64_t Total(size_t layer) const;
  uint64_t Short(size_t layer) const;
  void AddSlot(size_t layer, size_t node);
  void RemoveSlot(size_t layer, size_t node);
  bool Shortens(size_t layer, size_t node);
  bool MayGive(size_t layer, size_t node);
  bool HelpOut(size_t layer, size_t node);
  absl::Status Check(size_t layer) const;

  const PlanningInput* input_ = nullptr;
  uint32_t min_copies_ = 1;
  size_t nodes_ = 0;
  double model_bytes_ = 0;
  size_t turn_ = 0;
  std::vector<uint32_t> slots_;  // [layers, nodes]
  // Those that Fill() was called with, until it returns.
  absl::Span<const SlotNeeds> needs_;
  absl::Span<const uint32_t> zones_;
  size_t zone_count_ = 0;
  std::vector<uint8_t> open_;     // [zones] Nonzero: accepts copies.
  std::vector<uint64_t> totals_;  // [layers, zones] On nodes that accept copies.
  std::vector<size_t> helpers_;
  std::vector<uint64_t> free_;  // [nodes] Bytes.
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_SLOT_TABLE_H_
