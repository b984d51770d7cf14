// UTF-8: what is a character, and texts made to hold nothing else.
#ifndef EXPERTMESH_COMMON_BASE_UTF8_H_
#define EXPERTMESH_COMMON_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh {

// Bytes of the character at the start of `text`, and in `code` its number; 0 when there is none:
// `text` is empty, ends within the character, is longer than need be, or names half of a pair.
size_t Utf8Character(absl::string_view text, uint32_t* code);

// `text` with U+FFFD for each byte that is part of no character.
std::string ValidUtf8(absl::string_view text);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_UTF8_H_
