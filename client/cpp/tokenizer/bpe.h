// Byte-pair encoding: a piece of text, character by character, merged in the order in which the
// merges were learned.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::tokenizer {

struct BpeOptions {
  // Stands for characters without a token.
  std::optional<std::string> unk_token = std::nullopt;
  bool fuse_unk = false;       // One unk_token for several such characters in a row.
  bool byte_fallback = false;  // The bytes of such a character, as <0xE2>, before unk_token.
  bool ignore_merges = false;  // A piece that is a token as a whole is that token.
};

// Immutable, hence thread-safe.
class Bpe {
 public:
  using Vocabulary = absl::flat_hash_map<std::string, uint32_t>;

  // `merges` in the order in which they apply. INVALID_ARGUMENT names a merge whose parts or result
  // are not in `vocabulary`.
  static absl::StatusOr<Bpe> Create(Vocabulary vocabulary,
                                    const std::vector<std::pair<std::string, std::string>>& merges,
                                    const BpeOptions& options);

  // Appends the ids of `piece`, which is UTF-8 and of less than 2^31 bytes, to `ids`. Returns the
  // first of its characters for which there is no token; then `ids` holds no more than before.
  std::optional<absl::string_view> Encode(absl::string_view piece,
                                          std::vector<uint32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    uint32_t id;
  };
  struct Symbol;
  class MergeQueue;

  explicit Bpe(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  void FillTables(const BpeOptions& options);
  const Merge* FindMerge(uint32_t left, uint32_t right) const;
  bool AppendBytes(absl::string_view character, std::vector<uint32_t>* ids) const;
  std::optional<absl::string_view> StartSymbols(absl::string_view piece,
                                                std::vector<uint32_t>* ids) const;
  std::vector<uint32_t> MergeAll(const std::vector<uint32_t>& ids) const;

  Vocabulary vocabulary_;
  // By left id << 32 | right id.
  absl::flat_hash_map<uint64_t, Merge> merges_;
  // Tokens of one character.
  absl::flat_hash_map<char32_t, uint32_t> characters_;
  std::optional<uint32_t> unk_;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  // The tokens <0x00> to <0xFF>, with byte_fallback.
  std::array<std::optional<uint32_t>, 256> bytes_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_BPE_H_
