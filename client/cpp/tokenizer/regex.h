// The patterns of a tokenizer.json. They are written for Oniguruma (Ruby's syntax), run by PCRE2,
// and mean the same in both: what does not is translated or refused. Characters that Unicode got
// after the version that PCRE2 knows count as unassigned.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct pcre2_real_code_8;

namespace expertmesh::tokenizer {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;

  size_t size() const { return end - begin; }
  absl::string_view Of(absl::string_view text) const { return text.substr(begin, size()); }
};

// Immutable, hence thread-safe.
class Regex {
 public:
  // INVALID_ARGUMENT says what is malformed or unsupported, and where in `pattern`.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);
  // Matches just `text`.
  static absl::StatusOr<Regex> Literal(absl::string_view text);
  // `pattern` is PCRE2's own, and correct.
  static Regex Pcre2(absl::string_view pattern);

  // All matches in `text`, which is UTF-8, one after the other. An empty match counts, except right
  // behind another match. RESOURCE_EXHAUSTED when it takes too many steps, or longer than ten
  // seconds.
  absl::Status FindAll(absl::string_view text, std::vector<ByteRange>* matches) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, Free>;

  explicit Regex(Code code) : code_(std::move(code)) {}
  static absl::StatusOr<Regex> CompilePcre2(absl::string_view pattern);

  Code code_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_H_
