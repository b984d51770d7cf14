// tokenizer.json texts for tests: a small one, and the same with parts of it exchanged.
#ifndef EXPERTMESH_TESTS_UNIT_CLIENT_TOKENIZER_SMALL_TOKENIZER_H_
#define EXPERTMESH_TESTS_UNIT_CLIENT_TOKENIZER_SMALL_TOKENIZER_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::tokenizer {

// Characters "a", "b", "c", "▁", "é", merged to "ab" and "abc", and the special token "<s>".
inline nlohmann::json SmallTokenizer() {
  return nlohmann::json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 7, "content": "<s>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
              "continuing_subword_prefix": null, "end_of_word_suffix": null,
              "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "▁": 3, "é": 4, "ab": 5, "abc": 6},
              "merges": [["a", "b"], ["ab", "c"]]}})");
}

// The value at `pointer` ("/model/dropout") becomes `value`.
inline nlohmann::json With(nlohmann::json file, const std::string& pointer, nlohmann::json value) {
  file[nlohmann::json::json_pointer(pointer)] = std::move(value);
  return file;
}

inline absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const nlohmann::json& file) {
  return ParseTokenizer(file.dump(), "t.json");
}

inline std::unique_ptr<Tokenizer> Parsed(const nlohmann::json& file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Parse(file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_TESTS_UNIT_CLIENT_TOKENIZER_SMALL_TOKENIZER_H_
