// Text to token ids and back, with the numbers that the model was trained on: what transformers'
// tokenizer of the same tokenizer.json answers.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, OpenTokenizer(model_folder));
//   ASSIGN_OR_RETURN(std::vector<uint32_t> ids, tokenizer->Encode("Hello"));
//   std::unique_ptr<TextStream> text = tokenizer->NewStream({.skip_special_tokens = true});
//   while (...) std::cout << text->Push(next_id);
//   std::cout << text->Finish();
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace expertmesh::tokenizer {

struct EncodeOptions {
  // Add what the model's post-processor puts around a text, such as <s>. Special tokens written in
  // the text are recognised either way.
  bool add_special_tokens = true;
};

struct DecodeOptions {
  // Leave out the tokens for which IsSpecial is true.
  bool skip_special_tokens = false;
};

// The text of one sequence of ids, as it grows. What comes out is valid UTF-8 and in whole
// characters: bytes that form no character are shown as U+FFFD, and those that may yet become one
// wait. Belongs to one thread; its tokenizer must outlive it.
class TextStream {
 public:
  virtual ~TextStream() = default;

  // The text that `id` adds; empty for an id without a token.
  virtual std::string Push(uint32_t id) = 0;
  // The rest. The next Push begins another sequence.
  virtual std::string Finish() = 0;
};

// Immutable, hence thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  //   INVALID_ARGUMENT    the text has a byte for which the vocabulary has no token, or, unless the
  //                       tokens are bytes, is not UTF-8; the message names the byte and its
  //                       offset.
  //   RESOURCE_EXHAUSTED  one of the model's own patterns takes too long on this text.
  virtual absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                                       const EncodeOptions& options = {}) const = 0;

  // The text of all `ids`. Ids without a token add nothing.
  virtual std::string Decode(absl::Span<const uint32_t> ids,
                             const DecodeOptions& options = {}) const = 0;

  // Its pieces add up to what Decode gives. One exception: in a run of byte tokens such as <0xE2>
  // that is not UTF-8, Decode replaces every byte, and a stream has shown the characters before the
  // first bad byte already.
  virtual std::unique_ptr<TextStream> NewStream(const DecodeOptions& options = {}) const = 0;

  // One more than the largest id. A model's own count may be larger: rows are padded.
  virtual uint32_t vocab_size() const = 0;
  virtual bool IsSpecial(uint32_t id) const = 0;
  // The id of the token that is written so in tokenizer.json ("<|endoftext|>").
  virtual std::optional<uint32_t> TokenId(absl::string_view token) const = 0;
};

// Reads FOLDER/tokenizer.json (at most 64 MiB). As transformers does, it leaves out the file's
// truncation and padding; everything else in it is honoured or refused.
//   NOT_FOUND         there is none; the message says how to get one.
//   INVALID_ARGUMENT  the file is malformed, or asks for what is not supported; the message names
//                     the key, its value and what is supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& folder);

// The same for the content of a tokenizer.json; `source` names it in messages.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view json,
                                                          absl::string_view source);

// The id of a token is the byte that it stands for; ids from 256 are special and show nothing. Any
// bytes can be encoded that are below `vocab_size`.
std::unique_ptr<Tokenizer> MakeByteTokenizer(uint32_t vocab_size);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_TOKENIZER_H_
