#include "client/cpp/tokenizer/token_decoder.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "client/cpp/tokenizer/byte_level.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

// A text, in parts, whose beginning and end are stripped.
class StripStream {
 public:
  explicit StripStream(const StripDecoder& strip) : strip_(strip), start_left_(strip.start) {}

  std::string Push(absl::string_view text) {
    while (start_left_ > 0 && !text.empty()) {
      if (absl::StartsWith(text, strip_.character)) {
        text.remove_prefix(strip_.character.size());
        --start_left_;
      } else {
        start_left_ = 0;
      }
    }
    // What may turn out to be the end waits.
    std::string all = std::exchange(held_, {});
    all.append(text.data(), text.size());
    absl::string_view shown = all;
    for (size_t i = 0; i < strip_.stop && absl::EndsWith(shown, strip_.character); ++i) {
      shown.remove_suffix(strip_.character.size());
    }
    held_ = all.substr(shown.size());
    return std::string(shown);
  }

 private:
  StripDecoder strip_;
  size_t start_left_;
  std::string held_;
};

// Bytes of byte tokens that follow each other. A run that is not UTF-8 is one U+FFFD for each byte;
// unless that is to be exact, characters are shown as they become whole.
class ByteRun {
 public:
  explicit ByteRun(bool exact) : exact_(exact) {}

  std::string Push(absl::string_view byte) {
    run_.append(byte.data(), byte.size());
    if (exact_) {
      return "";
    }
    if (broken_) {
      return ReplaceAll();
    }
    const CharacterStart start = ReadCharacterStart(run_);
    if (start.whole) {
      return std::exchange(run_, {});
    }
    if (start.bytes < run_.size()) {
      broken_ = true;
      return ReplaceAll();
    }
    return "";
  }

  // The run is over.
  std::string Finish() {
    broken_ = false;
    return FindInvalidUtf8(run_) == std::string::npos ? std::exchange(run_, {}) : ReplaceAll();
  }

 private:
  std::string ReplaceAll() {
    std::string text;
    for (size_t i = 0; i < run_.size(); ++i) {
      text += kReplacement;
    }
    run_.clear();
    return text;
  }

  bool exact_;
  bool broken_ = false;
  std::string run_;
};

std::optional<char> ByteOfFallback(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>') {
    return std::nullopt;
  }
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
      return std::nullopt;
    }
    value = value * 16 +
            (absl::ascii_isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return static_cast<char>(value);
}

absl::StatusOr<std::string> ApplySteps(const DecoderPlan& plan, bool first, std::string text) {
  for (const DecoderPlan::TokenStep& step : plan.token_steps) {
    if (const auto* replacement = std::get_if<Replacement>(&step)) {
      RETURN_IF_ERROR(replacement->Apply(&text));
    } else if (const auto* strip = std::get_if<StripDecoder>(&step)) {
      text = strip->Apply(text);
    } else {
      const auto& metaspace = std::get<MetaspaceDecoder>(step);
      const absl::string_view space = first && metaspace.prepended ? "" : " ";
      text = absl::StrReplaceAll(text, {{metaspace.replacement, space}});
    }
  }
  return text;
}

}  // namespace

std::string StripDecoder::Apply(absl::string_view text) const {
  return StripStream(*this).Push(text);
}

absl::StatusOr<TokenDecoder> TokenDecoder::Create(const DecoderPlan& plan,
                                                  const std::vector<TokenOfId>& tokens) {
  TokenDecoder decoder;
  decoder.join_ = plan.join;
  decoder.text_steps_ = plan.text_steps;
  for (const TokenOfId& token : tokens) {
    if (token.id >= decoder.entries_.size()) {
      decoder.entries_.resize(token.id + 1);
    }
    Entry& entry = decoder.entries_[token.id];
    entry.known = true;
    entry.special = token.special;
    ASSIGN_OR_RETURN(entry.text, ApplySteps(plan, false, token.token));
    ASSIGN_OR_RETURN(std::string first, ApplySteps(plan, true, token.token));
    decoder.first_.erase(token.id);
    if (first != entry.text) {
      decoder.first_[token.id] = std::move(first);
    }
    const std::optional<char> byte = plan.byte_fallback ? ByteOfFallback(entry.text) : std::nullopt;
    entry.is_byte = byte.has_value();
    if (entry.is_byte) {
      entry.text = std::string(1, *byte);
    } else if (plan.join == DecoderPlan::Join::kByteLevel) {
      entry.text = BytesOfToken(entry.text);
    }
  }
  return decoder;
}

class TokenDecoder::Stream : public TextStream {
 public:
  Stream(const TokenDecoder& decoder, const DecodeOptions& options, bool exact)
      : decoder_(decoder), options_(options), exact_(exact), run_(exact) {
    Reset();
  }

  std::string Push(uint32_t id) override {
    if (id >= decoder_.entries_.size() || !decoder_.entries_[id].known ||
        (options_.skip_special_tokens && decoder_.entries_[id].special)) {
      return "";
    }
    const Entry& entry = decoder_.entries_[id];
    const bool first = std::exchange(first_, false);
    if (entry.is_byte) {
      return Strip(run_.Push(entry.text));
    }
    std::string text = run_.Finish();
    if (decoder_.join_ == DecoderPlan::Join::kByteLevel) {
      text += utf8_.Push(entry.text);
      return Strip(std::move(text));
    }
    if (decoder_.join_ == DecoderPlan::Join::kSpaces && !first) {
      text += ' ';
    }
    const auto found = first ? decoder_.first_.find(id) : decoder_.first_.end();
    text += found == decoder_.first_.end() ? entry.text : found->second;
    return Strip(std::move(text));
  }

  std::string Finish() override {
    std::string text = Strip(run_.Finish() + utf8_.Finish());
    Reset();
    return text;
  }

 private:
  void Reset() {
    first_ = true;
    run_ = ByteRun(exact_);
    strips_.clear();
    for (const StripDecoder& strip : decoder_.text_steps_) {
      strips_.emplace_back(strip);
    }
  }

  std::string Strip(std::string text) {
    for (StripStream& strip : strips_) {
      text = strip.Push(text);
    }
    return text;
  }

  const TokenDecoder& decoder_;
  const DecodeOptions options_;
  const bool exact_;
  bool first_ = true;
  ByteRun run_;
  Utf8Stream utf8_;
  std::vector<StripStream> strips_;
};

std::unique_ptr<TextStream> TokenDecoder::NewStream(const DecodeOptions& options,
                                                    bool exact) const {
  return std::make_unique<Stream>(*this, options, exact);
}

}  // namespace expertmesh::tokenizer
