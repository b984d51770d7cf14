#include "client/cpp/command/bias_file.h"

#include <cstdint>
#include <utility>

#include "client/cpp/command/layer_file.h"
#include "common/base/durable_file.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

absl::StatusOr<client::LayerBias> ReadLayer(const JsonReader& reader) {
  client::LayerBias layer;
  ASSIGN_OR_RETURN(layer.layer, reader.Whole("layer"));
  ASSIGN_OR_RETURN(layer.values, ReadFloats(reader, "values", "expert"));
  RETURN_IF_ERROR(reader.Done());
  return layer;
}

absl::StatusOr<client::Bias> Read(const JsonReader& reader) {
  client::Bias bias;
  ASSIGN_OR_RETURN(bias.outline, ReadOutline(reader));
  const nlohmann::json* const epoch = reader.Find("epoch");
  if (epoch == nullptr || !epoch->is_number_unsigned()) {
    return reader.Error("epoch must be a whole number");
  }
  bias.epoch = epoch->get<uint64_t>();
  ASSIGN_OR_RETURN(bias.layers, ReadLayers<client::LayerBias>(reader, &ReadLayer));
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
  return bias.ok() ? std::move(bias)
                   : NoSuchFile(reader, "no bias of `expertmesh balance export`", bias.status());
}

}  // namespace expertmesh::command
