#include "common/wire/message_codec.h"

#include <google/protobuf/descriptor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/status_macros.h"
#include "common/tensor/int8_blocks.h"
#include "common/wire/message_split.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh {
namespace {

constexpr uint32_t kTensorField = 1000;
constexpr uint32_t kTensorScalesField = v1::Tensor::kScalesFieldNumber;
constexpr uint32_t kTensorDataField = v1::Tensor::kDataFieldNumber;

// A Tensor without its data and scales: type and shape, and what later versions may add.
constexpr size_t kMostTensorHeader = 4 << 10;
// Bytes beyond which a thread gives its working memory back.
constexpr size_t kMostKept = 64 << 10;

// SplitOff of `frame`, and the others parsed, merged into `message`. False when they are malformed.
template <typename Message>
absl::StatusOr<bool> SplitAndParse(const Frame& frame, absl::Span<SplitField> fields,
                                   absl::string_view what, size_t most_others, Message* message) {
  thread_local std::string others;
  RETURN_IF_ERROR(SplitOff(frame, fields, what, most_others, &others));
  const bool valid = message->MergeFromString(others);
  if (others.capacity() > kMostKept) {
    std::string().swap(others);
  }
  return valid;
}

// `size` bytes of scales came with `tensor`, whose shape is known not to overflow.
absl::Status CheckScales(const TensorFrame& tensor, uint64_t size, absl::string_view field) {
  if (tensor.dtype != Dtype::kI8Block128) {
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

absl::Status DecodeTensor(const Frame& frame, absl::string_view field, TensorFrame* tensor) {
  SplitField split[] = {{kTensorScalesField}, {kTensorDataField}};
  thread_local v1::Tensor header;
  header.Clear();
  const absl::StatusOr<bool> valid =
      SplitAndParse(frame, absl::MakeSpan(split), field, kMostTensorHeader, &header);
  if (absl::IsOutOfRange(valid.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has more than ", kMostTensorHeader,
                     " bytes beside data and scales; send dtype and shape, [tokens, d_model]"));
  }
  RETURN_IF_ERROR(valid.status());
  if (!*valid) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": malformed Tensor; send a valid message"));
  }
  const std::optional<Dtype> dtype = FindWireDtype(header.dtype());
  if (!dtype) {
    return FromWire(header.dtype(), absl::StrCat(field, ".dtype")).status();
  }
  if (const int dimensions = header.shape_size(); dimensions != 2) {
    v1::Tensor().Swap(&header);  // There may be many.
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".shape has ", dimensions, " dimensions; send [tokens, d_model]"));
  }
  tensor->dtype = *dtype;
  tensor->rows = header.shape(0);
  tensor->cols = header.shape(1);
  uint64_t elements = 0;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(tensor->rows, tensor->cols, &elements) ||
      __builtin_mul_overflow(elements, uint64_t{BytesOf(tensor->dtype)}, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".shape [", tensor->rows, ", ",
                                                   tensor->cols, "] overflows; send fewer tokens"));
  }
  Frame& data = split[1].value;
  if (bytes != data.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".data has ", data.size(), " bytes; shape [", tensor->rows, ", ",
                     tensor->cols, "] of ", std::string(NameOf(tensor->dtype)), " needs ", bytes));
  }
  tensor->data = std::move(data);
  RETURN_IF_ERROR(CheckScales(*tensor, split[0].value.size(), field));
  tensor->scales = std::move(split[0].value);
  return absl::OkStatus();
}

template <typename Message>
const std::string& TensorFieldName() {
  static const std::string& name =
      Message::descriptor()->FindFieldByNumber(static_cast<int>(kTensorField))->name();
  return name;
}

size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) {
    ++size;
  }
  return size;
}

// These write to `out` and return its new end.
uint8_t* WriteVarint(uint64_t value, uint8_t* out) {
  for (; value >= 0x80; value >>= 7) {
    *out++ = static_cast<uint8_t>(value | 0x80);
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}

uint64_t TagOf(uint32_t field) { return (uint64_t{field} << 3) | kLengthDelimited; }

// Size of a tag and a length.
size_t PrefixSize(uint32_t field, uint64_t length) {
  return VarintSize(TagOf(field)) + VarintSize(length);
}

uint8_t* WritePrefix(uint32_t field, uint64_t length, uint8_t* out) {
  return WriteVarint(length, WriteVarint(TagOf(field), out));
}

}  // namespace

template <typename Message>
absl::Status DecodeTensorMessage(const Frame& frame, TensorMessage<Message>* result,
                                 size_t most_others) {
  SplitField split[] = {{kTensorField, /*is_message=*/true}};
  result->has_tensor = false;
  result->tensor = {};
  result->tensor_status = absl::OkStatus();
  ASSIGN_OR_RETURN(const bool valid,
                   SplitAndParse(frame, absl::MakeSpan(split), Message::descriptor()->name(),
                                 most_others, &result->message));
  if (!valid) {
    return absl::InvalidArgumentError(
        absl::StrCat(Message::descriptor()->name(), ": malformed protobuf; send a valid message"));
  }
  if (split[0].found) {
    result->tensor_status =
        DecodeTensor(split[0].value, TensorFieldName<Message>(), &result->tensor);
    result->has_tensor = result->tensor_status.ok();
    if (!result->has_tensor) {
      result->tensor = {};
    }
  }
  return absl::OkStatus();
}

template <typename Message>
absl::StatusOr<TensorMessage<Message>> DecodeTensorMessage(const Frame& frame, size_t most_others) {
  TensorMessage<Message> result;
  RETURN_IF_ERROR(DecodeTensorMessage(frame, &result, most_others));
  return result;
}

template <typename Message>
Frame EncodeTensorMessage(const Message& message, const TensorFrame* tensor, BufferPool* pool) {
  // One buffer for all that is not the tensor's data: fields, prefix and fields of the tensor, its
  // scales, and the prefix of the data.
  size_t size = message.ByteSizeLong();
  thread_local v1::Tensor header;
  size_t tensor_size = 0;
  size_t prefixes = 0;
  const uint64_t scales = tensor == nullptr ? 0 : tensor->scales.size();
  if (tensor != nullptr) {
    header.Clear();
    header.set_dtype(ToWire(tensor->dtype));
    header.add_shape(tensor->rows);
    header.add_shape(tensor->cols);
    tensor_size = header.ByteSizeLong() + PrefixSize(kTensorDataField, tensor->data.size());
    tensor_size += scales == 0 ? 0 : PrefixSize(kTensorScalesField, scales) + scales;
    prefixes = PrefixSize(kTensorField, tensor_size + tensor->data.size());
  }
  const std::shared_ptr<AlignedBuffer> head = TakeBuffer(pool, size + prefixes + tensor_size);
  uint8_t* out = message.SerializeWithCachedSizesToArray(head->data());
  Frame frame;
  if (tensor != nullptr) {
    frame.Reserve(1 + tensor->data.slices().size(), pool);
    out = WritePrefix(kTensorField, tensor_size + tensor->data.size(), out);
    out = header.SerializeWithCachedSizesToArray(out);
    if (scales > 0) {
      out = WritePrefix(kTensorScalesField, scales, out);
      tensor->scales.CopyTo(0, scales, out);
      out += scales;
    }
    out = WritePrefix(kTensorDataField, tensor->data.size(), out);
  }
  EXPERTMESH_CHECK(out == head->data() + head->size());
  frame.Append(Slice(head->data(), head->size(), head));
  if (tensor != nullptr) {
    frame.Append(tensor->data);
  }
  return frame;
}

#define EXPERTMESH_INSTANTIATE(Message)                                                      \
  template absl::StatusOr<TensorMessage<Message>> DecodeTensorMessage<Message>(const Frame&, \
                                                                               size_t);      \
  template absl::Status DecodeTensorMessage<Message>(const Frame&, TensorMessage<Message>*,  \
                                                     size_t);                                \
  template Frame EncodeTensorMessage<Message>(const Message&, const TensorFrame*, BufferPool*)

EXPERTMESH_INSTANTIATE(v1::ForwardRequest);
EXPERTMESH_INSTANTIATE(v1::ForwardResponse);
EXPERTMESH_INSTANTIATE(internal::v1::ComputeRequest);
EXPERTMESH_INSTANTIATE(internal::v1::ComputeResponse);

#undef EXPERTMESH_INSTANTIATE

}  // namespace expertmesh
