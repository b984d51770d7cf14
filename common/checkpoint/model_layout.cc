#include "common/checkpoint/model_layout.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/checkpoint/families.h"

namespace expertmesh::checkpoint {
namespace {

using Visitor = absl::FunctionRef<void(const TensorDeclaration&)>;

uint64_t Elements(const std::vector<uint64_t>& shape) {
  uint64_t product = 1;
  for (const uint64_t extent : shape) {
    product *= extent;
  }
  return product;
}

// The tensors of one place: one, or one for each of `experts`.
void VisitPlace(const TensorPlace& place, const std::string& prefix, uint32_t experts,
                TensorDeclaration tensor, Visitor visit) {
  if (place.empty()) {
    return;
  }
  if (place.stacking == Stacking::kLeading) {
    tensor.shape.insert(tensor.shape.begin(), experts);
  } else if (place.stacking == Stacking::kRows) {
    tensor.shape.front() *= experts;
  }
  const uint32_t count = place.stacking == Stacking::kPerExpert ? experts : 1;
  for (uint32_t expert = 0; expert < count; ++expert) {
    tensor.name = TensorName(prefix, place.name, expert);
    visit(tensor);
  }
}

void VisitMatrix(const TensorPlace& place, const std::string& prefix, uint32_t experts,
                 uint64_t outputs, uint64_t inputs, bool routed, Visitor visit) {
  TensorDeclaration tensor;
  tensor.shape = {place.halved() ? 2 * outputs : outputs, inputs};
  if (place.transposed) {
    std::swap(tensor.shape[0], tensor.shape[1]);
  }
  tensor.inputs = inputs;
  tensor.routed_expert = routed;
  tensor.encoding = place.encoding;
  VisitPlace(place, prefix, experts, std::move(tensor), visit);
}

void VisitBias(const TensorPlace& place, const std::string& prefix, uint32_t experts,
               uint64_t outputs, bool routed, Visitor visit) {
  TensorDeclaration tensor;
  tensor.shape = {place.halved() ? 2 * outputs : outputs};
  tensor.kind = TensorKind::kBias;
  tensor.routed_expert = routed;
  VisitPlace(place, prefix, experts, std::move(tensor), visit);
}

void VisitExperts(const ExpertPlaces& places, const std::string& prefix, uint32_t experts,
                  uint64_t d_model, uint64_t width, bool routed, Visitor visit) {
  // Gate and up may lie in one tensor.
  if (places.gate.name != places.up.name) {
    VisitMatrix(places.gate, prefix, experts, width, d_model, routed, visit);
    VisitBias(places.gate_bias, prefix, experts, width, routed, visit);
  }
  VisitMatrix(places.up, prefix, experts, width, d_model, routed, visit);
  VisitBias(places.up_bias, prefix, experts, width, routed, visit);
  VisitMatrix(places.down, prefix, experts, d_model, width, routed, visit);
  VisitBias(places.down_bias, prefix, experts, d_model, routed, visit);
}

void VisitMoeLayer(const Storage& storage, const std::string& prefix,
                   const MoeLayerDescription& layer, Visitor visit) {
  const uint64_t d_model = layer.expert.d_model;
  const uint64_t experts = layer.routing.num_experts;
  visit({TensorName(prefix, storage.gate), {experts, d_model}, TensorKind::kPlainLinear, d_model});
  if (layer.routing.logit_bias) {
    visit({TensorName(prefix, storage.logit_bias), {experts}, TensorKind::kBias});
  }
  if (layer.routing.select_bias) {
    std::vector<uint64_t> shape = {experts};
    if (storage.select_bias_is_row) {
      shape.insert(shape.begin(), 1);
    }
    visit({TensorName(prefix, storage.select_bias), std::move(shape), TensorKind::kSelectBias});
  }
  if (layer.shared_intermediate_size > 0) {
    VisitExperts(storage.shared, prefix, 1, d_model, layer.shared_intermediate_size, false, visit);
  }
  if (layer.shared_gate) {
    visit(
        {TensorName(prefix, storage.shared_gate), {1, d_model}, TensorKind::kPlainLinear, d_model});
  }
  VisitExperts(storage.experts, prefix, layer.routing.num_experts, d_model,
               layer.expert.intermediate_size, true, visit);
}

}  // namespace

std::string LayerPrefix(const ModelLayout& layout, const LayerLayout& layer,
                        absl::string_view prefix) {
  return absl::StrReplaceAll(layout.family->stacks[layer.stack].layer,
                             {{"{model}", prefix}, {"{layer}", absl::StrCat(layer.index)}});
}

std::string MoePrefix(const ModelLayout& layout, const LayerLayout& layer,
                      absl::string_view prefix) {
  return absl::StrCat(LayerPrefix(layout, layer, prefix), layout.family->stacks[layer.stack].moe);
}

std::string TensorName(absl::string_view prefix, absl::string_view name, uint32_t expert) {
  return absl::StrCat(prefix, absl::StrReplaceAll(name, {{"{expert}", absl::StrCat(expert)}}));
}

void ForEachTensor(const ModelLayout& layout, const Storage& storage, Visitor visit) {
  for (const TensorDeclaration& tensor : layout.outer) {
    visit(tensor);
  }
  auto moe = layout.model.layers.begin();
  for (uint32_t layer = 0; layer < layout.layers.size(); ++layer) {
    for (const TensorDeclaration& tensor : layout.layers[layer].tensors) {
      visit(tensor);
    }
    if (moe != layout.model.layers.end() && moe->layer == layer) {
      VisitMoeLayer(storage, MoePrefix(layout, layout.layers[layer]), *moe, visit);
      ++moe;
    }
  }
}

void ForEachTensor(const ModelLayout& layout, Visitor visit) {
  ForEachTensor(layout, layout.family->storages[0], visit);
}

ParameterCounts CountParameters(const ModelLayout& layout) {
  ParameterCounts counts;
  ForEachTensor(layout, [&](const TensorDeclaration& tensor) {
    const uint64_t elements = Elements(tensor.shape);
    counts.total += elements;
    counts.routed_experts += tensor.routed_expert ? elements : 0;
  });
  counts.active = counts.total - counts.routed_experts;
  for (const MoeLayerDescription& layer : layout.model.layers) {
    counts.per_expert = layer.expert.parameters();
    counts.active += layer.routing.top_k * counts.per_expert;
  }
  return counts;
}

}  // namespace expertmesh::checkpoint
