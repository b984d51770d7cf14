// The parts of a tokenizer.json, each read into what does its work. What is not supported is
// refused with INVALID_ARGUMENT, which names the key, its value and what is supported.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/tokenizer/added_tokens.h"
#include "client/cpp/tokenizer/bpe.h"
#include "client/cpp/tokenizer/normalizer.h"
#include "client/cpp/tokenizer/pre_tokenizer.h"
#include "client/cpp/tokenizer/token_decoder.h"
#include "common/json/json_reader.h"

namespace expertmesh::tokenizer {

// Ids are rows of a model's embedding: this many are more than any has, and fit into memory.
inline constexpr uint32_t kMaxTokenId = (1u << 24) - 1;

// What is put around a text: ids, or the text itself where there is none. "post_processor".
struct TextTemplate {
  struct Part {
    bool is_text = false;
    std::vector<uint32_t> ids;
  };
  std::vector<Part> parts = {{true, {}}};
};

// `file` is the whole of the file.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonReader& file);
absl::StatusOr<Normalizer> ReadNormalizer(const JsonReader& file);
absl::StatusOr<PreTokenizer> ReadPreTokenizer(const JsonReader& file);
absl::StatusOr<TextTemplate> ReadPostProcessor(const JsonReader& file);
absl::StatusOr<DecoderPlan> ReadDecoder(const JsonReader& file);
absl::StatusOr<Bpe> ReadModel(const JsonReader& file);

// Normalizer and decoder have it alike: {"type": "Replace", "pattern": ..., "content": ...}.
absl::StatusOr<Replacement> ReadReplacement(const JsonReader& object);
// A string of one character.
absl::StatusOr<std::string> ReadCharacter(const JsonReader& object, absl::string_view key);
// {"String": "x"} or {"Regex": "x+"}, in the key "pattern".
absl::StatusOr<Regex> ReadPattern(const JsonReader& object);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_
