// The parts of a tokenizer.json at work together.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_TOKENIZER_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_TOKENIZER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/tokenizer/added_tokens.h"
#include "client/cpp/tokenizer/bpe.h"
#include "client/cpp/tokenizer/token_decoder.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "client/cpp/tokenizer/tokenizer_json.h"

namespace expertmesh::tokenizer {

class BpeTokenizer : public Tokenizer {
 public:
  // `file` is the whole of a tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const JsonReader& file);

  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               const EncodeOptions& options) const override;
  std::string Decode(absl::Span<const uint32_t> ids, const DecodeOptions& options) const override;
  std::unique_ptr<TextStream> NewStream(const DecodeOptions& options) const override;
  uint32_t vocab_size() const override { return decoder_.size(); }
  bool IsSpecial(uint32_t id) const override { return decoder_.IsSpecial(id); }
  std::optional<uint32_t> TokenId(absl::string_view token) const override;

 private:
  BpeTokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, TextTemplate around, Bpe bpe,
               AddedTokens added, TokenDecoder decoder);

  absl::Status EncodeText(absl::string_view text, std::vector<uint32_t>* ids) const;
  absl::Status EncodeUnmarked(absl::string_view text, const ByteRange& part,
                              std::vector<uint32_t>* ids) const;
  absl::Status NoToken(absl::string_view text, size_t from, absl::string_view character) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  TextTemplate around_;
  Bpe bpe_;
  AddedTokens added_;
  TokenDecoder decoder_;
  absl::flat_hash_map<std::string, uint32_t> added_ids_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_TOKENIZER_H_
