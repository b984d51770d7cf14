#include "common/otlp/span_cut.h"

#include <cstddef>

namespace expertmesh::otlp {
namespace {

// ScopeSpans.spans: field 2, a message.
constexpr char kSpanTag = 2 << 3 | 2;
// Lengths have 28 bits at the most, in up to four bytes.
constexpr size_t kMostLengthBytes = 4;

// Bytes of the span that `spans` begins with; 0 when it begins with none.
size_t FirstSpan(absl::string_view spans) {
  if (spans.empty() || spans[0] != kSpanTag) {
    return 0;
  }
  size_t length = 0;
  for (size_t i = 1; i <= kMostLengthBytes && i < spans.size(); ++i) {
    const auto byte = static_cast<uint8_t>(spans[i]);
    length |= size_t{byte & 0x7fu} << 7 * (i - 1);
    if ((byte & 0x80) == 0) {
      return length <= spans.size() - i - 1 ? i + 1 + length : 0;
    }
  }
  return 0;
}

}  // namespace

LeftOut CutSpans(absl::string_view spans, uint64_t most_spans, uint64_t most_bytes,
                 absl::FunctionRef<void(absl::string_view bytes, uint32_t count)> piece) {
  LeftOut left_out;
  size_t begin = 0;
  size_t end = 0;
  uint32_t count = 0;
  const auto finish = [&] {
    if (count > 0) {
      piece(spans.substr(begin, end - begin), count);
    }
    begin = end;
    count = 0;
  };
  while (end < spans.size()) {
    const size_t size = FirstSpan(spans.substr(end));
    if (size == 0) {
      left_out.malformed = true;
      break;
    }
    if (count == most_spans || end + size - begin > most_bytes) {
      finish();
    }
    end += size;
    if (size > most_bytes) {
      ++left_out.too_large;
      begin = end;
    } else {
      ++count;
    }
  }
  finish();
  return left_out;
}

}  // namespace expertmesh::otlp
