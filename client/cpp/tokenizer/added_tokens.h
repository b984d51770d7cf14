// Tokens that are looked for in a text as they are, before anything else is done to it: the
// "added_tokens" of a tokenizer.json, such as <|endoftext|>.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_ADDED_TOKENS_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/tokenizer/normalizer.h"
#include "client/cpp/tokenizer/regex.h"

namespace expertmesh::tokenizer {

struct AddedToken {
  uint32_t id = 0;
  std::string content;
  bool single_word = false;  // Only where no letter or digit touches it.
  bool lstrip = false;       // Takes the white space before it.
  bool rstrip = false;       // Takes the white space behind it.
  bool normalized = false;   // Is looked for, normalized, in the normalized text.
  bool special = false;
};

// A part of a text: one token, or text without any of those that were looked for.
struct TextPart {
  ByteRange range;
  std::optional<uint32_t> id;
};

// Finds some tokens: of those that begin at the same place the longest, from left to right.
// Immutable once filled, hence thread-safe.
class TokenFinder {
 public:
  // `written` is what is looked for; of two that are equal the first counts. INVALID_ARGUMENT when
  // it is empty.
  absl::Status Add(const AddedToken& token, absl::string_view written);

  // The parts of `text`, which is UTF-8. None is empty.
  absl::StatusOr<std::vector<TextPart>> Find(absl::string_view text) const;

 private:
  // A node of the tree of all that is looked for, by bytes.
  struct Node {
    absl::flat_hash_map<uint8_t, uint32_t> next;
    std::optional<size_t> token;
  };
  struct Match {
    size_t token;
    size_t bytes;
  };
  std::optional<Match> LongestAt(absl::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

// Immutable, hence thread-safe.
class AddedTokens {
 public:
  static absl::StatusOr<AddedTokens> Create(const std::vector<AddedToken>& tokens,
                                            const Normalizer& normalizer);

  const TokenFinder& in_text() const { return in_text_; }
  // To be used on the parts that are left, once normalized.
  const TokenFinder& in_normalized_text() const { return in_normalized_text_; }

 private:
  TokenFinder in_text_;
  TokenFinder in_normalized_text_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_ADDED_TOKENS_H_
