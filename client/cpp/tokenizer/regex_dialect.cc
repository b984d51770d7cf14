#include "client/cpp/tokenizer/regex_dialect.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/regex_escape.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

constexpr size_t kNone = absl::string_view::npos;

// Letters that together fold to one character ("ss" to U+00DF, "st" to U+FB06). Oniguruma matches
// that character for them, PCRE2 does not.
constexpr absl::string_view kFoldingPairs[] = {"ss", "ff", "fi", "fl", "st"};

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < in_.size()) {
      RETURN_IF_ERROR(One());
    }
    if (!groups_.empty()) {
      return Refuse(in_.size(), "a ')' is missing");
    }
    return std::move(out_);
  }

 private:
  struct Group {
    size_t out_begin;
    bool caseless_outside;
    bool looks_around;
  };

  absl::Status Refuse(size_t at, absl::string_view why) const { return RefuseRegex(at, why); }
  absl::string_view Rest() const { return in_.substr(at_); }
  bool Take(absl::string_view text) {
    if (Rest().substr(0, text.size()) != text) {
      return false;
    }
    at_ += text.size();
    return true;
  }

  // Whatever follows may be repeated by a quantifier.
  void BeginAtom() { atom_ = out_.size(); }
  void EndAtoms() {
    atom_ = kNone;
    last_letter_ = 0;
  }

  absl::Status One();
  absl::Status Literal();
  absl::Status OpenGroup();
  absl::Status CloseGroup();
  absl::Status Quantifier();
  absl::StatusOr<bool> Interval();
  absl::Status Set();
  absl::Status SetItems();
  absl::Status EscapeOutside();
  absl::StatusOr<RegexEscape> Escape();

  absl::string_view in_;
  size_t at_ = 0;
  std::string out_;
  // Where in out_ the part begins that a quantifier here would repeat.
  size_t atom_ = kNone;
  std::vector<Group> groups_;
  bool caseless_ = false;
  // The literal before this place in a caseless group, in lower case.
  char last_letter_ = 0;
};

absl::Status Translator::One() {
  switch (in_[at_]) {
    case '(':
      return OpenGroup();
    case ')':
      return CloseGroup();
    case '[':
      return Set();
    case '\\':
      return EscapeOutside();
    case '*':
    case '+':
    case '?':
      return Quantifier();
    case '{': {
      ASSIGN_OR_RETURN(const bool interval, Interval());
      if (interval) {
        return absl::OkStatus();
      }
      BeginAtom();
      out_ += "\\{";
      ++at_;
      return absl::OkStatus();
    }
    case '|':
    case '^':
    case '$':
      EndAtoms();
      out_ += in_[at_++];
      return absl::OkStatus();
    case '.':
      BeginAtom();
      out_ += in_[at_++];
      return absl::OkStatus();
    default:
      return Literal();
  }
}

absl::Status Translator::Literal() {
  BeginAtom();
  const absl::string_view character = FirstCharacter(Rest());
  if (caseless_) {
    const char pair[] = {last_letter_, absl::ascii_tolower(static_cast<unsigned char>(in_[at_]))};
    const bool folds = std::find(std::begin(kFoldingPairs), std::end(kFoldingPairs),
                                 absl::string_view(pair, 2)) != std::end(kFoldingPairs);
    if (character.size() > 1 || folds) {
      return Refuse(at_,
                    "a caseless group (?i:...) may hold ASCII only, and none of ss, ff, fi, "
                    "fl, st");
    }
    last_letter_ = pair[1];
  }
  out_.append(character.data(), character.size());
  at_ += character.size();
  return absl::OkStatus();
}

absl::Status Translator::OpenGroup() {
  const size_t begin = at_;
  Group group{out_.size(), caseless_, false};
  ++at_;
  if (Take("?i:")) {
    caseless_ = true;
    out_ += "(?i:";
  } else if (Take("?:") || !absl::StartsWith(Rest(), "?")) {
    // No back references here, so nothing needs to be captured.
    out_ += "(?:";
  } else {
    group.looks_around = true;
    absl::string_view kind;
    for (const absl::string_view known : {"?=", "?!", "?<=", "?<!", "?>"}) {
      if (Take(known)) {
        kind = known;
        break;
      }
    }
    if (kind.empty()) {
      return Refuse(begin,
                    "of groups only (...), (?:...), (?i:...), (?=...), (?!...), (?<=...), "
                    "(?<!...) and (?>...) are supported");
    }
    group.looks_around = kind != "?>";
    absl::StrAppend(&out_, "(", kind);
  }
  EndAtoms();
  groups_.push_back(group);
  return absl::OkStatus();
}

absl::Status Translator::CloseGroup() {
  if (groups_.empty()) {
    return Refuse(at_, "a ')' closes nothing");
  }
  const Group group = groups_.back();
  groups_.pop_back();
  caseless_ = group.caseless_outside;
  out_ += ')';
  ++at_;
  EndAtoms();
  if (!group.looks_around) {
    atom_ = group.out_begin;
  }
  return absl::OkStatus();
}

absl::Status Translator::Quantifier() {
  if (atom_ == kNone) {
    return Refuse(at_, "a quantifier that repeats nothing, or a quantifier or look-around");
  }
  if (caseless_ && in_[at_] != '?') {
    return Refuse(at_, "a caseless group (?i:...) may repeat its parts by ? only");
  }
  out_ += in_[at_++];
  // Lazy and possessive, alike in both.
  if (at_ < in_.size() && (in_[at_] == '?' || in_[at_] == '+')) {
    out_ += in_[at_++];
  }
  EndAtoms();
  return absl::OkStatus();
}

// {n}, {n,}, {n,m} and {,m}. False when the brace is an ordinary character.
absl::StatusOr<bool> Translator::Interval() {
  const size_t close = in_.find('}', at_);
  if (close == kNone) {
    return false;
  }
  const absl::string_view inside = in_.substr(at_ + 1, close - at_ - 1);
  const size_t comma = std::min(inside.find(','), inside.size());
  const absl::string_view low = inside.substr(0, comma);
  const absl::string_view high = comma < inside.size() ? inside.substr(comma + 1) : low;
  const auto digits = [](absl::string_view text) {
    return std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  };
  if (!digits(low) || !digits(high) || (low.empty() && high.empty())) {
    return false;
  }
  int least = 0;
  int most = 0;
  const bool fits = (low.empty() || absl::SimpleAtoi(low, &least)) &&
                    (high.empty() || (absl::SimpleAtoi(high, &most) && least <= most));
  if (!fits || atom_ == kNone || caseless_) {
    return Refuse(at_, "an interval that cannot be, or with nothing or a caseless part to repeat");
  }
  at_ = close + 1;
  absl::StrAppend(&out_, "{", least, ",", high, "}");
  if (Take("?")) {
    if (comma == inside.size()) {
      return Refuse(at_ - 1, "{n}? means different things to different engines");
    }
    out_ += '?';
  } else if (at_ < in_.size() && (in_[at_] == '+' || in_[at_] == '*')) {
    // A second quantifier here, but a possessive one to PCRE2.
    out_.insert(atom_, "(?:");
    out_ += ')';
    out_ += in_[at_++];
  }
  EndAtoms();
  return true;
}

absl::Status Translator::Set() {
  BeginAtom();
  last_letter_ = 0;
  out_ += '[';
  ++at_;
  if (Take("^")) {
    if (caseless_) {
      return Refuse(at_, "a caseless group (?i:...) may hold no negated set");
    }
    out_ += '^';
  }
  if (Rest().substr(0, 1) == "]") {
    return Refuse(at_, "a set that begins with ']'");
  }
  RETURN_IF_ERROR(SetItems());
  out_ += ']';
  return absl::OkStatus();
}

// Up to and with the closing bracket.
absl::Status Translator::SetItems() {
  const size_t begin = at_;
  bool after_set = false;
  while (at_ < in_.size()) {
    if (Take("]")) {
      return absl::OkStatus();
    }
    if (in_[at_] == '[' || absl::StartsWith(Rest(), "&&")) {
      return Refuse(at_, "sets in sets ('[' or '&&' between brackets) are not supported");
    }
    const bool dash = in_[at_] == '-';
    if (dash && after_set && Rest().substr(1, 1) != "]") {
      return Refuse(at_, "a '-' between a class and a character");
    }
    const bool may_end_range = at_ > begin + 1 && in_[at_ - 1] == '-' && in_[at_ - 2] != '\\';
    after_set = false;
    if (in_[at_] == '\\') {
      const size_t escape = at_;
      const absl::StatusOr<RegexEscape> escaped = Escape();
      RETURN_IF_ERROR(escaped.status());
      if (escaped->is_anchor || (escaped->is_class && may_end_range)) {
        return Refuse(escape, escaped->is_anchor ? "an anchor in a set"
                                                 : "a '-' between a character and a class");
      }
      after_set = escaped->is_class;
      out_ += escaped->in_set;
      continue;
    }
    const absl::string_view character = FirstCharacter(Rest());
    if (caseless_ && character.size() > 1) {
      return Refuse(at_, "a caseless group (?i:...) may hold ASCII only");
    }
    out_.append(character.data(), character.size());
    at_ += character.size();
  }
  return Refuse(in_.size(), "a ']' is missing");
}

absl::Status Translator::EscapeOutside() {
  BeginAtom();
  const absl::StatusOr<RegexEscape> escaped = Escape();
  RETURN_IF_ERROR(escaped.status());
  last_letter_ = 0;
  if (escaped->is_anchor) {
    EndAtoms();
  }
  out_ += escaped->outside;
  return absl::OkStatus();
}

absl::StatusOr<RegexEscape> Translator::Escape() {
  // Folding and classes of letters mix differently in both engines.
  if (caseless_ && at_ + 1 < in_.size() &&
      absl::ascii_isalnum(static_cast<unsigned char>(in_[at_ + 1]))) {
    return Refuse(at_, "a caseless group (?i:...) may hold no escape of a letter");
  }
  return ReadRegexEscape(in_, &at_);
}

}  // namespace

absl::StatusOr<std::string> Pcre2Pattern(absl::string_view oniguruma) {
  return Translator(oniguruma).Run();
}

}  // namespace expertmesh::tokenizer
