#include "client/cpp/tokenizer/added_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::tokenizer {
namespace {

// Letters, marks, digits and what joins them.
absl::StatusOr<bool> IsWordCharacter(absl::string_view character) {
  static const Regex* const word =
      new Regex(Regex::Compile("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]").value());
  std::vector<ByteRange> matches;
  RETURN_IF_ERROR(word->FindAll(character, &matches));
  return !matches.empty();
}

// Whether a letter or digit touches text[begin, end).
absl::StatusOr<bool> TouchesWord(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    ASSIGN_OR_RETURN(const bool before, IsWordCharacter(LastCharacter(text.substr(0, begin))));
    if (before) {
      return true;
    }
  }
  if (end < text.size()) {
    return IsWordCharacter(FirstCharacter(text.substr(end)));
  }
  return false;
}

// Where the white space begins that ends at `end`.
size_t WhiteSpaceBegin(absl::string_view text, size_t end) {
  while (end > 0) {
    const absl::string_view character = LastCharacter(text.substr(0, end));
    if (!IsWhiteSpace(CodePoint(character))) {
      break;
    }
    end -= character.size();
  }
  return end;
}

size_t WhiteSpaceEnd(absl::string_view text, size_t begin) {
  while (begin < text.size()) {
    const absl::string_view character = FirstCharacter(text.substr(begin));
    if (!IsWhiteSpace(CodePoint(character))) {
      break;
    }
    begin += character.size();
  }
  return begin;
}

}  // namespace

absl::Status TokenFinder::Add(const AddedToken& token, absl::string_view written) {
  if (written.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the added token ", Quoted(token.content), " is empty once normalized"));
  }
  uint32_t node = 0;
  for (const char c : written) {
    const uint32_t fresh = static_cast<uint32_t>(nodes_.size());
    const uint32_t next =
        nodes_[node].next.try_emplace(static_cast<uint8_t>(c), fresh).first->second;
    if (next == fresh) {
      nodes_.emplace_back();
    }
    node = next;
  }
  if (!nodes_[node].token.has_value()) {
    nodes_[node].token = tokens_.size();
    tokens_.push_back(token);
  }
  return absl::OkStatus();
}

std::optional<TokenFinder::Match> TokenFinder::LongestAt(absl::string_view text) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found = nodes_[node].next.find(static_cast<uint8_t>(text[i]));
    if (found == nodes_[node].next.end()) {
      break;
    }
    node = found->second;
    if (nodes_[node].token.has_value()) {
      longest = {*nodes_[node].token, i + 1};
    }
  }
  return longest;
}

absl::StatusOr<std::vector<TextPart>> TokenFinder::Find(absl::string_view text) const {
  std::vector<TextPart> parts;
  size_t done = 0;  // Up to where `parts` reach.
  size_t at = 0;
  while (at < text.size()) {
    const std::optional<Match> match = LongestAt(text.substr(at));
    if (!match.has_value()) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + match->bytes;
    at = end;
    const AddedToken& token = tokens_[match->token];
    if (token.single_word) {
      ASSIGN_OR_RETURN(const bool touches, TouchesWord(text, begin, end));
      if (touches) {
        continue;
      }
    }
    if (token.lstrip) {
      begin = std::max(WhiteSpaceBegin(text, begin), done);
    }
    if (token.rstrip) {
      end = WhiteSpaceEnd(text, end);
    }
    if (done < begin) {
      parts.push_back({{done, begin}, std::nullopt});
    }
    parts.push_back({{begin, end}, token.id});
    done = end;
  }
  if (done < text.size()) {
    parts.push_back({{done, text.size()}, std::nullopt});
  }
  return parts;
}

absl::StatusOr<AddedTokens> AddedTokens::Create(const std::vector<AddedToken>& tokens,
                                                const Normalizer& normalizer) {
  AddedTokens added;
  // Where two are written alike, special ones come first.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens) {
      if (token.special != special) {
        continue;
      }
      std::string written = token.content;
      if (token.normalized) {
        RETURN_IF_ERROR(normalizer.Apply(&written));
      }
      RETURN_IF_ERROR(
          (token.normalized ? added.in_normalized_text_ : added.in_text_).Add(token, written));
    }
  }
  return added;
}

}  // namespace expertmesh::tokenizer
