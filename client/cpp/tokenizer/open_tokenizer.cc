#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/bpe_tokenizer.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "common/base/status_macros.h"
#include "common/json/json_reader.h"
#include "common/json/json_text.h"

namespace expertmesh::tokenizer {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;

// Classes of transformers that put a begin and an end around a text by tokenizer_config.json, and
// not by tokenizer.json's post_processor; DeepSeek's models rely on it.
struct SelfTemplating {
  absl::string_view name;
  bool adds_begin;  // When add_bos_token does not say.
};
constexpr SelfTemplating kSelfTemplating[] = {{"LlamaTokenizer", true},
                                              {"LlamaTokenizerFast", true},
                                              {"GPTNeoXTokenizer", false},
                                              {"GPTNeoXTokenizerFast", false}};

// The token under `key`: a string, or an object with a content. Empty when there is none.
std::string TokenUnder(const nlohmann::json& config, const char* key, const char* fallback) {
  const auto found = config.find(key);
  if (found == config.end()) {
    return fallback;
  }
  const nlohmann::json& token =
      found->is_object() ? found->value("content", nlohmann::json()) : *found;
  return token.is_string() ? token.get<std::string>() : "";
}

std::optional<uint64_t> IdOf(const nlohmann::json& tokenizer, const std::string& token) {
  for (const nlohmann::json& added : tokenizer.value("added_tokens", nlohmann::json::array())) {
    if (added.is_object() && added.value("content", nlohmann::json()) == token &&
        added.value("id", nlohmann::json()).is_number_unsigned()) {
      return added["id"].get<uint64_t>();
    }
  }
  const nlohmann::json model = tokenizer.value("model", nlohmann::json::object());
  const auto vocabulary = model.is_object() ? model.find("vocab") : model.end();
  if (vocabulary == model.end() || !vocabulary->is_object() || !vocabulary->contains(token) ||
      !(*vocabulary)[token].is_number_unsigned()) {
    return std::nullopt;
  }
  return (*vocabulary)[token].get<uint64_t>();
}

// Puts the template that the class of `config` makes in place of the post_processor. `path` names
// the file of `config`.
absl::Status ReplaceTemplate(const nlohmann::json& config, const std::string& path,
                             nlohmann::json* tokenizer) {
  const std::string name = TokenUnder(config, "tokenizer_class", "");
  const auto* const known =
      std::find_if(std::begin(kSelfTemplating), std::end(kSelfTemplating),
                   [&](const SelfTemplating& entry) { return entry.name == name; });
  if (known == std::end(kSelfTemplating)) {
    return absl::OkStatus();
  }
  nlohmann::json single = nlohmann::json::array();
  nlohmann::json tokens = nlohmann::json::object();
  const auto add = [&](const char* flag, bool adds, const char* key, const char* fallback) {
    const nlohmann::json asked = config.value(flag, nlohmann::json());
    if (!(asked.is_boolean() ? asked.get<bool>() : adds)) {
      return absl::OkStatus();
    }
    const std::string token = TokenUnder(config, key, fallback);
    const std::optional<uint64_t> id = IdOf(*tokenizer, token);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": ", key, " is ", Quoted(token), ", which ", name,
          " puts around a text, and tokenizer.json has no such token; correct it or set ", flag,
          " to false"));
    }
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    tokens[token] = {{"id", token}, {"ids", {*id}}, {"tokens", {token}}};
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add("add_bos_token", known->adds_begin, "bos_token", "<s>"));
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  RETURN_IF_ERROR(add("add_eos_token", false, "eos_token", "</s>"));
  nlohmann::json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  (*tokenizer)["post_processor"] = {{"type", "TemplateProcessing"},
                                    {"single", single},
                                    {"pair", pair},
                                    {"special_tokens", tokens}};
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Create(nlohmann::json parsed, std::string source) {
  ASSIGN_OR_RETURN(const JsonReader file,
                   JsonReader::FromJson(std::move(parsed), std::move(source)));
  return BpeTokenizer::Create(file);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view json,
                                                          absl::string_view source) {
  ASSIGN_OR_RETURN(nlohmann::json parsed, ParseJson(json, source));
  return Create(std::move(parsed), std::string(source));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "tokenizer.json").string();
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat(
        text.status().message(),
        "; copy the model's tokenizer.json there. A model that comes without one gets it by "
        "transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"));
  }
  RETURN_IF_ERROR(text.status());
  ASSIGN_OR_RETURN(nlohmann::json parsed, ParseJson(*text, path));
  const std::string config_path =
      (std::filesystem::path(folder) / "tokenizer_config.json").string();
  std::error_code ignored;
  if (parsed.is_object() && std::filesystem::exists(config_path, ignored)) {
    ASSIGN_OR_RETURN(const std::string config_text, ReadSmallFile(config_path, kMaxFileBytes));
    ASSIGN_OR_RETURN(const nlohmann::json config, ParseJson(config_text, config_path));
    if (!config.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(config_path, ": must be an object"));
    }
    RETURN_IF_ERROR(ReplaceTemplate(config, config_path, &parsed));
  }
  return Create(std::move(parsed), path);
}

}  // namespace expertmesh::tokenizer
