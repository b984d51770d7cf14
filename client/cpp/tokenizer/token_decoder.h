// From token ids to text: the "decoder" of a tokenizer.json.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKEN_DECODER_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKEN_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/tokenizer/normalizer.h"
#include "client/cpp/tokenizer/tokenizer.h"

namespace expertmesh::tokenizer {

// Takes up to `start` times `character` from the beginning of a text, and up to `stop` times from
// its end.
struct StripDecoder {
  std::string character;
  size_t start = 0;
  size_t stop = 0;

  std::string Apply(absl::string_view text) const;
};

// `replacement` is a space, but nothing in the first token when `prepended`.
struct MetaspaceDecoder {
  std::string replacement;
  bool prepended = true;
};

struct DecoderPlan {
  using TokenStep = std::variant<Replacement, StripDecoder, MetaspaceDecoder>;
  enum class Join {
    kSpaces,  // Tokens with a space between them: there is no decoder.
    kConcatenate,
    kByteLevel,  // Tokens are bytes in the byte-level alphabet.
  };

  // What happens to each token by itself.
  std::vector<TokenStep> token_steps;
  // Tokens such as <0xE2> are bytes.
  bool byte_fallback = false;
  Join join = Join::kSpaces;
  // What happens to the text of all.
  std::vector<StripDecoder> text_steps;
};

struct TokenOfId {
  uint32_t id = 0;
  std::string token;
  bool special = false;
};

// Immutable, hence thread-safe.
class TokenDecoder {
 public:
  // When two entries have the same id, the later one counts.
  static absl::StatusOr<TokenDecoder> Create(const DecoderPlan& plan,
                                             const std::vector<TokenOfId>& tokens);

  // `exact`: a run of byte tokens waits for its end, and is replaced whole when it is not UTF-8.
  std::unique_ptr<TextStream> NewStream(const DecodeOptions& options, bool exact) const;

  bool IsSpecial(uint32_t id) const { return id < entries_.size() && entries_[id].special; }
  // One more than the largest id.
  uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }

 private:
  class Stream;

  // What an id shows.
  struct Entry {
    bool known = false;
    bool special = false;
    bool is_byte = false;  // `text` is one byte of a run.
    std::string text;
  };

  DecoderPlan::Join join_ = DecoderPlan::Join::kSpaces;
  std::vector<StripDecoder> text_steps_;
  std::vector<Entry> entries_;
  // What an id shows when it is the first, where that is something else.
  absl::flat_hash_map<uint32_t, std::string> first_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKEN_DECODER_H_
