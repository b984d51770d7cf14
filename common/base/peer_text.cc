#include "common/base/peer_text.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/base/utf8.h"

namespace expertmesh {
namespace {

bool Continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Bytes of the UTF-8 character at the start of `text` (not empty); 0 when there is none, or one
// that has no business on a line: a control character, or a mark that reorders text.
size_t PrintableCharacter(absl::string_view text) {
  uint32_t code = 0;
  const size_t size = Utf8Character(text, &code);
  const bool is_control = code < 0x20 || (code >= 0x7f && code < 0xa0) ||
                          (code >= 0x2028 && code <= 0x202e) ||
                          (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
  return is_control ? 0 : size;
}

void AppendEscaped(char c, std::string* out) {
  switch (c) {
    case '\n':
      out->append("\\n");
      break;
    case '\r':
      out->append("\\r");
      break;
    case '\t':
      out->append("\\t");
      break;
    default:
      absl::StrAppend(out, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  }
}

}  // namespace

std::string PeerText(absl::string_view text, size_t most) {
  const absl::string_view shown = CutText(text, most);
  std::string printable;
  printable.reserve(shown.size());
  for (size_t at = 0; at < shown.size();) {
    const size_t size = PrintableCharacter(shown.substr(at));
    if (size == 0) {
      AppendEscaped(shown[at], &printable);
    } else {
      absl::StrAppend(&printable, shown.substr(at, size));
    }
    at += size == 0 ? 1 : size;
  }
  // What escapes have made longer is cut again: 5 MB of zeros are no 20 MB of text.
  const absl::string_view kept = CutText(printable, most);
  if (shown.size() == text.size() && kept.size() == printable.size()) {
    return printable;
  }
  return absl::StrCat(kept, "... (cut, ", text.size(), " bytes)");
}

absl::string_view CutText(absl::string_view text, size_t bytes) {
  if (text.size() <= bytes) {
    return text;
  }
  while (bytes > 0 && Continues(text[bytes])) {
    --bytes;
  }
  return text.substr(0, bytes);
}

}  // namespace expertmesh
