// The codec next to generated code, on random messages of all four types: fields in any order,
// unknown fields of every wire type among them, the tensor in several occurrences, slices cut
// anywhere. Whatever generated code makes of the bytes is what is right.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <google/protobuf/wire_format_lite.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "common/wire/message_codec.h"
#include "common/wire/wire_dtype.h"
#include "tests/support/compare_rows.h"

namespace expertmesh {
namespace {

namespace pb = google::protobuf;
using pb::internal::WireFormatLite;
using pb::util::MessageDifferencer;

constexpr int kTensorField = 1000;  // The tensor of each message, and Tensor.data.

class Randomness {
 public:
  explicit Randomness(uint32_t seed) : random_(seed) {}

  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }
  uint64_t Bits() { return ((uint64_t{random_()} << 32) | random_()) >> Below(64); }
  std::string Bytes(uint32_t longest) {
    std::string bytes(Below(longest + 1), '\0');
    for (char& byte : bytes) {
      byte = static_cast<char>(random_());
    }
    return bytes;
  }
  std::string Text(uint32_t longest) {
    std::string text(Below(longest + 1), '\0');
    for (char& letter : text) {
      letter = static_cast<char>('a' + Below(26));
    }
    return text;
  }
  void Shuffle(std::vector<std::string>* pieces) {
    std::shuffle(pieces->begin(), pieces->end(), random_);
  }

 private:
  std::mt19937 random_;
};

void FillTensor(v1::Tensor* tensor, Randomness* random) {
  const v1::Dtype dtypes[] = {v1::DTYPE_F32, v1::DTYPE_BF16, v1::DTYPE_F16};
  tensor->set_dtype(dtypes[random->Below(3)]);
  const uint32_t rows = random->Below(7);
  const uint32_t cols = random->Below(30);
  tensor->add_shape(rows);
  tensor->add_shape(cols);
  std::string data(size_t{rows} * cols * (tensor->dtype() == v1::DTYPE_F32 ? 4 : 2), '\0');
  for (char& byte : data) {
    byte = static_cast<char>(random->Below(256));
  }
  tensor->set_data(data);
}

// One value for `field`, set or added.
void FillField(const pb::FieldDescriptor* field, pb::Message* message, Randomness* random);

void Fill(pb::Message* message, Randomness* random) {
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const pb::FieldDescriptor* const field = message->GetDescriptor()->field(i);
    if (field->number() == kTensorField) {
      continue;
    }
    const uint32_t count = field->is_repeated() ? random->Below(6) : random->Below(2);
    for (uint32_t value = 0; value < count; ++value) {
      FillField(field, message, random);
    }
  }
}

void FillField(const pb::FieldDescriptor* field, pb::Message* message, Randomness* random) {
  const pb::Reflection* const set = message->GetReflection();
  const bool many = field->is_repeated();
#define EXPERTMESH_FILL(Type, value)       \
  if (many) {                              \
    set->Add##Type(message, field, value); \
  } else {                                 \
    set->Set##Type(message, field, value); \
  }                                        \
  break
  switch (field->cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_INT32:
      EXPERTMESH_FILL(Int32, static_cast<int32_t>(random->Bits()));
    case pb::FieldDescriptor::CPPTYPE_INT64:
      EXPERTMESH_FILL(Int64, static_cast<int64_t>(random->Bits()));
    case pb::FieldDescriptor::CPPTYPE_UINT32:
      EXPERTMESH_FILL(UInt32, static_cast<uint32_t>(random->Bits()));
    case pb::FieldDescriptor::CPPTYPE_UINT64:
      EXPERTMESH_FILL(UInt64, random->Bits());
    case pb::FieldDescriptor::CPPTYPE_FLOAT:
      EXPERTMESH_FILL(Float, static_cast<float>(random->Below(1000)) / 7.0f);
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      EXPERTMESH_FILL(Double, random->Below(1000) / 7.0);
    case pb::FieldDescriptor::CPPTYPE_BOOL:
      EXPERTMESH_FILL(Bool, random->OneIn(2));
    case pb::FieldDescriptor::CPPTYPE_ENUM:
      EXPERTMESH_FILL(EnumValue, static_cast<int>(random->Below(9)));
    case pb::FieldDescriptor::CPPTYPE_STRING:
      EXPERTMESH_FILL(String, field->type() == pb::FieldDescriptor::TYPE_BYTES ? random->Bytes(40)
                                                                               : random->Text(40));
    case pb::FieldDescriptor::CPPTYPE_MESSAGE:
      Fill(many ? set->AddMessage(message, field) : set->MutableMessage(message, field), random);
      break;
  }
#undef EXPERTMESH_FILL
}

std::string Tag(uint32_t number, WireFormatLite::WireType type) {
  std::string bytes;
  pb::io::StringOutputStream stream(&bytes);
  pb::io::CodedOutputStream(&stream).WriteVarint32(
      WireFormatLite::MakeTag(static_cast<int>(number), type));
  return bytes;
}

std::string Varint(uint64_t value) {
  std::string bytes;
  pb::io::StringOutputStream stream(&bytes);
  pb::io::CodedOutputStream(&stream).WriteVarint64(value);
  return bytes;
}

std::string LengthDelimited(uint32_t number, const std::string& value) {
  return Tag(number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED) + Varint(value.size()) + value;
}

// A field that no version of the contract has; groups may hold more of them, and look like the
// tensor's field.
std::string UnknownField(uint32_t depth, Randomness* random) {
  const uint32_t number =
      depth > 0 && random->OneIn(3) ? kTensorField : 2000 + random->Below(50000);
  switch (random->Below(depth < 3 ? 5 : 4)) {
    case 0:
      return Tag(number, WireFormatLite::WIRETYPE_VARINT) + Varint(random->Bits());
    case 1:
      return Tag(number, WireFormatLite::WIRETYPE_FIXED64) + std::string(8, 'q');
    case 2:
      return Tag(number, WireFormatLite::WIRETYPE_FIXED32) + std::string(4, 'd');
    case 3:
      return LengthDelimited(number, random->Bytes(50));
    default: {
      std::string group = Tag(number, WireFormatLite::WIRETYPE_START_GROUP);
      for (uint32_t i = random->Below(4); i > 0; --i) {
        group += UnknownField(depth + 1, random);
      }
      return group + Tag(number, WireFormatLite::WIRETYPE_END_GROUP);
    }
  }
}

// The bytes of each field of `message`, as generated code writes them.
std::vector<std::string> FieldsOf(const std::string& message) {
  std::vector<std::string> fields;
  pb::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(message.data()),
                                 static_cast<int>(message.size()));
  while (true) {
    const int begin = input.CurrentPosition();
    const uint32_t tag = input.ReadTag();
    if (tag == 0) {
      return fields;
    }
    EXPECT_TRUE(WireFormatLite::SkipField(&input, tag));
    fields.push_back(message.substr(static_cast<size_t>(begin),
                                    static_cast<size_t>(input.CurrentPosition() - begin)));
  }
}

std::string Join(const std::vector<std::string>& pieces) {
  std::string bytes;
  for (const std::string& piece : pieces) {
    bytes += piece;
  }
  return bytes;
}

// The tensor's field in one to three occurrences, which parsers merge: its own fields in any order,
// with unknown ones and, now and then, a field twice.
std::vector<std::string> TensorOccurrences(const v1::Tensor& tensor, Randomness* random) {
  std::vector<std::string> fields = FieldsOf(tensor.SerializeAsString());
  if (random->OneIn(8)) {
    fields.push_back(LengthDelimited(kTensorField, random->Bytes(20)));
  }
  for (uint32_t i = random->Below(3); i > 0; --i) {
    fields.push_back(UnknownField(0, random));
  }
  random->Shuffle(&fields);
  std::vector<std::string> parts(1 + random->Below(3));
  size_t part = 0;
  for (const std::string& field : fields) {
    part = std::min(parts.size() - 1, part + random->Below(2));
    parts[part] += field;
  }
  for (std::string& occurrence : parts) {
    occurrence = LengthDelimited(kTensorField, occurrence);
  }
  return parts;
}

Frame CutAnywhere(const std::string& bytes, Randomness* random) {
  Frame frame;
  const uint32_t longest = 1 + random->Below(100);
  for (size_t at = 0; at < bytes.size();) {
    const size_t count = std::min<size_t>(bytes.size() - at, 1 + random->Below(longest));
    // In memory of its own and at an odd address.
    frame.Append(Slice::FromString("x" + bytes.substr(at, count)).Sub(1, count));
    at += count;
  }
  return frame;
}

bool IsValid(const v1::Tensor& tensor) {
  const uint64_t element = tensor.dtype() == v1::DTYPE_F32 ? 4 : 2;
  return tensor.shape_size() == 2 && tensor.dtype() >= v1::DTYPE_F32 &&
         tensor.dtype() <= v1::DTYPE_F16 && tensor.scales().empty() &&
         tensor.shape(0) * tensor.shape(1) * element == tensor.data().size();
}

template <typename Message>
class MessageCodecPropertyTest : public testing::Test {
 protected:
  static const pb::FieldDescriptor* TensorField() {
    return Message::descriptor()->FindFieldByNumber(kTensorField);
  }
  // The tensor of `message`, or null.
  static const v1::Tensor* TensorOf(const Message& message) {
    const pb::Reflection* const get = message.GetReflection();
    return get->HasField(message, TensorField())
               ? &static_cast<const v1::Tensor&>(get->GetMessage(message, TensorField()))
               : nullptr;
  }
  static v1::Tensor* MutableTensorOf(Message* message) {
    return static_cast<v1::Tensor*>(
        message->GetReflection()->MutableMessage(message, TensorField()));
  }

  // Bytes of a random message, in an order that no generated code writes.
  static std::string RandomBytes(Randomness* random) {
    Message message;
    Fill(&message, random);
    std::vector<std::string> pieces = FieldsOf(message.SerializeAsString());
    if (!random->OneIn(5)) {
      v1::Tensor tensor;
      FillTensor(&tensor, random);
      for (std::string& part : TensorOccurrences(tensor, random)) {
        pieces.push_back(std::move(part));
      }
    }
    for (uint32_t i = random->Below(4); i > 0; --i) {
      pieces.push_back(UnknownField(0, random));
    }
    random->Shuffle(&pieces);
    return Join(pieces);
  }
};

using Messages = testing::Types<v1::ForwardRequest, v1::ForwardResponse,
                                internal::v1::ComputeRequest, internal::v1::ComputeResponse>;
TYPED_TEST_SUITE(MessageCodecPropertyTest, Messages);

TYPED_TEST(MessageCodecPropertyTest, ReadsAndWritesWhatGeneratedCodeDoes) {
  Randomness random(2024);
  int valid_tensors = 0;
  int invalid_tensors = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes = TestFixture::RandomBytes(&random);
    TypeParam expected;
    ASSERT_TRUE(expected.ParseFromString(bytes));
    const v1::Tensor* const tensor = TestFixture::TensorOf(expected);

    const auto decoded = DecodeTensorMessage<TypeParam>(CutAnywhere(bytes, &random));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    TypeParam others = expected;
    others.GetReflection()->ClearField(&others, TestFixture::TensorField());
    EXPECT_TRUE(MessageDifferencer::Equals(decoded->message, others));
    ASSERT_EQ(decoded->has_tensor, tensor != nullptr && IsValid(*tensor));
    ASSERT_EQ(decoded->tensor_status.ok(), tensor == nullptr || IsValid(*tensor));
    invalid_tensors += decoded->tensor_status.ok() ? 0 : 1;
    if (decoded->has_tensor) {
      ++valid_tensors;
      EXPECT_EQ(ToWire(decoded->tensor.dtype), tensor->dtype());
      EXPECT_EQ(decoded->tensor.rows, tensor->shape(0));
      EXPECT_EQ(decoded->tensor.cols, tensor->shape(1));
      EXPECT_TRUE(SameRows(decoded->tensor.data.Flatten(), tensor->data(), 1));
    }

    const Frame written =
        EncodeTensorMessage(decoded->message, decoded->has_tensor ? &decoded->tensor : nullptr);
    TypeParam parsed;
    ASSERT_TRUE(parsed.ParseFromString(written.Flatten()));
    if (decoded->has_tensor) {
      TestFixture::MutableTensorOf(&expected)->DiscardUnknownFields();
      EXPECT_TRUE(MessageDifferencer::Equals(parsed, expected));
    } else {
      EXPECT_TRUE(MessageDifferencer::Equals(parsed, others));
    }
  }
  // Otherwise this test tested less than it says.
  EXPECT_GT(valid_tensors, 1000);
  EXPECT_GT(invalid_tensors, 20);
}

TYPED_TEST(MessageCodecPropertyTest, RefusesWhatGeneratedCodeRefuses) {
  const pb::LogSilencer quiet;
  Randomness random(2025);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = TestFixture::RandomBytes(&random) + '\x08';
    switch (random.Below(3)) {
      case 0:
        bytes.resize(random.Below(static_cast<uint32_t>(bytes.size())));
        break;
      case 1:
        bytes[random.Below(static_cast<uint32_t>(bytes.size()))] =
            static_cast<char>(random.Below(256));
        break;
      default:
        bytes.insert(random.Below(static_cast<uint32_t>(bytes.size())), random.Bytes(3));
    }
    TypeParam parsed;
    if (!parsed.ParseFromString(bytes)) {
      const auto decoded = DecodeTensorMessage<TypeParam>(CutAnywhere(bytes, &random));
      EXPECT_FALSE(decoded.ok() && decoded->tensor_status.ok());
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TYPED_TEST(MessageCodecPropertyTest, SkipsGroupsAsDeepAsGeneratedCodeDoes) {
  const pb::LogSilencer quiet;
  for (size_t depth = 90; depth < 110; ++depth) {
    std::string bytes;
    for (size_t i = 0; i < depth; ++i) {
      bytes += Tag(3000, WireFormatLite::WIRETYPE_START_GROUP);
    }
    for (size_t i = 0; i < depth; ++i) {
      bytes += Tag(3000, WireFormatLite::WIRETYPE_END_GROUP);
    }
    TypeParam parsed;
    const auto decoded = DecodeTensorMessage<TypeParam>(Frame(bytes));
    EXPECT_EQ(decoded.ok(), parsed.ParseFromString(bytes)) << depth;
  }
}

// Numbers may be written with more bytes than they need; how many more is limited.
TYPED_TEST(MessageCodecPropertyTest, TakesPaddedNumbersAsGeneratedCodeDoes) {
  const pb::LogSilencer quiet;
  const std::string tensor = [] {
    Randomness random(1);
    v1::Tensor filled;
    FillTensor(&filled, &random);
    return filled.SerializeAsString();
  }();
  const auto padded = [](std::string varint, size_t padding) {
    for (size_t i = 0; i < padding; ++i) {
      varint.back() = static_cast<char>(varint.back() | 0x80);
      varint.push_back('\0');
    }
    return varint;
  };
  for (size_t tag_padding = 0; tag_padding < 10; ++tag_padding) {
    for (size_t size_padding = 0; size_padding < 10; ++size_padding) {
      const std::string bytes =
          padded(Tag(kTensorField, WireFormatLite::WIRETYPE_LENGTH_DELIMITED), tag_padding) +
          padded(Varint(tensor.size()), size_padding) + tensor;
      TypeParam parsed;
      const auto decoded = DecodeTensorMessage<TypeParam>(Frame(bytes));
      EXPECT_EQ(decoded.ok(), parsed.ParseFromString(bytes)) << tag_padding << " " << size_padding;
    }
  }
}

}  // namespace
}  // namespace expertmesh
