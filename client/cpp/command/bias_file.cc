#include "client/cpp/command/bias_file.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/durable_file.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

absl::Status NoBias(const JsonReader& reader, const absl::Status& why) {
  return reader.Error(
      absl::StrCat("this is no bias of `expertmesh balance export`: ", why.message()));
}

absl::StatusOr<client::LayerBias> ReadLayer(const JsonReader& reader) {
  client::LayerBias layer;
  ASSIGN_OR_RETURN(layer.layer, reader.Whole("layer"));
  ASSIGN_OR_RETURN(const nlohmann::json* const values, reader.Array("values"));
  layer.values.reserve(values->size());
  for (const nlohmann::json& value : *values) {
    const double number =
        value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!std::isfinite(static_cast<float>(number))) {
      return reader.Error(absl::StrCat("values[", layer.values.size(),
                                       "] is no finite number of 32 bits; give one for each "
                                       "expert"));
    }
    layer.values.push_back(static_cast<float>(number));
  }
  RETURN_IF_ERROR(reader.Done());
  return layer;
}

absl::StatusOr<client::Bias> Read(const JsonReader& reader) {
  client::Bias bias;
  ASSIGN_OR_RETURN(bias.outline, reader.String("outline"));
  const nlohmann::json* const epoch = reader.Find("epoch");
  if (bias.outline.empty() || epoch == nullptr || !epoch->is_number_unsigned()) {
    return reader.Error("outline must be the model's, and epoch a whole number");
  }
  bias.epoch = epoch->get<uint64_t>();
  ASSIGN_OR_RETURN(const std::vector<JsonReader> layers, reader.Objects("layers"));
  for (const JsonReader& layer : layers) {
    ASSIGN_OR_RETURN(client::LayerBias read, ReadLayer(layer));
    if (!bias.layers.empty() && bias.layers.back().layer >= read.layer) {
      return layer.Error(absl::StrCat("layer is ", read.layer, " after ", bias.layers.back().layer,
                                      "; list each layer once, in ascending order"));
    }
    bias.layers.push_back(std::move(read));
  }
  RETURN_IF_ERROR(reader.Done());
  return bias;
}

}  // namespace

absl::Status WriteBias(const std::string& path, const client::Bias& bias) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerBias& layer : bias.layers) {
    layers.push_back({{"layer", layer.layer}, {"values", layer.values}});
  }
  const nlohmann::json json = {
      {"outline", bias.outline}, {"epoch", bias.epoch}, {"layers", std::move(layers)}};
  return WriteDurably(path, json.dump() + "\n");
}

absl::StatusOr<client::Bias> ReadBias(const std::string& path) {
  ASSIGN_OR_RETURN(const JsonReader reader, JsonReader::FromFile(path));
  absl::StatusOr<client::Bias> bias = Read(reader);
  return bias.ok() ? std::move(bias) : NoBias(reader, bias.status());
}

}  // namespace expertmesh::command
