#include "client/cpp/tokenizer/regex.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/regex_dialect.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace expertmesh::tokenizer {
namespace {

// A step is about one attempt to match a part. Repeats of one character take one per character when
// they fail, so this is also the longest run of white space, say, in a text.
constexpr uint32_t kMaxSteps = 10'000'000;
// Of one text. Patterns whose every attempt reads the rest of the text take few steps each, but
// take them at every byte.
constexpr std::chrono::seconds kMaxTime(10);
// Bytes of a text between two looks at the clock.
constexpr size_t kWindow = 256;
// For the matcher that is not compiled, which keeps what it may come back to on the heap.
constexpr uint32_t kMaxHeapKiB = 256 * 1024;

PCRE2_SPTR Bytes(absl::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string ErrorText(int code) {
  char text[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof(text));
  return text;
}

// What one search works with.
class Search {
 public:
  explicit Search(const pcre2_code* code)
      : code_(code),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_, kMaxSteps);
    pcre2_set_heap_limit(context_, kMaxHeapKiB);
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;
  ~Search() {
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }

  // False when there is no match from `from` on, which is where a character begins.
  absl::StatusOr<bool> Next(absl::string_view text, size_t from, ByteRange* match) {
    while (from <= text.size()) {
      if (std::chrono::steady_clock::now() - start_ > kMaxTime) {
        return GaveUp(text, from, "it takes too long");
      }
      // No match may begin behind the window.
      const size_t last = std::min(from + kWindow, text.size());
      pcre2_set_offset_limit(context_, last);
      const int result = Match(text, from);
      if (result >= 0) {
        const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data_);
        *match = {ends[0], ends[1]};
        return true;
      }
      if (result != PCRE2_ERROR_NOMATCH) {
        return GaveUp(text, from, ErrorText(result));
      }
      from = last + 1;
      while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) {
        ++from;
      }
    }
    return false;
  }

 private:
  static absl::Status GaveUp(absl::string_view text, size_t from, absl::string_view why) {
    return absl::ResourceExhaustedError(absl::StrCat("a pattern of the tokenizer gave up at byte ",
                                                     from, " of ", text.size(), ": ", why));
  }

  int Match(absl::string_view text, size_t from) {
    // Its own check of UTF-8 would read the whole rest of the text once for every match.
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int result = 0;
    do {
      result = pcre2_match(code_, Bytes(text), text.size(), from, options, data_, context_);
      options |= PCRE2_NO_JIT;
    } while (result == PCRE2_ERROR_JIT_STACKLIMIT);
    return result;
  }

  const pcre2_code* code_;
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::CompilePcre2(absl::string_view pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(
      Bytes(pattern), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C,
      &error, &offset, nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(ErrorText(error));
  }
  // Only faster: without it the pattern is interpreted.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  ASSIGN_OR_RETURN(const std::string translated, Pcre2Pattern(pattern));
  return CompilePcre2(translated);
}

absl::StatusOr<Regex> Regex::Literal(absl::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const bool special =
        c != '\0' && absl::string_view("\\^$.[|()?*+{}]-#").find(c) != absl::string_view::npos;
    absl::StrAppend(&pattern, special ? "\\" : "", absl::string_view(&c, 1));
  }
  return CompilePcre2(pattern);
}

Regex Regex::Pcre2(absl::string_view pattern) { return CompilePcre2(pattern).value(); }

absl::Status Regex::FindAll(absl::string_view text, std::vector<ByteRange>* matches) const {
  matches->clear();
  Search search(code_.get());
  size_t from = 0;
  while (from <= text.size()) {
    ByteRange match;
    ASSIGN_OR_RETURN(const bool found, search.Next(text, from, &match));
    if (!found) {
      break;
    }
    if (match.size() == 0 && !matches->empty() && matches->back().end == match.end) {
      from = match.end < text.size() ? match.end + FirstCharacter(text.substr(match.end)).size()
                                     : text.size() + 1;
      continue;
    }
    matches->push_back(match);
    from = match.end;
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::tokenizer
