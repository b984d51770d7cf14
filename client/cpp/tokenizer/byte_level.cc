#include "client/cpp/tokenizer/byte_level.h"

#include <array>

#include "client/cpp/tokenizer/utf8.h"

namespace expertmesh::tokenizer {
namespace {

constexpr char32_t kFirstStandIn = 0x100;

// Bytes that are printable characters of Latin-1 stand for themselves.
constexpr bool StandsForItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

// The others, in order, are the characters from U+0100.
struct Alphabet {
  std::array<char32_t, 256> character_of = {};
  std::array<uint8_t, 256> byte_of_stand_in = {};
  char32_t stand_ins = 0;

  constexpr Alphabet() {
    for (unsigned byte = 0; byte < 256; ++byte) {
      if (StandsForItself(byte)) {
        character_of[byte] = byte;
      } else {
        byte_of_stand_in[stand_ins] = static_cast<uint8_t>(byte);
        character_of[byte] = kFirstStandIn + stand_ins++;
      }
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

void AppendByteCharacter(uint8_t byte, std::string* text) {
  AppendCharacter(kAlphabet.character_of[byte], text);
}

std::optional<uint8_t> ByteOfCharacter(char32_t code_point) {
  if (code_point >= kFirstStandIn) {
    const char32_t index = code_point - kFirstStandIn;
    if (index >= kAlphabet.stand_ins) {
      return std::nullopt;
    }
    return kAlphabet.byte_of_stand_in[index];
  }
  if (!StandsForItself(code_point)) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(code_point);
}

std::string BytesOfToken(absl::string_view token) {
  std::string bytes;
  absl::string_view rest = token;
  while (!rest.empty()) {
    const absl::string_view character = FirstCharacter(rest);
    const std::optional<uint8_t> byte = ByteOfCharacter(CodePoint(character));
    if (!byte.has_value()) {
      return std::string(token);
    }
    bytes.push_back(static_cast<char>(*byte));
    rest.remove_prefix(character.size());
  }
  return bytes;
}

}  // namespace expertmesh::tokenizer
