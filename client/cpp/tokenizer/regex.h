// The patterns of a tokenizer.json. They are written for Oniguruma, in its own syntax, and run by
// it. Characters that Unicode got after the version that Oniguruma knows count as unassigned.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct re_pattern_buffer;

namespace expertmesh::tokenizer {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;

  size_t size() const { return end - begin; }
  absl::string_view Of(absl::string_view text) const { return text.substr(begin, size()); }
};

// Immutable, hence thread-safe: every search keeps its state to itself.
class Regex {
 public:
  // `pattern` is UTF-8. INVALID_ARGUMENT says what Oniguruma finds wrong with it.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);
  // Matches just `text`, which is UTF-8.
  static absl::StatusOr<Regex> Literal(absl::string_view text);

  // All matches in `text`, which is UTF-8, one after the other. An empty match counts, except right
  // behind another match. RESOURCE_EXHAUSTED when it takes too many steps or too much memory, or
  // longer than ten seconds.
  absl::Status FindAll(absl::string_view text, std::vector<ByteRange>* matches) const;

 private:
  struct Free {
    void operator()(re_pattern_buffer* code) const;
  };
  using Code = std::unique_ptr<re_pattern_buffer, Free>;

  explicit Regex(Code code) : code_(std::move(code)) {}

  Code code_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_
