#include "common/balance/slot_table.h"

#include <algorithm>

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

// Slots of layers that have more than they need, on `node`, to one that has fewer. False: their
// bytes are not enough, and they keep them.
bool SlotTable::HelpOut(size_t layer, size_t node) {
  const auto surplus = [this](size_t of) {
    return totals_[of] - std::min(totals_[of], needed_[of]);
  };
  const auto give = [&](size_t helper) {
    --At(helper, node);
    --totals_[helper];
    free_[node] += input_->layers[helper].expert_bytes;
  };
  const auto take_back = [&](size_t helper) {
    ++At(helper, node);
    ++totals_[helper];
    free_[node] -= input_->layers[helper].expert_bytes;
  };
  const uint64_t bytes = input_->layers[layer].expert_bytes;
  helpers_.clear();
  while (free_[node] < bytes) {
    size_t helper = layer;
    for (size_t other = 0; other < input_->layers.size(); ++other) {
      if (other != layer && At(other, node) > 0 && surplus(other) > 0 &&
          (helper == layer || surplus(other) > surplus(helper))) {
        helper = other;
      }
    }
    if (helper == layer) {
      std::for_each(helpers_.begin(), helpers_.end(), take_back);
      return false;
    }
    give(helper);
    helpers_.push_back(helper);
  }
  ++At(layer, node);
  ++totals_[layer];
  free_[node] -= bytes;
  for (const size_t helper : helpers_) {  // The last may have been enough without it.
    if (input_->layers[helper].expert_bytes <= free_[node]) {
      take_back(helper);
    }
  }
  return true;
}

absl::Status SlotTable::Check(size_t layer) const {
  if (totals_[layer] >= needed_[layer]) {
    return absl::OkStatus();
  }
  double capacity = 0;
  for (const NodeToPlan& node : input_->nodes) {
    capacity += node.accepts_copies ? static_cast<double>(node.capacity_bytes) : 0;
  }
  const uint64_t elsewhere =
      (uint64_t{min_copies_} * input_->layers[layer].loads.size()) - needed_[layer];
  return absl::ResourceExhaustedError(absl::StrCat(
      "layer ", input_->layers[layer].layer, " needs room for ", needed_[layer], " copies (",
      input_->layers[layer].loads.size(), " experts, min_copies ", min_copies_,
      elsewhere > 0 ? absl::StrCat(", less ", elsewhere, " on nodes that accept no copies") : "",
      "), and the nodes have room for ", totals_[layer], " of them; capacity_bytes of nodes is ",
      capacity, " in all, one copy of all experts is ", model_bytes_,
      " bytes: add nodes or capacity, or lower min_copies"));
}

absl::Status SlotTable::Fill(const PlanningInput& input, uint32_t min_copies,
                             absl::Span<const uint32_t> held, absl::Span<const uint64_t> needed) {
  input_ = &input;
  min_copies_ = min_copies;
  needed_.assign(needed.begin(), needed.end());
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
  totals_.assign(input.layers.size(), 0);
  for (size_t i = 0; i < slots_.size(); ++i) {
    totals_[i / nodes_] += input.nodes[i % nodes_].accepts_copies ? slots_[i] : 0;
  }
  for (size_t layer = 0; layer < input.layers.size(); ++layer) {
    for (size_t node = 0; node < nodes_; ++node) {
      while (input.nodes[node].accepts_copies && totals_[layer] < needed_[layer] &&
             At(layer, node) < Most(layer, node) && HelpOut(layer, node)) {
      }
    }
    if (absl::Status status = Check(layer); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance
