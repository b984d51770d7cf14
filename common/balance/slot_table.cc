#include "common/balance/slot_table.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace expertmesh::balance {

uint32_t SlotTable::Most(size_t layer, size_t node) const {
  const auto experts = static_cast<uint32_t>(input_->layers[layer].loads.size());
  const uint32_t slots = input_->nodes[node].slots_per_layer;
  return slots == 0 ? experts : std::min(slots, experts);
}

// As many as it may have, if its bytes are enough for that.
bool SlotTable::FillBySlots(size_t node) {
  uint64_t left = input_->nodes[node].capacity_bytes;
  for (size_t layer = 0; layer < input_->layers.size(); ++layer) {
    const uint64_t bytes = input_->layers[layer].expert_bytes;
    if (Most(layer, node) > left / bytes) {
      return false;
    }
    left -= Most(layer, node) * bytes;
  }
  for (size_t layer = 0; layer < input_->layers.size(); ++layer) {
    At(layer, node) = Most(layer, node);
  }
  free_[node] = left;
  return true;
}

void SlotTable::FillByBytes(size_t node, absl::Span<const uint32_t> held) {
  const std::vector<LayerToPlan>& layers = input_->layers;
  const auto capacity = static_cast<double>(input_->nodes[node].capacity_bytes);
  uint64_t left = input_->nodes[node].capacity_bytes;
  const auto give = [&](size_t layer, uint64_t wanted) {
    const uint64_t before = At(layer, node);
    const uint64_t more =
        std::min({wanted - std::min(wanted, before),
                  Most(layer, node) - std::min<uint64_t>(before, Most(layer, node)),
                  left / layers[layer].expert_bytes});
    At(layer, node) += static_cast<uint32_t>(more);
    left -= more * layers[layer].expert_bytes;
    return more > 0;
  };
  const auto quota = [&](size_t layer) {
    return static_cast<uint64_t>(capacity / model_bytes_ *
                                 static_cast<double>(layers[layer].loads.size()));
  };
  double held_bytes = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    held_bytes += static_cast<double>(held[(layer * nodes_) + node]) *
                  static_cast<double>(layers[layer].expert_bytes);
  }
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const uint64_t here = held[(layer * nodes_) + node];
    give(layer, held_bytes <= capacity ? here : std::min(here, quota(layer)));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t layer = (turn_ + i) % layers.size();
    give(layer, quota(layer));
  }
  // The layer that finds no bytes left has the first turn on the next node.
  bool given = true;
  while (given) {
    given = false;
    for (size_t i = 0; i < layers.size() && left >= layers[turn_].expert_bytes; ++i) {
      given = give(turn_, uint64_t{At(turn_, node)} + 1) || given;
      turn_ = (turn_ + 1) % layers.size();
    }
  }
  free_[node] = left;
}

void SlotTable::CountSlots() {
  zone_count_ = size_t{*std::max_element(zones_.begin(), zones_.end())} + 1;
  open_.assign(zone_count_, 0);
  totals_.assign(input_->layers.size() * zone_count_, 0);
  for (size_t node = 0; node < nodes_; ++node) {
    if (input_->nodes[node].accepts_copies) {
      open_[zones_[node]] = 1;
      for (size_t layer = 0; layer < input_->layers.size(); ++layer) {
        totals_[(layer * zone_count_) + zones_[node]] += At(layer, node);
      }
    }
  }
}

uint64_t SlotTable::Total(size_t layer) const {
  const auto first = totals_.begin() + static_cast<ptrdiff_t>(layer * zone_count_);
  return std::accumulate(first, first + static_cast<ptrdiff_t>(zone_count_), uint64_t{0});
}

// Slots that the layer has too few, where it can use them: two copies of an expert in one zone may
// be one too many.
uint64_t SlotTable::Short(size_t layer) const {
  const SlotNeeds& needs = needs_[layer];
  uint64_t usable = 0;
  uint64_t missing = 0;
  for (size_t zone = 0; zone < zone_count_; ++zone) {
    const uint64_t slots = totals_[(layer * zone_count_) + zone];
    const uint64_t without = needs.without.empty() ? slots : needs.without[zone];
    usable += needs.in_each_zone ? slots : std::min(slots, without);
    missing += needs.in_each_zone && open_[zone] != 0 ? without - std::min(slots, without) : 0;
  }
  return std::max(missing, needs.copies - std::min(needs.copies, usable));
}

void SlotTable::AddSlot(size_t layer, size_t node) {
  ++At(layer, node);
  ++totals_[(layer * zone_count_) + zones_[node]];
  free_[node] -= input_->layers[layer].expert_bytes;
}

void SlotTable::RemoveSlot(size_t layer, size_t node) {
  --At(layer, node);
  --totals_[(layer * zone_count_) + zones_[node]];
  free_[node] += input_->layers[layer].expert_bytes;
}

// The layer is less short for a slot more.
bool SlotTable::Shortens(size_t layer, size_t node) {
  const uint64_t before = Short(layer);
  uint64_t& slots = totals_[(layer * zone_count_) + zones_[node]];
  ++slots;
  const uint64_t after = Short(layer);
  --slots;
  return after < before;
}

bool SlotTable::MayGive(size_t layer, size_t node) {
  if (At(layer, node) == 0 || Total(layer) <= needs_[layer].copies) {
    return false;
  }
  uint64_t& slots = totals_[(layer * zone_count_) + zones_[node]];
  --slots;
  const bool is_short = Short(layer) > 0;
  ++slots;
  return !is_short;
}

// Slots of layers that have more than they need, on `node`, to one that has fewer. False: their
// bytes are not enough, and they keep them.
bool SlotTable::HelpOut(size_t layer, size_t node) {
  const uint64_t bytes = input_->layers[layer].expert_bytes;
  helpers_.clear();
  while (free_[node] < bytes) {
    size_t helper = layer;
    uint64_t most = 0;
    for (size_t other = 0; other < input_->layers.size(); ++other) {
      const uint64_t total = Total(other);
      const uint64_t surplus = total - std::min(total, needs_[other].copies);
      if (other != layer && surplus > most && MayGive(other, node)) {
        helper = other;
        most = surplus;
      }
    }
    if (helper == layer) {
      for (const size_t taken : helpers_) {
        AddSlot(taken, node);
      }
      return false;
    }
    RemoveSlot(helper, node);
    helpers_.push_back(helper);
  }
  AddSlot(layer, node);
  for (const size_t helper : helpers_) {  // The last may have been enough without it.
    if (input_->layers[helper].expert_bytes <= free_[node]) {
      AddSlot(helper, node);
    }
  }
  return true;
}

absl::Status SlotTable::Check(size_t layer) const {
  if (Total(layer) >= needs_[layer].copies) {
    return absl::OkStatus();
  }
  double capacity = 0;
  for (const NodeToPlan& node : input_->nodes) {
    capacity += node.accepts_copies ? static_cast<double>(node.capacity_bytes) : 0;
  }
  const uint64_t elsewhere =
      (uint64_t{min_copies_} * input_->layers[layer].loads.size()) - needs_[layer].copies;
  return absl::ResourceExhaustedError(absl::StrCat(
      "layer ", input_->layers[layer].layer, " needs room for ", needs_[layer].copies, " copies (",
      input_->layers[layer].loads.size(), " experts, min_copies ", min_copies_,
      elsewhere > 0 ? absl::StrCat(", less ", elsewhere, " on nodes that accept no copies") : "",
      "), and the nodes have room for ", Total(layer), " of them; capacity_bytes of nodes is ",
      capacity, " in all, one copy of all experts is ", model_bytes_,
      " bytes: add nodes or capacity, or lower min_copies"));
}

absl::Status SlotTable::Fill(const PlanningInput& input, uint32_t min_copies,
                             absl::Span<const uint32_t> zones, absl::Span<const uint32_t> held,
                             absl::Span<const SlotNeeds> needs) {
  input_ = &input;
  min_copies_ = min_copies;
  needs_ = needs;
  zones_ = zones;
  nodes_ = input.nodes.size();
  model_bytes_ = 0;
  turn_ = 0;
  for (const LayerToPlan& layer : input.layers) {
    model_bytes_ +=
        static_cast<double>(layer.expert_bytes) * static_cast<double>(layer.loads.size());
  }
  slots_.assign(input.layers.size() * nodes_, 0);
  free_.assign(nodes_, 0);
  for (size_t node = 0; node < nodes_; ++node) {
    if (!input.nodes[node].accepts_copies) {
      for (size_t layer = 0; layer < input.layers.size(); ++layer) {
        At(layer, node) = held[(layer * nodes_) + node];
      }
    } else if (!FillBySlots(node)) {
      FillByBytes(node, held);
    }
  }
  CountSlots();
  for (size_t layer = 0; layer < input.layers.size(); ++layer) {
    for (size_t node = 0; node < nodes_ && Short(layer) > 0; ++node) {
      while (input.nodes[node].accepts_copies && At(layer, node) < Most(layer, node) &&
             Shortens(layer, node) && HelpOut(layer, node)) {
      }
    }
    if (absl::Status status = Check(layer); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance
