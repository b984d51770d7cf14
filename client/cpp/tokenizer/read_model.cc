// "model" and "added_tokens" of a tokenizer.json.
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/tokenizer_json.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<Bpe::Vocabulary> ReadVocabulary(const JsonReader& model) {
  ASSIGN_OR_RETURN(const JsonReader object, model.Object("vocab"));
  const json& vocab = *model.Find("vocab");
  Bpe::Vocabulary vocabulary;
  vocabulary.reserve(vocab.size());
  absl::flat_hash_set<uint32_t> ids;
  for (const auto& item : vocab.items()) {
    const json& id = item.value();
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxTokenId) {
      return absl::InvalidArgumentError(absl::StrCat(object.Place(), ": the id of ",
                                                     Quoted(item.key()), " is ",
                                                     id.dump(-1, ' ', true).substr(0, 100),
                                                     "; supported: whole numbers from 0 "
                                                     "to ",
                                                     kMaxTokenId));
    }
    if (!ids.insert(id.get<uint32_t>()).second) {
      return absl::InvalidArgumentError(absl::StrCat(object.Place(), ": ", Quoted(item.key()),
                                                     " has the id of another token, ",
                                                     id.get<uint32_t>()));
    }
    vocabulary.emplace(item.key(), id.get<uint32_t>());
  }
  return vocabulary;
}

// "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMerge(const json& value,
                                                              absl::string_view place) {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return std::pair(value[0].get<std::string>(), value[1].get<std::string>());
  }
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(place, " is ", value.dump(-1, ' ', true).substr(0, 200),
                   "; supported: \"a b\" with one space, and [\"a\", \"b\"]"));
}

absl::StatusOr<Merges> ReadMerges(const JsonReader& model) {
  ASSIGN_OR_RETURN(const json* const array, model.Array("merges"));
  Merges merges;
  merges.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    const json& value = array->at(i);
    // The first line of the files that came before this format.
    if (value.is_string() && absl::StartsWith(value.get_ref<const std::string&>(), "#version")) {
      continue;
    }
    ASSIGN_OR_RETURN(auto merge,
                     ReadMerge(value, absl::StrCat(model.Place("merges"), "[", i, "]")));
    merges.push_back(std::move(merge));
  }
  return merges;
}

absl::StatusOr<BpeOptions> ReadBpeOptions(const JsonReader& model) {
  if (const json* dropout = model.Find("dropout"); dropout != nullptr && *dropout != 0.0) {
    return model.Refuse("dropout", "null and 0");
  }
  for (const absl::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const json* affix = model.Find(key); affix != nullptr && *affix != "") {
      return model.Refuse(key, "null and \"\"");
    }
  }
  BpeOptions options;
  if (model.Has("unk_token")) {
    ASSIGN_OR_RETURN(options.unk_token, model.String("unk_token"));
  }
  ASSIGN_OR_RETURN(options.fuse_unk, model.BoolOr({"fuse_unk"}, false));
  ASSIGN_OR_RETURN(options.byte_fallback, model.BoolOr({"byte_fallback"}, false));
  ASSIGN_OR_RETURN(options.ignore_merges, model.BoolOr({"ignore_merges"}, false));
  return options;
}

}  // namespace

absl::StatusOr<Bpe> ReadModel(const JsonReader& file) {
  ASSIGN_OR_RETURN(const JsonReader model, file.Object("model"));
  // Old files of this kind have no type, but merges they have.
  if (model.Has("type") || !model.Has("merges")) {
    ASSIGN_OR_RETURN(const std::string type, model.String("type"));
    if (type != "BPE") {
      return model.Refuse("type", "BPE");
    }
  }
  ASSIGN_OR_RETURN(const BpeOptions options, ReadBpeOptions(model));
  ASSIGN_OR_RETURN(Bpe::Vocabulary vocabulary, ReadVocabulary(model));
  ASSIGN_OR_RETURN(const Merges merges, ReadMerges(model));
  RETURN_IF_ERROR(model.Done());
  absl::StatusOr<Bpe> bpe = Bpe::Create(std::move(vocabulary), merges, options);
  if (!bpe.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(model.Place("merges"), ": ", bpe.status().message()));
  }
  return bpe;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonReader& file) {
  std::vector<AddedToken> tokens;
  if (!file.Has("added_tokens")) {
    return tokens;
  }
  ASSIGN_OR_RETURN(const std::vector<JsonReader> objects, file.Objects("added_tokens"));
  absl::flat_hash_set<std::string> contents;
  for (const JsonReader& object : objects) {
    AddedToken token;
    ASSIGN_OR_RETURN(token.id, object.Whole("id", kMaxTokenId));
    ASSIGN_OR_RETURN(token.content, object.String("content"));
    ASSIGN_OR_RETURN(token.single_word, object.Bool("single_word"));
    ASSIGN_OR_RETURN(token.lstrip, object.Bool("lstrip"));
    ASSIGN_OR_RETURN(token.rstrip, object.Bool("rstrip"));
    ASSIGN_OR_RETURN(token.normalized, object.Bool("normalized"));
    ASSIGN_OR_RETURN(token.special, object.Bool("special"));
    RETURN_IF_ERROR(object.Done());
    if (token.content.empty() || !contents.insert(token.content).second) {
      return object.Refuse("content", "each token once, and none that is empty");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace expertmesh::tokenizer
