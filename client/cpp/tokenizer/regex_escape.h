// What a backslash begins in a pattern for Oniguruma.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_ESCAPE_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_ESCAPE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::tokenizer {

// As PCRE2 writes it.
struct RegexEscape {
  std::string outside;
  std::string in_set;      // Between brackets.
  bool is_class = false;   // Stands for several characters.
  bool is_anchor = false;  // Stands for a place.
};

// Reads the backslash at `*at` and what belongs to it, and moves `*at` behind. INVALID_ARGUMENT
// when that is malformed or not supported.
absl::StatusOr<RegexEscape> ReadRegexEscape(absl::string_view pattern, size_t* at);

// INVALID_ARGUMENT: `why`, and where in the pattern.
absl::Status RefuseRegex(size_t at, absl::string_view why);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_ESCAPE_H_
