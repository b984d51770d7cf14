// How a text is cut into the pieces that are encoded one by one: the "pre_tokenizer" of a
// tokenizer.json.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_PRE_TOKENIZER_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_PRE_TOKENIZER_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/tokenizer/regex.h"

namespace expertmesh::tokenizer {

// A text and where it is cut. No range is empty; what lies in none is left out.
struct Pieces {
  std::string text;
  std::vector<ByteRange> ranges;
  // The first byte of `text` is the first of what was to be encoded.
  bool at_start = false;
};

// What becomes of the matches of a pattern.
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// Immutable once filled, hence thread-safe.
class PreTokenizer {
 public:
  struct Split {
    Regex pattern;
    SplitBehavior behavior;
    bool invert = false;  // What lies between matches is what counts as matched.
  };
  // Writes each byte as its character of the byte-level alphabet, after a cut by GPT-2's pattern.
  struct ByteLevel {
    bool add_prefix_space = false;
    std::vector<Split> split;  // None or one.
  };
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };

    std::string replacement;
    Prepend prepend = Prepend::kAlways;
    std::vector<Split> split;  // None or one.
  };
  using Step = std::variant<Split, ByteLevel, Metaspace>;

  void Add(Step step) { steps_.push_back(std::move(step)); }

  absl::Status Apply(Pieces* pieces) const;

  bool empty() const { return steps_.empty(); }
  // Pieces are bytes in the byte-level alphabet.
  bool IsByteLevel() const;

 private:
  std::vector<Step> steps_;
};

// The pattern of ByteLevel's use_regex.
Regex Gpt2Pattern();

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_PRE_TOKENIZER_H_
