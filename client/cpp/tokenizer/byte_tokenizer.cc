#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "client/cpp/tokenizer/utf8.h"

namespace expertmesh::tokenizer {
namespace {

constexpr uint32_t kBytes = 256;

class ByteStream : public TextStream {
 public:
  std::string Push(uint32_t id) override {
    const char byte = static_cast<char>(id);
    return id < kBytes ? text_.Push(absl::string_view(&byte, 1)) : "";
  }
  std::string Finish() override { return text_.Finish(); }

 private:
  Utf8Stream text_;
};

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(uint32_t vocab_size) : vocab_size_(vocab_size) {}

  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               const EncodeOptions&) const override {
    std::vector<uint32_t> ids;
    ids.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
      const uint8_t byte = static_cast<uint8_t>(text[i]);
      if (byte >= vocab_size_) {
        return absl::InvalidArgumentError(absl::StrFormat(
            "byte 0x%02X at offset %d of the text has no token in a vocabulary of %d", byte, i,
            vocab_size_));
      }
      ids.push_back(byte);
    }
    return ids;
  }

  std::string Decode(absl::Span<const uint32_t> ids, const DecodeOptions&) const override {
    ByteStream stream;
    std::string text;
    for (const uint32_t id : ids) {
      text += stream.Push(id);
    }
    return text + stream.Finish();
  }

  std::unique_ptr<TextStream> NewStream(const DecodeOptions&) const override {
    return std::make_unique<ByteStream>();
  }

  uint32_t vocab_size() const override { return vocab_size_; }
  bool IsSpecial(uint32_t id) const override { return id >= kBytes && id < vocab_size_; }
  std::optional<uint32_t> TokenId(absl::string_view token) const override {
    if (token.size() != 1 || static_cast<uint8_t>(token[0]) >= vocab_size_) {
      return std::nullopt;
    }
    return static_cast<uint8_t>(token[0]);
  }

 private:
  uint32_t vocab_size_;
};

}  // namespace

std::unique_ptr<Tokenizer> MakeByteTokenizer(uint32_t vocab_size) {
  return std::make_unique<ByteTokenizer>(vocab_size);
}

}  // namespace expertmesh::tokenizer
