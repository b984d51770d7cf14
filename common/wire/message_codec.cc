#include "common/wire/message_codec.h"

#include <google/protobuf/descriptor.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tensor/int8_blocks.h"

namespace expertmesh {
namespace {

constexpr uint32_t kTensorField = 1000;
constexpr uint32_t kTensorDataField = 1000;

constexpr uint32_t kLengthDelimited = 2;
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

  // Of a length-delimited field, all of which is there.
  bool ReadLength(uint64_t* length) {
    return ReadVarint(length, kMaxShortVarint) && *length <= kMaxLength && *length <= left_;
  }

  // The value of a field after its tag. Groups are not part of proto3, but a parser must skip one.
  bool SkipValue(uint32_t tag, int groups = 0) {
    uint64_t value = 0;
    switch (tag & 7) {
      case 0:
        return ReadVarint(&value);
      case 1:
        return Skip(8);
      case kLengthDelimited:
        return ReadLength(&value) && Skip(value);
      case kStartGroup:
        while (groups < kMaxGroups) {
          uint32_t inner = 0;
          if (!ReadTag(&inner)) {
            return false;
          }
          if ((inner & 7) == kEndGroup) {
            return inner >> 3 == tag >> 3;
          }
          if (!SkipValue(inner, groups + 1)) {
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

// A message split into the bytes of its field `kTensorField`-like field and the bytes of all
// others.
struct SplitMessage {
  std::string others;
  bool has_field = false;
  Frame field;
};

// Splits off the length-delimited field `number`. Several occurrences: for bytes (`concatenate`
// false) the last one counts, for messages they are merged, which is concatenation of their bytes.
absl::StatusOr<SplitMessage> SplitOff(const Frame& frame, uint32_t number, bool concatenate,
                                      absl::string_view what) {
  const auto malformed = [what](size_t position) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": malformed protobuf at byte ", position, "; send a valid message"));
  };
  SplitMessage result;
  Cursor cursor(frame);
  size_t others_begin = 0;  // First byte not yet copied to `others`.
  const auto flush_others = [&](size_t end) {
    const size_t count = end - others_begin;
    const size_t old = result.others.size();
    result.others.resize(old + count);
    frame.CopyTo(others_begin, count, result.others.data() + old);
  };
  while (cursor.left() > 0) {
    const size_t field_begin = cursor.position();
    uint32_t tag = 0;
    if (!cursor.ReadTag(&tag)) {
      return malformed(field_begin);
    }
    if (tag != ((number << 3) | kLengthDelimited)) {
      if (!cursor.SkipValue(tag)) {
        return malformed(field_begin);
      }
      continue;
    }
    uint64_t length = 0;
    if (!cursor.ReadLength(&length)) {
      return malformed(field_begin);
    }
    flush_others(field_begin);
    if (!concatenate) {
      result.field = Frame();
    }
    result.field.Append(frame.Sub(cursor.position(), length));
    result.has_field = true;
    others_begin = cursor.position() + length;
    cursor.Skip(length);
  }
  flush_others(frame.size());
  return result;
}

// `size` bytes of scales came with `tensor`, whose shape is known not to overflow.
absl::Status CheckScales(const TensorFrame& tensor, uint64_t size, absl::string_view field) {
  if (tensor.dtype != DType::kI8Block128) {
    return size == 0 ? absl::OkStatus()
                     : absl::InvalidArgumentError(absl::StrCat(
                           field, ".scales has ", size, " bytes; leave it empty for this dtype"));
  }
  // No more blocks than elements, each of which is a byte that is there: no overflow.
  const uint64_t expected = tensor.rows * Int8Blocks(tensor.cols) * sizeof(float);
  if (size != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".scales has ", size, " bytes; shape [", tensor.rows, ", ", tensor.cols,
                     "] of ", NameOf(tensor.dtype), " needs ", expected, ", a float32 for each ",
                     kInt8Block, " values of a row"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorFrame> DecodeTensor(const Frame& frame, absl::string_view field) {
  ASSIGN_OR_RETURN(SplitMessage split, SplitOff(frame, kTensorDataField, false, field));
  v1::Tensor header;
  if (!header.ParseFromString(split.others)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": malformed Tensor; send a valid message"));
  }
  TensorFrame tensor;
  ASSIGN_OR_RETURN(tensor.dtype, FromWire(header.dtype(), absl::StrCat(field, ".dtype")));
  if (header.shape_size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".shape has ", header.shape_size(),
                                                   " dimensions; send [tokens, d_model]"));
  }
  tensor.rows = header.shape(0);
  tensor.cols = header.shape(1);
  uint64_t elements = 0;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(tensor.rows, tensor.cols, &elements) ||
      __builtin_mul_overflow(elements, uint64_t{BytesOf(tensor.dtype)}, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".shape [", tensor.rows, ", ",
                                                   tensor.cols, "] overflows; send fewer tokens"));
  }
  if (bytes != split.field.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".data has ", split.field.size(), " bytes; shape [", tensor.rows, ", ",
                     tensor.cols, "] of ", std::string(NameOf(tensor.dtype)), " needs ", bytes));
  }
  tensor.data = std::move(split.field);
  RETURN_IF_ERROR(CheckScales(tensor, header.scales().size(), field));
  if (!header.scales().empty()) {
    tensor.scales = Frame(std::move(*header.mutable_scales()));
  }
  return tensor;
}

template <typename Message>
const std::string& TensorFieldName() {
  static const std::string& name =
      Message::descriptor()->FindFieldByNumber(static_cast<int>(kTensorField))->name();
  return name;
}

void AppendVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void AppendTag(uint32_t field, std::string* out) {
  AppendVarint((uint64_t{field} << 3) | kLengthDelimited, out);
}

}  // namespace

absl::StatusOr<DType> FromWire(v1::DType dtype, absl::string_view field) {
  switch (dtype) {
    case v1::DTYPE_F32:
      return DType::kF32;
    case v1::DTYPE_BF16:
      return DType::kBF16;
    case v1::DTYPE_F16:
      return DType::kF16;
    case v1::DTYPE_INT8_BLOCK128:
      return DType::kI8Block128;
    default:
      break;
  }
  const std::string name =
      v1::DType_IsValid(dtype) ? v1::DType_Name(dtype) : absl::StrCat(static_cast<int>(dtype));
  return absl::InvalidArgumentError(absl::StrCat(
      field, " is ", name, "; send DTYPE_F32, DTYPE_BF16, DTYPE_F16 or DTYPE_INT8_BLOCK128"));
}

v1::DType ToWire(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return v1::DTYPE_F32;
    case DType::kBF16:
      return v1::DTYPE_BF16;
    case DType::kF16:
      return v1::DTYPE_F16;
    case DType::kI8Block128:
      return v1::DTYPE_INT8_BLOCK128;
    default:
      EXPERTMESH_CHECK(IsActivationDType(dtype));
  }
  return v1::DTYPE_UNSPECIFIED;
}

template <typename Message>
absl::StatusOr<TensorMessage<Message>> DecodeTensorMessage(const Frame& frame) {
  const std::string& field = TensorFieldName<Message>();
  ASSIGN_OR_RETURN(SplitMessage split,
                   SplitOff(frame, kTensorField, true, Message::descriptor()->name()));
  TensorMessage<Message> result;
  if (!result.message.ParseFromString(split.others)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Message::descriptor()->name(), ": malformed protobuf; send a valid message"));
  }
  if (split.has_field) {
    absl::StatusOr<TensorFrame> tensor = DecodeTensor(split.field, field);
    result.tensor_status = tensor.status();
    if (tensor.ok()) {
      result.tensor = *std::move(tensor);
      result.has_tensor = true;
    }
  }
  return result;
}

template <typename Message>
Frame EncodeTensorMessage(const Message& message, const TensorFrame* tensor) {
  std::string head = message.SerializeAsString();
  if (tensor == nullptr) {
    return Frame(std::move(head));
  }
  v1::Tensor header;
  header.set_dtype(ToWire(tensor->dtype));
  header.add_shape(tensor->rows);
  header.add_shape(tensor->cols);
  if (!tensor->scales.empty()) {
    header.set_scales(tensor->scales.Flatten());
  }
  std::string tensor_head = header.SerializeAsString();
  AppendTag(kTensorDataField, &tensor_head);
  AppendVarint(tensor->data.size(), &tensor_head);
  AppendTag(kTensorField, &head);
  AppendVarint(tensor_head.size() + tensor->data.size(), &head);
  head += tensor_head;
  Frame frame(std::move(head));
  frame.Append(tensor->data);
  return frame;
}

#define EXPERTMESH_INSTANTIATE(Message)                                                       \
  template absl::StatusOr<TensorMessage<Message>> DecodeTensorMessage<Message>(const Frame&); \
  template Frame EncodeTensorMessage<Message>(const Message&, const TensorFrame*)

EXPERTMESH_INSTANTIATE(v1::ForwardRequest);
EXPERTMESH_INSTANTIATE(v1::ForwardResponse);
EXPERTMESH_INSTANTIATE(v1::ComputeRequest);
EXPERTMESH_INSTANTIATE(v1::ComputeResponse);

#undef EXPERTMESH_INSTANTIATE

}  // namespace expertmesh
