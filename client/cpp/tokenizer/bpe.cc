#include "client/cpp/tokenizer/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::tokenizer {
namespace {

uint64_t PairKey(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << 32 | right;
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(Vocabulary vocabulary,
                                const std::vector<std::pair<std::string, std::string>>& merges,
                                const BpeOptions& options) {
  Bpe bpe(std::move(vocabulary));
  bpe.FillTables(options);
  bpe.merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const auto id_of = [&bpe, rank](const std::string& token) -> absl::StatusOr<uint32_t> {
      const auto found = bpe.vocabulary_.find(token);
      if (found == bpe.vocabulary_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("merge ", rank, " needs ", Quoted(token), ", which is not in the vocab"));
      }
      return found->second;
    };
    ASSIGN_OR_RETURN(const uint32_t left_id, id_of(left));
    ASSIGN_OR_RETURN(const uint32_t right_id, id_of(right));
    ASSIGN_OR_RETURN(const uint32_t merged_id, id_of(absl::StrCat(left, right)));
    // When a pair is listed twice, the later entry counts.
    bpe.merges_[PairKey(left_id, right_id)] = {static_cast<uint32_t>(rank), merged_id};
  }
  return bpe;
}

void Bpe::FillTables(const BpeOptions& options) {
  for (const auto& [token, id] : vocabulary_) {
    if (!token.empty() && FirstCharacter(token).size() == token.size()) {
      characters_[CodePoint(token)] = id;
    }
  }
  const auto find = [this](const std::string& token) -> std::optional<uint32_t> {
    const auto found = vocabulary_.find(token);
    return found == vocabulary_.end() ? std::nullopt : std::optional(found->second);
  };
  if (options.unk_token.has_value()) {
    unk_ = find(*options.unk_token);
  }
  if (options.byte_fallback) {
    for (unsigned byte = 0; byte < bytes_.size(); ++byte) {
      bytes_[byte] = find(absl::StrFormat("<0x%02X>", byte));
    }
  }
  fuse_unk_ = options.fuse_unk;
  ignore_merges_ = options.ignore_merges;
}

// A token of a piece while its neighbours are merged: a doubly linked list in a vector.
struct Bpe::Symbol {
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t id;
  uint32_t previous;
  uint32_t next;
  bool merged_away = false;
};

const Bpe::Merge* Bpe::FindMerge(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Pairs of neighbours that can be merged: by rank, from left to right.
class Bpe::MergeQueue {
 public:
  struct Entry {
    uint32_t rank;
    uint32_t left;  // Index of the left one's symbol.
    uint32_t id;    // What they become.

    bool operator>(const Entry& other) const {
      return std::tie(rank, left) > std::tie(other.rank, other.left);
    }
  };

  MergeQueue(const Bpe& bpe, const std::vector<Symbol>& symbols) : bpe_(bpe), symbols_(symbols) {}

  // Adds the pair that symbol `left` begins, if there is one with a merge.
  void Add(uint32_t left) {
    if (left == Symbol::kNone || symbols_[left].next == Symbol::kNone) {
      return;
    }
    const Merge* merge = bpe_.FindMerge(symbols_[left].id, symbols_[symbols_[left].next].id);
    if (merge != nullptr) {
      entries_.push({merge->rank, left, merge->id});
    }
  }

  std::optional<Entry> Take() {
    if (entries_.empty()) {
      return std::nullopt;
    }
    const Entry entry = entries_.top();
    entries_.pop();
    return entry;
  }

 private:
  const Bpe& bpe_;
  const std::vector<Symbol>& symbols_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> entries_;
};

std::vector<uint32_t> Bpe::MergeAll(const std::vector<uint32_t>& ids) const {
  const uint32_t count = static_cast<uint32_t>(ids.size());
  std::vector<Symbol> symbols;
  symbols.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {ids[i], i == 0 ? Symbol::kNone : i - 1, i + 1 < count ? i + 1 : Symbol::kNone});
  }
  MergeQueue queue(*this, symbols);
  for (uint32_t i = 0; i < count; ++i) {
    queue.Add(i);
  }
  while (const std::optional<MergeQueue::Entry> entry = queue.Take()) {
    Symbol& left = symbols[entry->left];
    if (left.merged_away || left.next == Symbol::kNone) {
      continue;
    }
    // Either of the two may have become another token since.
    Symbol& right = symbols[left.next];
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != entry->id) {
      continue;
    }
    left.id = entry->id;
    left.next = right.next;
    right.merged_away = true;
    if (left.next != Symbol::kNone) {
      symbols[left.next].previous = entry->left;
    }
    queue.Add(left.previous);
    queue.Add(entry->left);
  }
  std::vector<uint32_t> merged;
  for (const Symbol& symbol : symbols) {
    if (!symbol.merged_away) {
      merged.push_back(symbol.id);
    }
  }
  return merged;
}

bool Bpe::AppendBytes(absl::string_view character, std::vector<uint32_t>* ids) const {
  const auto has_token = [this](char c) { return bytes_[static_cast<uint8_t>(c)].has_value(); };
  if (!std::all_of(character.begin(), character.end(), has_token)) {
    return false;
  }
  for (const char c : character) {
    ids->push_back(*bytes_[static_cast<uint8_t>(c)]);
  }
  return true;
}

// The tokens of single characters. Returns the first that has none.
std::optional<absl::string_view> Bpe::StartSymbols(absl::string_view piece,
                                                   std::vector<uint32_t>* ids) const {
  // An unk_token waits for the next character that has a token of its own; bytes overtake it. The
  // reference does so, and ids must be the same.
  bool unk_waits = false;
  absl::string_view rest = piece;
  while (!rest.empty()) {
    const absl::string_view character = FirstCharacter(rest);
    rest.remove_prefix(character.size());
    const auto found = characters_.find(CodePoint(character));
    if (found != characters_.end()) {
      if (unk_waits) {
        ids->push_back(*unk_);
        unk_waits = false;
      }
      ids->push_back(found->second);
    } else if (AppendBytes(character, ids)) {
      continue;
    } else if (!unk_.has_value()) {
      return character;
    } else {
      if (unk_waits && !fuse_unk_) {
        ids->push_back(*unk_);
      }
      unk_waits = true;
    }
  }
  if (unk_waits) {
    ids->push_back(*unk_);
  }
  return std::nullopt;
}

std::optional<absl::string_view> Bpe::Encode(absl::string_view piece,
                                             std::vector<uint32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.find(piece); whole != vocabulary_.end()) {
      ids->push_back(whole->second);
      return std::nullopt;
    }
  }
  std::vector<uint32_t> symbols;
  symbols.reserve(piece.size());
  if (const auto missing = StartSymbols(piece, &symbols); missing.has_value()) {
    return missing;
  }
  const std::vector<uint32_t> merged = MergeAll(symbols);
  ids->insert(ids->end(), merged.begin(), merged.end());
  return std::nullopt;
}

}  // namespace expertmesh::tokenizer
