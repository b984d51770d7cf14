#include "common/trace/trace_context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"

namespace expertmesh::trace {
namespace {

constexpr size_t kVersionDigits = 2;
constexpr size_t kTraceIdBegin = 3;
constexpr size_t kSpanIdBegin = 36;
constexpr size_t kFlagsBegin = 53;
constexpr size_t kMostMembers = 32;
constexpr size_t kMostKeyLength = 256;
constexpr size_t kMostValueLength = 256;
// Four times what everyone has to pass on. gRPC's servers refuse 8 KiB of metadata in all.
constexpr size_t kMostTracestateLength = 2048;

// The value of a lower-case hexadecimal digit, or -1.
int DigitValue(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// False unless all of `digits`, at most 16, are lower-case hexadecimal.
bool ReadHex(absl::string_view digits, uint64_t* value) {
  *value = 0;
  for (const char c : digits) {
    const int digit = DigitValue(c);
    if (digit < 0) {
      return false;
    }
    *value = *value << 4 | static_cast<uint64_t>(digit);
  }
  return true;
}

void WriteHex(uint64_t value, size_t digits, char* out) {
  for (size_t i = digits; i > 0; --i) {
    out[i - 1] = "0123456789abcdef"[value & 0xf];
    value >>= 4;
  }
}

bool IsKey(absl::string_view key) {
  const auto begins = [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); };
  const auto goes_on = [&](char c) {
    return begins(c) || c == '_' || c == '-' || c == '*' || c == '/' || c == '@';
  };
  return !key.empty() && key.size() <= kMostKeyLength && begins(key.front()) &&
         std::all_of(key.begin(), key.end(), goes_on);
}

bool IsValue(absl::string_view value) {
  const auto allowed = [](char c) { return c >= ' ' && c <= '~' && c != ',' && c != '='; };
  return !value.empty() && value.size() <= kMostValueLength && value.back() != ' ' &&
         std::all_of(value.begin(), value.end(), allowed);
}

bool IsValidTracestate(absl::string_view tracestate) {
  std::array<absl::string_view, kMostMembers> keys;
  size_t members = 0;
  while (!tracestate.empty()) {
    const size_t comma = std::min(tracestate.find(','), tracestate.size());
    // Spaces and tabs may surround a member, and a member may be empty.
    const absl::string_view member = absl::StripAsciiWhitespace(tracestate.substr(0, comma));
    tracestate.remove_prefix(std::min(comma + 1, tracestate.size()));
    if (member.empty()) {
      continue;
    }
    const size_t equals = std::min(member.find('='), member.size());
    const absl::string_view key = member.substr(0, equals);
    if (equals == member.size() || !IsKey(key) || !IsValue(member.substr(equals + 1)) ||
        members == kMostMembers ||
        std::find(keys.begin(), keys.begin() + members, key) != keys.begin() + members) {
      return false;
    }
    keys[members++] = key;
  }
  return true;
}

}  // namespace

std::string ToHex(const TraceId& id) {
  std::string hex(32, '0');
  WriteHex(id.high, 16, hex.data());
  WriteHex(id.low, 16, hex.data() + 16);
  return hex;
}

std::string ToHex(SpanId id) {
  std::string hex(16, '0');
  WriteHex(id, 16, hex.data());
  return hex;
}

std::optional<TraceId> ParseTraceId(absl::string_view hex) {
  const std::string lower = absl::AsciiStrToLower(hex);
  TraceId id;
  if (lower.size() != 32 || !ReadHex(absl::string_view(lower).substr(0, 16), &id.high) ||
      !ReadHex(absl::string_view(lower).substr(16), &id.low) || !id.valid()) {
    return std::nullopt;
  }
  return id;
}

TraceContext ParseTraceparent(absl::string_view traceparent) {
  traceparent = absl::StripAsciiWhitespace(traceparent);
  if (traceparent.size() < kTraceparentLength || traceparent[kVersionDigits] != '-' ||
      traceparent[kSpanIdBegin - 1] != '-' || traceparent[kFlagsBegin - 1] != '-') {
    return {};
  }
  uint64_t version = 0;
  uint64_t flags = 0;
  TraceContext context;
  if (!ReadHex(traceparent.substr(0, kVersionDigits), &version) ||
      !ReadHex(traceparent.substr(kTraceIdBegin, 16), &context.trace_id.high) ||
      !ReadHex(traceparent.substr(kTraceIdBegin + 16, 16), &context.trace_id.low) ||
      !ReadHex(traceparent.substr(kSpanIdBegin, 16), &context.span_id) ||
      !ReadHex(traceparent.substr(kFlagsBegin, 2), &flags)) {
    return {};
  }
  // A later version may say more, behind another dash.
  const bool more = traceparent.size() > kTraceparentLength;
  if (version == 0xff || (more && (version == 0 || traceparent[kTraceparentLength] != '-')) ||
      !context.valid()) {
    return {};
  }
  context.flags = static_cast<uint8_t>(flags & (kSampledFlag | kRandomFlag));
  return context;
}

std::array<char, kTraceparentLength> FormatTraceparent(const TraceContext& context) {
  std::array<char, kTraceparentLength> text;
  text.fill('-');
  WriteHex(0, kVersionDigits, text.data());
  WriteHex(context.trace_id.high, 16, text.data() + kTraceIdBegin);
  WriteHex(context.trace_id.low, 16, text.data() + kTraceIdBegin + 16);
  WriteHex(context.span_id, 16, text.data() + kSpanIdBegin);
  WriteHex(context.flags & (kSampledFlag | kRandomFlag), 2, text.data() + kFlagsBegin);
  return text;
}

absl::string_view TracestateToPass(absl::string_view tracestate) {
  if (!IsValidTracestate(tracestate)) {
    return {};
  }
  if (tracestate.size() <= kMostTracestateLength) {
    return tracestate;
  }
  const size_t end = tracestate.rfind(',', kMostTracestateLength);
  return tracestate.substr(0, end == absl::string_view::npos ? 0 : end);
}

}  // namespace expertmesh::trace
