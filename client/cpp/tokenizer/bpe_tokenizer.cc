#include "client/cpp/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/tokenizer/byte_level.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::tokenizer {
namespace {

// Positions are 32 bits wide, and the byte-level alphabet makes a text at most twice as long.
constexpr size_t kMaxTextBytes = size_t{1} << 28;

// The reference numbers added tokens itself, and a file that says otherwise would mean one thing
// here and another there.
absl::Status CheckAddedIds(const std::vector<AddedToken>& tokens, const Bpe& bpe,
                           const JsonReader& file) {
  const uint32_t count = static_cast<uint32_t>(bpe.vocabulary().size());
  std::optional<uint32_t> largest;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto found = bpe.vocabulary().find(tokens[i].content);
    const uint32_t expected = found != bpe.vocabulary().end() ? found->second
                              : largest.has_value()           ? std::max(*largest + 1, count)
                                                              : count;
    if (tokens[i].id != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.Place("added_tokens"), "[", i, "].id is ", tokens[i].id, "; supported: ", expected,
          ", the id that ", Quoted(tokens[i].content),
          found != bpe.vocabulary().end() ? " has in the vocab" : " gets by its place"));
    }
    largest = std::max(largest.value_or(0), expected);
  }
  return absl::OkStatus();
}

std::vector<TokenOfId> AllTokens(const std::vector<AddedToken>& added, const Bpe& bpe) {
  std::vector<TokenOfId> tokens;
  for (const auto& [token, id] : bpe.vocabulary()) {
    tokens.push_back({id, token, false});
  }
  for (const AddedToken& token : added) {
    tokens.push_back({token.id, token.content, token.special});
  }
  return tokens;
}

}  // namespace

BpeTokenizer::BpeTokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, TextTemplate around,
                           Bpe bpe, AddedTokens added, TokenDecoder decoder)
    : normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      around_(std::move(around)),
      bpe_(std::move(bpe)),
      added_(std::move(added)),
      decoder_(std::move(decoder)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(const JsonReader& file) {
  if (file.Has("version")) {
    ASSIGN_OR_RETURN(const std::string version, file.String("version"));
    if (version != "1.0") {
      return file.Refuse("version", "1.0");
    }
  }
  // They matter to calls that ask for them only; transformers' plain call does not.
  file.Ignore("truncation");
  file.Ignore("padding");
  ASSIGN_OR_RETURN(Normalizer normalizer, ReadNormalizer(file));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, ReadPreTokenizer(file));
  ASSIGN_OR_RETURN(TextTemplate around, ReadPostProcessor(file));
  ASSIGN_OR_RETURN(const DecoderPlan plan, ReadDecoder(file));
  ASSIGN_OR_RETURN(Bpe bpe, ReadModel(file));
  ASSIGN_OR_RETURN(const std::vector<AddedToken> added, ReadAddedTokens(file));
  RETURN_IF_ERROR(file.Done());
  RETURN_IF_ERROR(CheckAddedIds(added, bpe, file));
  ASSIGN_OR_RETURN(AddedTokens finders, AddedTokens::Create(added, normalizer));
  ASSIGN_OR_RETURN(TokenDecoder decoder, TokenDecoder::Create(plan, AllTokens(added, bpe)));
  std::unique_ptr<BpeTokenizer> tokenizer(
      new BpeTokenizer(std::move(normalizer), std::move(pre_tokenizer), std::move(around),
                       std::move(bpe), std::move(finders), std::move(decoder)));
  for (const AddedToken& token : added) {
    tokenizer->added_ids_[token.content] = token.id;
  }
  return tokenizer;
}

absl::StatusOr<std::vector<uint32_t>> BpeTokenizer::Encode(absl::string_view text,
                                                           const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", text.size(), " bytes; at most ", kMaxTextBytes));
  }
  // The reference takes text only, so there is no answer to other bytes that would be right.
  if (const size_t at = FindInvalidUtf8(text); at != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "byte 0x%02X at offset %d of the text is not UTF-8", static_cast<uint8_t>(text[at]), at));
  }
  std::vector<uint32_t> ids;
  if (!options.add_special_tokens) {
    RETURN_IF_ERROR(EncodeText(text, &ids));
    return ids;
  }
  for (const TextTemplate::Part& part : around_.parts) {
    if (part.is_text) {
      RETURN_IF_ERROR(EncodeText(text, &ids));
    } else {
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    }
  }
  return ids;
}

absl::Status BpeTokenizer::EncodeText(absl::string_view text, std::vector<uint32_t>* ids) const {
  ASSIGN_OR_RETURN(const std::vector<TextPart> parts, added_.in_text().Find(text));
  for (const TextPart& part : parts) {
    if (part.id.has_value()) {
      ids->push_back(*part.id);
    } else {
      RETURN_IF_ERROR(EncodeUnmarked(text, part.range, ids));
    }
  }
  return absl::OkStatus();
}

// A part of `text` without tokens that are looked for before it is normalized.
absl::Status BpeTokenizer::EncodeUnmarked(absl::string_view text, const ByteRange& part,
                                          std::vector<uint32_t>* ids) const {
  std::string normal(part.Of(text));
  RETURN_IF_ERROR(normalizer_.Apply(&normal));
  ASSIGN_OR_RETURN(const std::vector<TextPart> inner, added_.in_normalized_text().Find(normal));
  for (const TextPart& one : inner) {
    if (one.id.has_value()) {
      ids->push_back(*one.id);
      continue;
    }
    Pieces pieces;
    pieces.text = std::string(one.range.Of(normal));
    pieces.ranges = {{0, pieces.text.size()}};
    pieces.at_start = part.begin == 0 && one.range.begin == 0;
    RETURN_IF_ERROR(pre_tokenizer_.Apply(&pieces));
    for (const ByteRange& piece : pieces.ranges) {
      const auto missing = bpe_.Encode(piece.Of(pieces.text), ids);
      if (missing.has_value()) {
        return NoToken(text, part.begin, *missing);
      }
    }
  }
  return absl::OkStatus();
}

// `character` is the first without a token in what was made of `text` from `from` on.
absl::Status BpeTokenizer::NoToken(absl::string_view text, size_t from,
                                   absl::string_view character) const {
  std::string bytes(character);
  if (pre_tokenizer_.IsByteLevel()) {
    if (const auto byte = ByteOfCharacter(CodePoint(character)); byte.has_value()) {
      bytes = std::string(1, static_cast<char>(*byte));
    }
  }
  const size_t at = text.find(bytes, from);
  const std::string where = at == absl::string_view::npos
                                ? absl::StrCat("into which the text from offset ", from, " is made")
                                : absl::StrCat("at offset ", at, " of the text");
  return absl::InvalidArgumentError(absl::StrFormat(
      "byte 0x%02X%s %s has no token in the vocabulary", static_cast<uint8_t>(bytes[0]),
      bytes.size() > 1 ? absl::StrCat(" (of ", Quoted(bytes), ")") : "", where));
}

std::string BpeTokenizer::Decode(absl::Span<const uint32_t> ids,
                                 const DecodeOptions& options) const {
  const std::unique_ptr<TextStream> stream = decoder_.NewStream(options, /*exact=*/true);
  std::string text;
  for (const uint32_t id : ids) {
    text += stream->Push(id);
  }
  return text + stream->Finish();
}

std::unique_ptr<TextStream> BpeTokenizer::NewStream(const DecodeOptions& options) const {
  return decoder_.NewStream(options, /*exact=*/false);
}

std::optional<uint32_t> BpeTokenizer::TokenId(absl::string_view token) const {
  if (const auto found = added_ids_.find(token); found != added_ids_.end()) {
    return found->second;
  }
  if (const auto found = bpe_.vocabulary().find(token); found != bpe_.vocabulary().end()) {
    return found->second;
  }
  return std::nullopt;
}

}  // namespace expertmesh::tokenizer
