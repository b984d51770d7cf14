// The byte-level alphabet that GPT-2 began: every byte is one printable character, so that a
// vocabulary can be written as text.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_BYTE_LEVEL_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh::tokenizer {

void AppendByteCharacter(uint8_t byte, std::string* text);

// The byte that `code_point` stands for, if it belongs to the alphabet.
std::optional<uint8_t> ByteOfCharacter(char32_t code_point);

// The bytes that a token (UTF-8) stands for. A token with a character from outside the alphabet
// stands for itself.
std::string BytesOfToken(absl::string_view token);

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_BYTE_LEVEL_H_
