// "normalizer" of a tokenizer.json.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/tokenizer_json.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

absl::Status AddNormalizer(const JsonReader& object, Normalizer* normalizer) {
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const std::vector<JsonReader> steps, object.Objects("normalizers"));
    for (const JsonReader& step : steps) {
      RETURN_IF_ERROR(AddNormalizer(step, normalizer));
    }
  } else if (type == "NFC") {
    normalizer->Add(Normalizer::Nfc());
  } else if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, object.String("prepend"));
    normalizer->Add(Normalizer::Prepend{std::move(prefix)});
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(Replacement replacement, ReadReplacement(object));
    normalizer->Add(std::move(replacement));
  } else {
    return object.Refuse("type", "NFC, Prepend, Replace, Sequence");
  }
  return object.Done();
}

}  // namespace

absl::StatusOr<std::string> ReadCharacter(const JsonReader& object, absl::string_view key) {
  ASSIGN_OR_RETURN(std::string text, object.String(key));
  if (text.empty() || FirstCharacter(text).size() != text.size()) {
    return object.Refuse(key, "a string of one character");
  }
  return text;
}

absl::StatusOr<Regex> ReadPattern(const JsonReader& object) {
  ASSIGN_OR_RETURN(const JsonReader pattern, object.Object("pattern"));
  const bool is_regex = pattern.Has("Regex");
  if (is_regex == pattern.Has("String")) {
    return object.Refuse("pattern", "{\"String\": ...} and {\"Regex\": ...}");
  }
  ASSIGN_OR_RETURN(const std::string text, pattern.String(is_regex ? "Regex" : "String"));
  RETURN_IF_ERROR(pattern.Done());
  absl::StatusOr<Regex> regex = is_regex ? Regex::Compile(text) : Regex::Literal(text);
  if (!regex.ok()) {
    return object.Refuse("pattern",
                         absl::StrCat("regular expressions that Oniguruma can read, but here: ",
                                      regex.status().message()));
  }
  return regex;
}

absl::StatusOr<Replacement> ReadReplacement(const JsonReader& object) {
  ASSIGN_OR_RETURN(Regex pattern, ReadPattern(object));
  ASSIGN_OR_RETURN(std::string content, object.String("content"));
  return Replacement{std::move(pattern), std::move(content)};
}

absl::StatusOr<Normalizer> ReadNormalizer(const JsonReader& file) {
  Normalizer normalizer;
  if (file.Has("normalizer")) {
    ASSIGN_OR_RETURN(const JsonReader object, file.Object("normalizer"));
    RETURN_IF_ERROR(AddNormalizer(object, &normalizer));
  }
  return normalizer;
}

}  // namespace expertmesh::tokenizer
