#include "common/checkpoint/model_config.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"

namespace expertmesh::checkpoint {

absl::StatusOr<ModelLayout> ReadModelLayoutFrom(const std::string& path) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  ASSIGN_OR_RETURN(
      const JsonReader config,
      JsonReader::FromFile(is_folder ? absl::StrCat(absl::StripSuffix(path, "/"), "/config.json")
                                     : path));
  return ReadModelLayout(config);
}

absl::StatusOr<ModelDescription> ReadModelDescription(const std::string& path) {
  ASSIGN_OR_RETURN(ModelLayout layout, ReadModelLayoutFrom(path));
  return std::move(layout.model);
}

}  // namespace expertmesh::checkpoint
