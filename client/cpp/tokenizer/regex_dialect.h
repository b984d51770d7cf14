// From the syntax of Oniguruma to that of PCRE2.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_DIALECT_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_DIALECT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::tokenizer {

// Both read much of a pattern alike, and some of it differently without a word: \s, \w, \h,
// \p{Han}, x{2}+, nested sets. So this knows what it lets through, and refuses the rest with
// INVALID_ARGUMENT, naming the offset. The result wants PCRE2_UTF, PCRE2_UCP and PCRE2_MULTILINE.
absl::StatusOr<std::string> Pcre2Pattern(absl::string_view oniguruma);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_REGEX_DIALECT_H_
