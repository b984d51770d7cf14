// Files of JSON with something for each layer of a model: {"outline": ..., "layers": [{"layer":
// ..., ...}, ...], ...}. Errors name the file and the place in it.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_LAYER_FILE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_LAYER_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"

namespace expertmesh::command {

// `why`, after what the file ought to be: "no bias of `expertmesh balance export`", say.
absl::Status NoSuchFile(const JsonReader& reader, absl::string_view what, const absl::Status& why);

// The model that the file is for; not empty.
absl::StatusOr<std::string> ReadOutline(const JsonReader& reader);

// Numbers of `key`, finite in 32 bits, one for each `what`.
absl::StatusOr<std::vector<float>> ReadFloats(const JsonReader& reader, absl::string_view key,
                                              absl::string_view what);

// "layers", each by `read_layer`; they ascend by their `layer`.
template <typename Layer>
absl::StatusOr<std::vector<Layer>> ReadLayers(
    const JsonReader& reader, absl::StatusOr<Layer> (*read_layer)(const JsonReader& reader)) {
  std::vector<Layer> layers;
  ASSIGN_OR_RETURN(const std::vector<JsonReader> objects, reader.Objects("layers"));
  for (const JsonReader& object : objects) {
    ASSIGN_OR_RETURN(Layer layer, read_layer(object));
    if (!layers.empty() && layers.back().layer >= layer.layer) {
      return object.Error(absl::StrCat("layer is ", layer.layer, " after ", layers.back().layer,
                                       "; list each layer once, in ascending order"));
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_LAYER_FILE_H_
