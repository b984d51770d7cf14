// UTF-8 by the letter: no surrogates, nothing overlong, nothing above U+10FFFF.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_UTF8_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh::tokenizer {

// What is shown for bytes that form no character: U+FFFD.
inline constexpr char kReplacement[] = "\xEF\xBF\xBD";

// How a text begins.
struct CharacterStart {
  // Bytes of its first character, or of the longest part of one that it begins with. 0: its first
  // byte begins no character, or there is none.
  size_t bytes = 0;
  // All bytes of the character are there.
  bool whole = false;
};
CharacterStart ReadCharacterStart(absl::string_view text);

// The offset of the first byte that is part of no character; npos when there is none.
size_t FindInvalidUtf8(absl::string_view text);

// The first character of `text`, which is UTF-8 and not empty, and its bytes.
absl::string_view FirstCharacter(absl::string_view text);
// The same for the last one.
absl::string_view LastCharacter(absl::string_view text);
// The code point of a character.
char32_t CodePoint(absl::string_view character);
void AppendCharacter(char32_t code_point, std::string* text);

// Unicode's White_Space.
bool IsWhiteSpace(char32_t code_point);

// Bytes that arrive in parts, as text: each longest part of a broken character becomes one U+FFFD.
class Utf8Stream {
 public:
  std::string Push(absl::string_view bytes);
  // What is left, as U+FFFD. The next Push begins another text.
  std::string Finish();

 private:
  std::string pending_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_UTF8_H_
