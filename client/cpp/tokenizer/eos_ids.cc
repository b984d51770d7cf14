#include "client/cpp/tokenizer/eos_ids.h"

#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/json_object.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh {
namespace {

using nlohmann::json;

// Chat templates are in these files, and some are long.
constexpr size_t kMaxFileBytes = size_t{16} << 20;

// Null when there is no such file.
absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) {
    return json();
  }
  RETURN_IF_ERROR(text.status());
  return ParseJson(*text, path);
}

// A number or a list of them. Nothing when the key is missing or null.
absl::StatusOr<std::vector<uint32_t>> IdsOf(JsonObject* object) {
  const json* value = object->Find("eos_token_id");
  std::vector<uint32_t> ids;
  if (value == nullptr) {
    return ids;
  }
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return object->Refuse("eos_token_id", "an id or a list of ids");
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

// "eos_token": "</s>" or {"content": "</s>", ...}.
absl::StatusOr<std::vector<uint32_t>> IdsOfToken(JsonObject* object, const Tokenizer& tokenizer) {
  const json* value = object->Find("eos_token");
  if (value == nullptr) {
    return std::vector<uint32_t>();
  }
  if (value->is_object()) {
    const auto content = value->find("content");
    value = content == value->end() ? value : &*content;
  }
  const std::optional<uint32_t> id =
      value->is_string() ? tokenizer.TokenId(value->get_ref<const std::string&>()) : std::nullopt;
  if (!id.has_value()) {
    return object->Refuse("eos_token", "a token of tokenizer.json");
  }
  return std::vector<uint32_t>{*id};
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> ReadEosIds(const std::string& folder,
                                                 const Tokenizer& tokenizer) {
  for (const absl::string_view name :
       {"generation_config.json", "config.json", "tokenizer_config.json"}) {
    const std::string path = (std::filesystem::path(folder) / std::string(name)).string();
    ASSIGN_OR_RETURN(const json content, ReadJsonFile(path));
    if (content.is_null()) {
      continue;
    }
    ASSIGN_OR_RETURN(JsonObject object, JsonObject::Of(content, path, ""));
    absl::StatusOr<std::vector<uint32_t>> ids =
        name == "tokenizer_config.json" ? IdsOfToken(&object, tokenizer) : IdsOf(&object);
    if (!ids.ok() || !ids->empty()) {
      return ids;
    }
  }
  return std::vector<uint32_t>();
}

}  // namespace expertmesh
