#include "common/checkpoint/stored_dtype.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/checkpoint/families.h"

namespace expertmesh::checkpoint {
namespace {

// `name` begins with `usual`, which is `prefix` in this checkpoint.
std::string Renamed(absl::string_view name, absl::string_view usual, absl::string_view prefix) {
  return absl::StartsWith(name, usual) ? absl::StrCat(prefix, absl::StripPrefix(name, usual))
                                       : std::string(name);
}

// What tensors of this kind are called here.
std::vector<std::string> NamesOf(TensorKind kind, const ModelLayout& layout,
                                 absl::string_view prefix) {
  std::vector<std::string> names;
  for (const TensorDeclaration& tensor : layout.outer) {
    if (tensor.kind == kind) {
      names.push_back(Renamed(tensor.name, kModelPrefixes[0], prefix));
    }
  }
  for (const LayerLayout& layer : layout.layers) {
    const std::string usual = LayerPrefix(layout, layer);
    const std::string here = LayerPrefix(layout, layer, prefix);
    for (const TensorDeclaration& tensor : layer.tensors) {
      if (tensor.kind == kind) {
        names.push_back(Renamed(tensor.name, usual, here));
      }
    }
  }
  return names;
}

// An expert and the gate of the first MoE layer.
std::vector<std::string> NamesOfBlock(const ModelLayout& layout, const ChosenStorage& chosen) {
  const uint32_t layer = layout.model.layers.front().layer;
  const std::string prefix = MoePrefix(layout, layout.layers[layer], chosen.prefix);
  return {TensorName(prefix, chosen.storage->experts.up.name),
          TensorName(prefix, chosen.storage->gate)};
}

// The type of the first of these tensors that is there and not quantised.
bool FindType(const SafetensorsReader& tensors, const std::vector<std::string>& names,
              Dtype* dtype) {
  for (const std::string& name : names) {
    const auto found = tensors.tensors().find(name);
    if (found != tensors.tensors().end() && IsActivationDtype(found->second.dtype)) {
      *dtype = found->second.dtype;
      return true;
    }
  }
  return false;
}

}  // namespace

void ReadStoredDtype(const SafetensorsReader& tensors, const ChosenStorage& chosen,
                     const std::string& path, ModelLayout* layout) {
  Dtype stored = layout->model.dtype;
  const bool found =
      FindType(tensors, NamesOf(TensorKind::kEmbedding, *layout, chosen.prefix), &stored) ||
      FindType(tensors, NamesOf(TensorKind::kNorm, *layout, chosen.prefix), &stored) ||
      (!layout->dtype_known && FindType(tensors, NamesOfBlock(*layout, chosen), &stored));
  if (found && layout->dtype_known && stored != layout->model.dtype) {
    layout->warnings.push_back(absl::StrCat(
        path, ": dtype (or torch_dtype) says ", NameOf(layout->model.dtype),
        ", but embeddings or norms are stored as ", NameOf(stored),
        ", which counts. Correct the file, or say --compute-dtype to compute in another type"));
  }
  layout->model.dtype = stored;
}

}  // namespace expertmesh::checkpoint
