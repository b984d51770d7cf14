#include "common/checkpoint/weight_index.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_header.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

// A checkpoint must not be able to name files elsewhere on the machine.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

}  // namespace

absl::StatusOr<WeightIndex> ReadWeightIndex(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxSafetensorsHeaderBytes));
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  const auto map = json.find("weight_map");
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map must be an object"));
  }
  WeightIndex index;
  for (const auto& item : map->items()) {
    if (!item.value().is_string() || !IsPlainFileName(item.value().get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": weight_map of tensor ", Quoted(item.key()),
                       " must be the name of a file in this folder, not ",
                       Quoted(item.value().dump(-1, ' ', true))));
    }
    index.emplace(item.key(), item.value().get_ref<const std::string&>());
  }
  if (index.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map names no tensor"));
  }
  return index;
}

std::vector<std::string> FilesOf(const WeightIndex& index) {
  std::vector<std::string> files;
  for (const auto& [tensor, file] : index) {
    files.push_back(file);
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

void Findings::Report(absl::string_view source, std::vector<std::string>* warnings) const {
  if (count_ > 0) {
    warnings->push_back(
        absl::StrCat(source, " ", first_,
                     count_ > 1 ? absl::StrCat(" (and ", count_ - 1, " more like it)") : ""));
  }
}

}  // namespace expertmesh::checkpoint
