#include "common/otlp/environment_reader.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/peer_text.h"
#include "common/base/percent.h"

namespace expertmesh::otlp {
namespace {

constexpr uint64_t kDayMillis = 24 * 3600 * 1000;
constexpr size_t kMostShown = 64;

bool IsHeaderKey(absl::string_view key) {
  return !key.empty() && !absl::StartsWith(key, "grpc-") && !absl::EndsWith(key, "-bin") &&
         std::all_of(key.begin(), key.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '-' ||
                  c == '.';
         });
}

bool IsHeaderValue(absl::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

EnvironmentReader::Variable EnvironmentReader::Get(const std::string& name) const {
  return {name, std::string(absl::StripAsciiWhitespace((*environment_)(name)))};
}

EnvironmentReader::Variable EnvironmentReader::Otlp(const std::string& suffix) const {
  const Variable traces = Get("OTEL_EXPORTER_OTLP_TRACES_" + suffix);
  return traces.set() ? traces : Get("OTEL_EXPORTER_OTLP_" + suffix);
}

uint64_t EnvironmentReader::Number(const Variable& variable, uint64_t least, uint64_t most,
                                   uint64_t fallback) {
  if (!variable.set()) {
    return fallback;
  }
  uint64_t number = 0;
  if (!absl::SimpleAtoi(variable.value, &number) || number < least || number > most) {
    WarnOfValue(variable, absl::StrCat("a whole number from ", least, " to ", most),
                absl::StrCat(fallback));
    return fallback;
  }
  return number;
}

absl::Duration EnvironmentReader::Millis(const Variable& variable, uint64_t least,
                                         absl::Duration fallback) {
  const auto millis = static_cast<uint64_t>(absl::ToInt64Milliseconds(fallback));
  return absl::Milliseconds(Number(variable, least, kDayMillis, millis));
}

double EnvironmentReader::Ratio(const Variable& variable) {
  constexpr double kAll = 1;
  double ratio = 0;
  if (!variable.set()) {
    return kAll;
  }
  if (!absl::SimpleAtod(variable.value, &ratio) || !(ratio >= 0 && ratio <= 1)) {
    WarnOfValue(variable, "a number from 0 to 1", "1");
    return kAll;
  }
  return ratio;
}

std::string EnvironmentReader::Word(const Variable& variable,
                                    absl::Span<const absl::string_view> words) {
  const std::string word = absl::AsciiStrToLower(variable.value);
  if (std::find(words.begin(), words.end(), word) != words.end()) {
    return word;
  }
  if (variable.set()) {
    WarnOfValue(variable, absl::StrCat("one of ", absl::StrJoin(words, ", ")), words.front());
  }
  return std::string(words.front());
}

bool EnvironmentReader::Flag(const Variable& variable) {
  if (absl::EqualsIgnoreCase(variable.value, "true")) {
    return true;
  }
  if (variable.set() && !absl::EqualsIgnoreCase(variable.value, "false")) {
    WarnOfValue(variable, "true or false", "false");
  }
  return false;
}

std::vector<std::pair<std::string, std::string>> EnvironmentReader::Headers(
    const Variable& variable) {
  std::vector<std::pair<std::string, std::string>> headers;
  int left_out = 0;
  for (const absl::string_view pair : absl::StrSplit(variable.value, ',', absl::SkipWhitespace())) {
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string key =
        absl::AsciiStrToLower(absl::StripAsciiWhitespace(pair.substr(0, equals)));
    const std::optional<std::string> value =
        PercentDecoded(absl::StripAsciiWhitespace(pair.substr(std::min(equals + 1, pair.size()))));
    if (equals == pair.size() || !IsHeaderKey(key) || !value.has_value() ||
        !IsHeaderValue(*value)) {
      ++left_out;
      continue;
    }
    headers.emplace_back(key, *value);
  }
  if (left_out > 0) {
    // Values may be secrets: none is shown.
    Warn(variable, absl::StrCat(left_out, left_out == 1 ? " pair is" : " pairs are",
                                " left out; write key=value,key=value with keys of letters, digits "
                                "and _-. and with values percent-encoded"));
  }
  return headers;
}

absl::StatusOr<std::string> EnvironmentReader::File(const Variable& variable) const {
  if (!variable.set()) {
    return std::string();
  }
  std::ifstream file(variable.value, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || content.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(variable.name, " names ", PeerText(variable.value),
                     ", which cannot be read or is empty; name a file in PEM"));
  }
  return content;
}

void EnvironmentReader::Warn(const Variable& variable, absl::string_view what) {
  warnings_->push_back(absl::StrCat(variable.name, ": ", what));
}

void EnvironmentReader::WarnOfValue(const Variable& variable, absl::string_view wanted,
                                    absl::string_view counts) {
  Warn(variable, absl::StrCat("\"", PeerText(variable.value, kMostShown), "\" is not ", wanted,
                              "; ", counts, " counts instead"));
}

}  // namespace expertmesh::otlp
