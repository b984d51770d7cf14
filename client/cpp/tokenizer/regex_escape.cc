#include "client/cpp/tokenizer/regex_escape.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh::tokenizer {
namespace {

constexpr absl::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn",
};

RegexEscape Character(std::string text) { return {text, text}; }
RegexEscape Class(std::string text) { return {text, text, true}; }

// PCRE2's own \s and \S count U+180E as white space.
RegexEscape Space(bool negated) {
  constexpr absl::string_view kSpace = "\\t-\\r\\x{85}\\p{Z}";
  if (negated) {
    return {absl::StrCat("[^", kSpace, "]"), "\\S\\x{180E}", true};
  }
  return {absl::StrCat("[", kSpace, "]"), std::string(kSpace), true};
}

// Behind \p: {L}, {^L} or {Han}.
absl::StatusOr<std::string> ReadProperty(absl::string_view pattern, size_t* at) {
  const size_t begin = *at;
  const size_t close = pattern.find('}', begin);
  if (!absl::StartsWith(pattern.substr(begin), "{") || close == absl::string_view::npos) {
    return RefuseRegex(begin, "\\p wants a name in braces");
  }
  *at = close + 1;
  absl::string_view name = pattern.substr(begin + 1, close - begin - 1);
  const absl::string_view negation = absl::StartsWith(name, "^") ? "^" : "";
  name.remove_prefix(negation.size());
  const bool category =
      std::find(std::begin(kCategories), std::end(kCategories), name) != std::end(kCategories);
  const bool script = name.size() > 2 && std::all_of(name.begin(), name.end(), [](char c) {
                        return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_';
                      });
  if (!category && !script) {
    return RefuseRegex(
        begin,
        absl::StrCat("\\p{", name, "} is neither a general category of Unicode nor a script"));
  }
  // A plain script is the script extensions to PCRE2.
  return absl::StrCat("{", negation, category ? "" : "sc:", name, "}");
}

// HH, {H...} or, of \u, HHHH.
absl::StatusOr<std::string> ReadHexadecimal(absl::string_view pattern, bool is_u, size_t* at) {
  const size_t begin = *at;
  const absl::string_view rest = pattern.substr(begin);
  const bool braces = !is_u && absl::StartsWith(rest, "{");
  const size_t wanted = is_u ? 4 : 2;
  const absl::string_view digits =
      braces ? rest.substr(1, std::min(rest.find('}'), rest.size()) - 1) : rest.substr(0, wanted);
  *at = begin + digits.size() + (braces ? 2 : 0);
  uint32_t value = 0;
  const bool complete = braces ? *at <= pattern.size() && !digits.empty() && digits.size() <= 6
                               : digits.size() == wanted;
  if (!complete || !std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit) ||
      !absl::SimpleHexAtoi(digits, &value)) {
    return RefuseRegex(begin, "\\x wants two digits or some in braces, \\u four");
  }
  if (!is_u && !braces && value > 0x7F) {
    return RefuseRegex(begin, "\\xHH above 7F is a byte and no character");
  }
  return absl::StrCat("\\x{", digits, "}");
}

}  // namespace

absl::Status RefuseRegex(size_t at, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(why, ", at byte ", at));
}

absl::StatusOr<RegexEscape> ReadRegexEscape(absl::string_view pattern, size_t* at) {
  const size_t begin = *at;
  if (begin + 1 >= pattern.size()) {
    return RefuseRegex(begin, "a backslash ends the pattern");
  }
  const char c = pattern[begin + 1];
  const std::string same(pattern.substr(begin, 2));
  *at += 2;
  switch (c) {
    case 's':
    case 'S':
      return Space(c == 'S');
    case 'd':
    case 'D':
      return Class(same);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
      return Character(same);
    case 'v':
      return Character("\\x{B}");
    case 'A':
    case 'z':
      return RegexEscape{same, "", false, true};
    case 'p':
    case 'P': {
      ASSIGN_OR_RETURN(const std::string property, ReadProperty(pattern, at));
      return Class(same + property);
    }
    case 'x':
    case 'u': {
      ASSIGN_OR_RETURN(std::string character, ReadHexadecimal(pattern, c == 'u', at));
      return Character(std::move(character));
    }
    default:
      if (!absl::ascii_ispunct(static_cast<unsigned char>(c)) && c != ' ') {
        return RefuseRegex(
            begin, absl::StrCat("the escape ", checkpoint::Quoted(same),
                                " is not supported; supported: \\s \\S \\d \\D \\p{} \\P{} \\n "
                                "\\r \\t \\f \\v \\a \\e \\A \\z \\xHH \\x{} \\uHHHH"));
      }
      return Character(same);
  }
}

}  // namespace expertmesh::tokenizer
