#include "common/wire/message_split.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "absl/strings/str_cat.h"

namespace expertmesh {
namespace {

constexpr uint32_t kStartGroup = 3;
constexpr uint32_t kEndGroup = 4;

// Limits of generated code: bytes of a tag or a length, the largest length, groups in each other.
constexpr int kMaxShortVarint = 5;
constexpr uint64_t kMaxLength = std::numeric_limits<int32_t>::max() - 16;
constexpr int kMaxGroups = 100;

// Reads protobuf wire format across slice boundaries.
class Cursor {
 public:
  explicit Cursor(const Frame& frame) : frame_(frame), left_(frame.size()) {}

  size_t position() const { return position_; }
  size_t left() const { return left_; }

  bool ReadVarint(uint64_t* value, int max_bytes = 10) {
    *value = 0;
    for (int shift = 0; shift < 7 * max_bytes; shift += 7) {
      uint8_t byte = 0;
      if (!ReadByte(&byte)) {
        return false;
      }
      if (shift == 63 && byte > 1) {
        return false;
      }
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        return true;
      }
    }
    return false;
  }

  bool ReadTag(uint32_t* tag) {
    uint64_t value = 0;
    const bool valid = ReadVarint(&value, kMaxShortVarint);
    *tag = static_cast<uint32_t>(value);
    return valid && value <= std::numeric_limits<uint32_t>::max();
  }

  // The length of a length-delimited field. False when not all of the field is there.
  bool ReadLength(uint64_t* length) {
    return ReadVarint(length, kMaxShortVarint) && *length <= kMaxLength && *length <= left_;
  }

  // The value of a field after its tag. Groups are not part of proto3, but a parser must skip one.
  // Ends early, with false, beyond `end`.
  bool SkipValue(uint32_t tag, size_t end, int groups = 0) {
    uint64_t value = 0;
    switch (tag & 7) {
      case 0:
        return ReadVarint(&value);
      case 1:
        return Skip(8);
      case kLengthDelimited:
        return ReadLength(&value) && Skip(value);
      case kStartGroup:
        while (groups < kMaxGroups && position_ <= end) {
          uint32_t inner = 0;
          if (!ReadTag(&inner)) {
            return false;
          }
          if ((inner & 7) == kEndGroup) {
            return inner >> 3 == tag >> 3;
          }
          if (!SkipValue(inner, end, groups + 1)) {
            return false;
          }
        }
        return false;
      case 5:
        return Skip(4);
      default:
        return false;
    }
  }

  bool Skip(uint64_t count) {
    if (count > left_) {
      return false;
    }
    position_ += count;
    left_ -= count;
    while (count > 0) {
      const size_t here = frame_.slices()[slice_].size() - offset_;
      const size_t step = count < here ? static_cast<size_t>(count) : here;
      offset_ += step;
      count -= step;
      NextSliceIfDone();
    }
    return true;
  }

 private:
  bool ReadByte(uint8_t* byte) {
    if (left_ == 0) {
      return false;
    }
    *byte = frame_.slices()[slice_].data()[offset_];
    ++offset_;
    ++position_;
    --left_;
    NextSliceIfDone();
    return true;
  }

  void NextSliceIfDone() {
    if (offset_ == frame_.slices()[slice_].size()) {
      ++slice_;
      offset_ = 0;
    }
  }

  const Frame& frame_;
  size_t slice_ = 0;
  size_t offset_ = 0;
  size_t position_ = 0;
  size_t left_ = 0;
};

}  // namespace

absl::Status SplitOff(const Frame& frame, absl::Span<SplitField> fields, absl::string_view what,
                      size_t most_others, std::string* others) {
  const auto malformed = [what](size_t position) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": malformed protobuf at byte ", position, "; send a valid message"));
  };
  others->clear();
  Cursor cursor(frame);
  size_t others_begin = 0;  // First byte not yet copied to `others`.
  size_t taken = 0;         // Bytes of values of `fields`.
  const auto too_many = [&] {
    return absl::OutOfRangeError(absl::StrCat(what, " has more than ", most_others,
                                              " bytes beside its tensor's values, of ",
                                              frame.size(), " in all"));
  };
  const auto flush_others = [&](size_t end) {
    const size_t count = end - others_begin;
    const size_t old = others->size();
    others->resize(old + count);
    frame.CopyTo(others_begin, count, others->data() + old);
  };
  while (cursor.left() > 0) {
    const size_t field_begin = cursor.position();
    uint32_t tag = 0;
    if (!cursor.ReadTag(&tag)) {
      return malformed(field_begin);
    }
    const auto field = std::find_if(fields.begin(), fields.end(), [tag](const SplitField& wanted) {
      return tag == ((wanted.number << 3) | kLengthDelimited);
    });
    uint64_t length = 0;
    const bool wanted = field != fields.end();
    const bool valid =
        wanted ? cursor.ReadLength(&length) : cursor.SkipValue(tag, most_others + taken);
    if (cursor.position() - taken > most_others) {
      return too_many();
    }
    if (!valid) {
      return malformed(field_begin);
    }
    if (!wanted) {
      continue;
    }
    flush_others(field_begin);
    if (!field->is_message) {
      field->value = Frame();
    }
    frame.AppendTo(cursor.position(), length, &field->value);
    field->found = true;
    others_begin = cursor.position() + length;
    taken += length;
    cursor.Skip(length);
  }
  flush_others(frame.size());
  return absl::OkStatus();
}

}  // namespace expertmesh
