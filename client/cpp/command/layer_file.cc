#include "client/cpp/command/layer_file.h"

#include <cmath>
#include <limits>

#include "nlohmann/json.hpp"

namespace expertmesh::command {

absl::Status NoSuchFile(const JsonReader& reader, absl::string_view what, const absl::Status& why) {
  return reader.Error(absl::StrCat("this is ", what, ": ", why.message()));
}

absl::StatusOr<std::string> ReadOutline(const JsonReader& reader) {
  ASSIGN_OR_RETURN(std::string outline, reader.String("outline"));
  if (outline.empty()) {
    return reader.Error("outline is empty; it must be the model's");
  }
  return outline;
}

absl::StatusOr<std::vector<float>> ReadFloats(const JsonReader& reader, absl::string_view key,
                                              absl::string_view what) {
  ASSIGN_OR_RETURN(const nlohmann::json* const values, reader.Array(key));
  std::vector<float> floats;
  floats.reserve(values->size());
  for (const nlohmann::json& value : *values) {
    const double number =
        value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!std::isfinite(static_cast<float>(number))) {
      return reader.Error(absl::StrCat(
          key, "[", floats.size(), "] is no finite number of 32 bits; give one for each ", what));
    }
    floats.push_back(static_cast<float>(number));
  }
  return floats;
}

}  // namespace expertmesh::command
