// The parts of a tokenizer.json, each read into what does its work. What is not supported is
// refused with INVALID_ARGUMENT, which names the key, its value and what is supported.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/tokenizer/added_tokens.h"
#include "client/cpp/tokenizer/bpe.h"
#include "client/cpp/tokenizer/json_object.h"
#include "client/cpp/tokenizer/normalizer.h"
#include "client/cpp/tokenizer/pre_tokenizer.h"
#include "client/cpp/tokenizer/token_decoder.h"

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
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(JsonObject* file);
absl::StatusOr<Normalizer> ReadNormalizer(JsonObject* file);
absl::StatusOr<PreTokenizer> ReadPreTokenizer(JsonObject* file);
absl::StatusOr<TextTemplate> ReadPostProcessor(JsonObject* file);
absl::StatusOr<DecoderPlan> ReadDecoder(JsonObject* file);
absl::StatusOr<Bpe> ReadModel(JsonObject* file);

// Normalizer and decoder have it alike: {"type": "Replace", "pattern": ..., "content": ...}.
absl::StatusOr<Replacement> ReadReplacement(JsonObject* object);
// {"String": "x"} or {"Regex": "x+"}, in the key "pattern".
absl::StatusOr<Regex> ReadPattern(JsonObject* object);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_JSON_H_
