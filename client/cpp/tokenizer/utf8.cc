#include "client/cpp/tokenizer/utf8.h"

#include <cstdint>
#include <utility>

namespace expertmesh::tokenizer {
namespace {

uint8_t ByteAt(absl::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

bool IsContinuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// What the first byte of a character says: its length, and the second byte's range, which keeps out
// overlong forms, surrogates and what is above U+10FFFF.
struct Lead {
  size_t length = 0;  // 0: no character begins so.
  uint8_t second_low = 0x80;
  uint8_t second_high = 0xBF;
};

Lead ReadLead(uint8_t byte) {
  if (byte < 0x80) {
    return {1};
  }
  if (byte < 0xC2 || byte > 0xF4) {
    return {0};
  }
  if (byte < 0xE0) {
    return {2};
  }
  if (byte < 0xF0) {
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
          static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
}

}  // namespace

CharacterStart ReadCharacterStart(absl::string_view text) {
  if (text.empty()) {
    return {};
  }
  const Lead lead = ReadLead(ByteAt(text, 0));
  size_t bytes = lead.length == 0 ? 0 : 1;
  while (bytes < lead.length && bytes < text.size()) {
    const uint8_t byte = ByteAt(text, bytes);
    const bool fits =
        bytes == 1 ? byte >= lead.second_low && byte <= lead.second_high : IsContinuation(byte);
    if (!fits) {
      break;
    }
    ++bytes;
  }
  return {bytes, bytes > 0 && bytes == lead.length};
}

size_t FindInvalidUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const CharacterStart start = ReadCharacterStart(text.substr(at));
    if (!start.whole) {
      return at;
    }
    at += start.bytes;
  }
  return absl::string_view::npos;
}

absl::string_view FirstCharacter(absl::string_view text) {
  const size_t length = ReadLead(ByteAt(text, 0)).length;
  return text.substr(0, length);
}

absl::string_view LastCharacter(absl::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && IsContinuation(ByteAt(text, begin))) {
    --begin;
  }
  return text.substr(begin);
}

char32_t CodePoint(absl::string_view character) {
  const uint8_t lead = ByteAt(character, 0);
  if (character.size() == 1) {
    return lead;
  }
  char32_t code_point = lead & (0x7F >> character.size());
  for (size_t i = 1; i < character.size(); ++i) {
    code_point = code_point << 6 | (ByteAt(character, i) & 0x3F);
  }
  return code_point;
}

void AppendCharacter(char32_t code_point, std::string* text) {
  const auto append = [text](char32_t byte) { text->push_back(static_cast<char>(byte)); };
  const auto append_continuation = [append](char32_t bits) { append(0x80 | (bits & 0x3F)); };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
    append_continuation(code_point);
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append_continuation(code_point >> 6);
    append_continuation(code_point);
  } else {
    append(0xF0 | code_point >> 18);
    append_continuation(code_point >> 12);
    append_continuation(code_point >> 6);
    append_continuation(code_point);
  }
}

bool IsWhiteSpace(char32_t code_point) {
  switch (code_point) {
    case 0x20:
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000:
      return true;
    default:
      return (code_point >= 0x09 && code_point <= 0x0D) ||
             (code_point >= 0x2000 && code_point <= 0x200A);
  }
}

std::string Utf8Stream::Push(absl::string_view bytes) {
  std::string all = std::exchange(pending_, {});
  all.append(bytes.data(), bytes.size());
  std::string text;
  absl::string_view rest = all;
  while (!rest.empty()) {
    const CharacterStart start = ReadCharacterStart(rest);
    if (start.whole) {
      text.append(rest.data(), start.bytes);
      rest.remove_prefix(start.bytes);
    } else if (start.bytes > 0 && start.bytes == rest.size()) {
      pending_ = std::string(rest);
      break;
    } else {
      text += kReplacement;
      rest.remove_prefix(start.bytes > 0 ? start.bytes : 1);
    }
  }
  return text;
}

std::string Utf8Stream::Finish() { return std::exchange(pending_, {}).empty() ? "" : kReplacement; }

}  // namespace expertmesh::tokenizer
