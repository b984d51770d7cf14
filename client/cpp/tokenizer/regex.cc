#include "client/cpp/tokenizer/regex.h"

#include <oniguruma.h>

#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

// Steps back in one attempt to match.
constexpr unsigned long kMaxRetries = 10'000'000;  // NOLINT(google-runtime-int): Oniguruma's type.
// Places that one attempt may come back to; each takes 32 bytes. A repeat keeps one for every
// round, so this is also the longest run of white space, say, in a text.
constexpr unsigned kMaxPlaces = 6'000'000;
// For one text. Patterns whose every attempt reads the rest of the text take few steps back each,
// but take them at every character.
constexpr std::chrono::seconds kMaxTime(10);
// Attempts between two looks at the clock.
constexpr int kAttemptsPerLook = 16;
// Oniguruma counts bytes in an int.
constexpr size_t kMaxBytes = std::numeric_limits<int>::max();

const OnigUChar* Begin(absl::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}
const OnigUChar* End(absl::string_view text) { return Begin(text) + text.size(); }

std::string ErrorText(int code, OnigErrorInfo* info = nullptr) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN] = {};
  const int size = onig_error_code_to_str(text, code, info);
  return std::string(reinterpret_cast<const char*>(text), static_cast<size_t>(size));
}

// Once this is done, any number of threads may compile patterns and search.
void InitializeOnce() {
  static const int result = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    return onig_initialize(encodings, 1);
  }();
  EXPERTMESH_CHECK(result == ONIG_NORMAL);
}

absl::StatusOr<OnigRegex> CompileAs(OnigSyntaxType* syntax, absl::string_view pattern) {
  InitializeOnce();
  if (pattern.size() > kMaxBytes) {
    return absl::InvalidArgumentError("a pattern may have 2 GiB at most");
  }
  OnigRegex code = nullptr;
  OnigErrorInfo info = {};
  const int result = onig_new(&code, Begin(pattern), End(pattern), ONIG_OPTION_NONE,
                              ONIG_ENCODING_UTF8, syntax, &info);
  if (result != ONIG_NORMAL) {
    return absl::InvalidArgumentError(ErrorText(result, &info));
  }
  return code;
}

// What one search of one text works with. It goes from place to place by itself, since Oniguruma's
// own search looks at no clock.
class Search {
 public:
  Search(OnigRegex code, absl::string_view text)
      : code_(code), text_(text), region_(onig_region_new()), bounds_(onig_new_match_param()) {
    onig_set_retry_limit_in_match_of_match_param(bounds_, kMaxRetries);
    onig_set_match_stack_limit_size_of_match_param(bounds_, kMaxPlaces);
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;
  ~Search() {
    onig_free_match_param(bounds_);
    onig_region_free(region_, /*free_self=*/1);
  }

  // False when there is no match from `from` on, which is where a character begins.
  absl::StatusOr<bool> Next(size_t from, ByteRange* match) {
    for (size_t at = from; at <= text_.size(); at = Behind(at)) {
      if (++attempts_ % kAttemptsPerLook == 0 &&
          std::chrono::steady_clock::now() - start_ > kMaxTime) {
        return GaveUp(at, "it takes too long");
      }
      // \G is where the search began.
      const OnigOptionType options = at == from ? ONIG_OPTION_NONE : ONIG_OPTION_NOT_BEGIN_POSITION;
      const int result = onig_match_with_param(code_, Begin(text_), End(text_), Begin(text_) + at,
                                               region_, options, bounds_);
      if (result >= 0) {
        *match = {static_cast<size_t>(region_->beg[0]), static_cast<size_t>(region_->end[0])};
        return true;
      }
      if (result != ONIG_MISMATCH) {
        return GaveUp(at, ErrorText(result));
      }
    }
    return false;
  }

  // Where the character ends that begins at `at`; behind the text when none does.
  size_t Behind(size_t at) const {
    return at < text_.size() ? at + FirstCharacter(text_.substr(at)).size() : text_.size() + 1;
  }

 private:
  absl::Status GaveUp(size_t at, absl::string_view why) const {
    return absl::ResourceExhaustedError(absl::StrCat("a pattern of the tokenizer gave up at byte ",
                                                     at, " of ", text_.size(), ": ", why));
  }

  OnigRegex code_;
  absl::string_view text_;
  OnigRegion* region_;
  OnigMatchParam* bounds_;
  int attempts_ = 0;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void Regex::Free::operator()(re_pattern_buffer* code) const { onig_free(code); }

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  ASSIGN_OR_RETURN(const OnigRegex code, CompileAs(ONIG_SYNTAX_ONIGURUMA, pattern));
  return Regex(Code(code));
}

absl::StatusOr<Regex> Regex::Literal(absl::string_view text) {
  ASSIGN_OR_RETURN(const OnigRegex code, CompileAs(ONIG_SYNTAX_ASIS, text));
  return Regex(Code(code));
}

absl::Status Regex::FindAll(absl::string_view text, std::vector<ByteRange>* matches) const {
  matches->clear();
  if (text.size() > kMaxBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a text of ", text.size(), " bytes is too long for a pattern of the tokenizer; cut it"));
  }
  Search search(code_.get(), text);
  size_t from = 0;
  while (from <= text.size()) {
    ByteRange match;
    ASSIGN_OR_RETURN(const bool found, search.Next(from, &match));
    if (!found) {
      break;
    }
    if (match.size() == 0 && !matches->empty() && matches->back().end == match.end) {
      from = search.Behind(match.end);
      continue;
    }
    matches->push_back(match);
    from = match.end;
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::tokenizer
