#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/bpe_tokenizer.h"
#include "client/cpp/tokenizer/json_object.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view json,
                                                          absl::string_view source) {
  ASSIGN_OR_RETURN(const nlohmann::json parsed, ParseJson(json, source));
  ASSIGN_OR_RETURN(JsonObject file, JsonObject::Of(parsed, source, ""));
  return BpeTokenizer::Create(std::move(file));
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
  return ParseTokenizer(*text, path);
}

}  // namespace expertmesh
