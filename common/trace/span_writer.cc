#include "common/trace/span_writer.h"

#include <algorithm>
#include <cstring>

#include "common/base/peer_text.h"

namespace expertmesh::trace {
namespace {

// Wire types of protobuf.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Field numbers of OTLP.
constexpr uint32_t kSpansOfScope = 2;
constexpr uint32_t kSpanTraceId = 1;
constexpr uint32_t kSpanSpanId = 2;
constexpr uint32_t kSpanTracestate = 3;
constexpr uint32_t kSpanParent = 4;
constexpr uint32_t kSpanName = 5;
constexpr uint32_t kSpanKind = 6;
constexpr uint32_t kSpanStart = 7;
constexpr uint32_t kSpanEnd = 8;
constexpr uint32_t kSpanAttributes = 9;
constexpr uint32_t kSpanEvents = 11;
constexpr uint32_t kSpanLinks = 13;
constexpr uint32_t kSpanDroppedLinks = 14;
constexpr uint32_t kSpanStatus = 15;
constexpr uint32_t kSpanFlags = 16;
constexpr uint32_t kLinkAttributes = 4;
constexpr uint32_t kLinkFlags = 6;
constexpr uint32_t kEventAttributes = 3;
constexpr uint32_t kStatusError = 2;
// Flags beyond those of the W3C: whether the parent is of another process is known, and is so.
constexpr uint32_t kRemoteKnown = 0x100;
constexpr uint32_t kRemote = 0x200;

// Longest text of an attribute.
constexpr size_t kMostText = 512;
// A length that is only known later takes so many bytes, whatever it is: 28 bits.
constexpr size_t kLengthBytes = 4;

void Varint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void Tag(uint32_t field, WireType type, std::string* out) { Varint(field << 3 | type, out); }

template <typename Integer>
void LittleEndian(Integer value, std::string* out) {
  char bytes[sizeof(value)];
  for (char& byte : bytes) {
    byte = static_cast<char>(value & 0xff);
    value >>= 8;
  }
  out->append(bytes, sizeof(bytes));
}

void Bytes(uint32_t field, absl::string_view bytes, std::string* out) {
  Tag(field, kBytes, out);
  Varint(bytes.size(), out);
  out->append(bytes.data(), bytes.size());
}

// Big-endian, as ids are.
void Id(uint32_t field, std::initializer_list<uint64_t> words, std::string* out) {
  Tag(field, kBytes, out);
  Varint(words.size() * sizeof(uint64_t), out);
  for (const uint64_t word : words) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      out->push_back(static_cast<char>(word >> shift));
    }
  }
}

void TraceIdOf(uint32_t field, const TraceId& id, std::string* out) {
  Id(field, {id.high, id.low}, out);
}

// Begins a message as a field; returns where its length belongs.
size_t Open(uint32_t field, std::string* out) {
  Tag(field, kBytes, out);
  const size_t at = out->size();
  out->append(kLengthBytes, '\0');
  return at;
}

// The message that Open began at `at` ends here.
void Close(size_t at, std::string* out) {
  size_t length = out->size() - at - kLengthBytes;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    const bool last = i + 1 == kLengthBytes;
    (*out)[at + i] = static_cast<char>((length & 0x7f) | (last ? 0 : 0x80));
    length >>= 7;
  }
}

size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) {
    ++size;
  }
  return size;
}

// The beginning of an attribute whose value is a message of `value_size` bytes.
void AttributeHead(uint32_t field, absl::string_view key, size_t value_size, std::string* out) {
  Tag(field, kBytes, out);
  Varint(2 + VarintSize(key.size()) - 1 + key.size() + 1 + VarintSize(value_size) + value_size,
         out);
  Bytes(1, key, out);
  Tag(2, kBytes, out);
  Varint(value_size, out);
}

bool IsPlain(absl::string_view text) {
  return text.size() <= kMostText &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

uint64_t UnixNanos(absl::Time time) { return static_cast<uint64_t>(absl::ToUnixNanos(time)); }

}  // namespace

void AppendAttribute(uint32_t field, absl::string_view key, absl::string_view value,
                     std::string* out) {
  std::string cleaned;
  if (!IsPlain(value)) {
    cleaned = PeerText(value, kMostText);
    value = cleaned;
  }
  AttributeHead(field, key, 1 + VarintSize(value.size()) + value.size(), out);
  Bytes(1, value, out);
}

void AppendAttribute(uint32_t field, absl::string_view key, int64_t value, std::string* out) {
  AttributeHead(field, key, 1 + VarintSize(static_cast<uint64_t>(value)), out);
  Tag(3, kVarint, out);
  Varint(static_cast<uint64_t>(value), out);
}

void AppendAttribute(uint32_t field, absl::string_view key, bool value, std::string* out) {
  AttributeHead(field, key, 2, out);
  Tag(2, kVarint, out);
  Varint(value ? 1 : 0, out);
}

SpanWriter::SpanWriter(const SpanHead& head, std::string* out)
    : out_(out), span_length_(Open(kSpansOfScope, out)), attribute_field_(kSpanAttributes) {
  TraceIdOf(kSpanTraceId, head.context.trace_id, out);
  Id(kSpanSpanId, {head.context.span_id}, out);
  if (!head.tracestate.empty()) {
    Bytes(kSpanTracestate, head.tracestate, out);
  }
  uint32_t flags = head.context.flags | kRemoteKnown;
  if (head.parent != 0) {
    Id(kSpanParent, {head.parent}, out);
    flags |= head.remote_parent ? kRemote : 0;
  }
  Bytes(kSpanName, head.name, out);
  Tag(kSpanKind, kVarint, out);
  Varint(static_cast<uint64_t>(head.kind), out);
  Tag(kSpanStart, kFixed64, out);
  LittleEndian(UnixNanos(head.start), out);
  Tag(kSpanEnd, kFixed64, out);
  LittleEndian(UnixNanos(std::max(head.start, head.end)), out);
  Tag(kSpanFlags, kFixed32, out);
  LittleEndian(flags, out);
}

SpanWriter::~SpanWriter() {
  EndPart();
  Close(span_length_, out_);
}

void SpanWriter::EndPart() {
  if (part_length_ != 0) {
    Close(part_length_, out_);
    part_length_ = 0;
    attribute_field_ = kSpanAttributes;
  }
}

SpanWriter& SpanWriter::Link(const TraceContext& to) {
  EndPart();
  part_length_ = Open(kSpanLinks, out_);
  attribute_field_ = kLinkAttributes;
  TraceIdOf(1, to.trace_id, out_);
  Id(2, {to.span_id}, out_);
  Tag(kLinkFlags, kFixed32, out_);
  LittleEndian(uint32_t{to.flags}, out_);
  return *this;
}

SpanWriter& SpanWriter::DroppedLinks(uint32_t count) {
  EndPart();
  Tag(kSpanDroppedLinks, kVarint, out_);
  Varint(count, out_);
  return *this;
}

SpanWriter& SpanWriter::Event(absl::string_view name, absl::Time when) {
  EndPart();
  part_length_ = Open(kSpanEvents, out_);
  attribute_field_ = kEventAttributes;
  Tag(1, kFixed64, out_);
  LittleEndian(UnixNanos(when), out_);
  Bytes(2, name, out_);
  return *this;
}

SpanWriter& SpanWriter::Error(absl::string_view message) {
  EndPart();
  const size_t length = Open(kSpanStatus, out_);
  if (!message.empty()) {
    Bytes(2, IsPlain(message) ? std::string(message) : PeerText(message, kMostText), out_);
  }
  Tag(3, kVarint, out_);
  Varint(kStatusError, out_);
  Close(length, out_);
  return *this;
}

void AppendResourceSpans(absl::string_view resource, absl::string_view spans, std::string* out) {
  const size_t resource_spans = Open(1, out);
  Bytes(1, resource, out);
  const size_t scope_spans = Open(2, out);
  const size_t scope = Open(1, out);
  Bytes(1, "expertmesh", out);
  Close(scope, out);
  out->append(spans.data(), spans.size());
  Close(scope_spans, out);
  Close(resource_spans, out);
}

}  // namespace expertmesh::trace
