#include "common/wire/message_codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/base/message_bytes.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/wire_dtype.h"
#include "tests/support/compare_rows.h"

namespace expertmesh {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::AllOf;
using testing::HasSubstr;

// `bytes` cut into slices at random places, each in memory of its own at an odd address.
Frame CutAtRandom(const std::string& bytes, std::mt19937* random, size_t longest) {
  Frame frame;
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t count = std::min<size_t>(bytes.size() - at, 1 + (*random)() % longest);
    const Slice padded = Slice::FromString("x" + bytes.substr(at, count));
    frame.Append(padded.Sub(1, count));
    at += count;
  }
  return frame;
}

internal::v1::ComputeRequest RandomRequest(std::mt19937* random) {
  internal::v1::ComputeRequest request;
  const auto number = [random](uint32_t below) {
    return static_cast<uint32_t>((*random)() % below);
  };
  request.set_batch_id((uint64_t{(*random)()} << 32) | (*random)());
  request.set_layer(number(100));
  if (number(2) == 0) {
    request.set_timeout_us(static_cast<int64_t>(number(1000000)) - 500000);
  }
  request.set_traceparent(std::string(number(60), 'a'));
  request.set_total_rows(number(1000));
  const uint32_t rows = number(9);
  for (uint32_t row = 0; row < rows; ++row) {
    request.add_assignments_per_row(1);
    request.add_expert_ids(number(300));
    request.add_expert_weights(static_cast<float>(number(1000)) / 7.0f);
  }
  if (number(3) == 0) {
    (*request.mutable_extensions())["acme.token_ids"].set_raw(std::string(number(20), '\1'));
  }
  if (number(5) != 0) {
    const uint32_t cols = 1 + number(number(4) == 0 ? 400 : 40);
    v1::Tensor& tensor = *request.mutable_hidden_states();
    const v1::Dtype dtypes[] = {v1::DTYPE_F32, v1::DTYPE_BF16, v1::DTYPE_F16,
                                v1::DTYPE_INT8_BLOCK128};
    const uint32_t dtype = number(4);
    tensor.set_dtype(dtypes[dtype]);
    tensor.add_shape(rows);
    tensor.add_shape(cols);
    const size_t widths[] = {4, 2, 2, 1};
    std::string& data = *tensor.mutable_data();
    data.resize(size_t{rows} * cols * widths[dtype]);
    if (tensor.dtype() == v1::DTYPE_INT8_BLOCK128) {
      tensor.mutable_scales()->resize(rows * ((cols + 127) / 128) * 4);
      for (char& byte : *tensor.mutable_scales()) {
        byte = static_cast<char>((*random)());
      }
    }
    for (char& byte : data) {
      byte = static_cast<char>((*random)());
    }
  }
  return request;
}

TEST(MessageCodecTest, ReadsWhatGeneratedCodeWritesHoweverItIsCut) {
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    const internal::v1::ComputeRequest expected = RandomRequest(&random);
    const Frame frame = CutAtRandom(expected.SerializeAsString(), &random, 1 + i % 50);
    const auto decoded = DecodeTensorMessage<internal::v1::ComputeRequest>(frame);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_EQ(decoded->has_tensor, expected.has_hidden_states());
    internal::v1::ComputeRequest rest = expected;
    rest.clear_hidden_states();
    EXPECT_TRUE(MessageDifferencer::Equals(decoded->message, rest));
    if (decoded->has_tensor) {
      EXPECT_EQ(ToWire(decoded->tensor.dtype), expected.hidden_states().dtype());
      EXPECT_EQ(decoded->tensor.rows, expected.hidden_states().shape(0));
      EXPECT_EQ(decoded->tensor.cols, expected.hidden_states().shape(1));
      EXPECT_TRUE(SameRows(decoded->tensor.data.Flatten(), expected.hidden_states().data(), 1));
      EXPECT_TRUE(SameRows(decoded->tensor.scales.Flatten(), expected.hidden_states().scales(), 1));
    }
  }
}

TEST(MessageCodecTest, WritesWhatGeneratedCodeReads) {
  std::mt19937 random(8);
  for (int i = 0; i < 500; ++i) {
    const internal::v1::ComputeRequest expected = RandomRequest(&random);
    const auto split =
        DecodeTensorMessage<internal::v1::ComputeRequest>(Frame(expected.SerializeAsString()));
    ASSERT_TRUE(split.ok());
    const Frame frame =
        EncodeTensorMessage(split->message, split->has_tensor ? &split->tensor : nullptr);
    internal::v1::ComputeRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(frame.Flatten()));
    EXPECT_TRUE(MessageDifferencer::Equals(parsed, expected));
  }
}

TEST(MessageCodecTest, AcceptsFieldsInAnyOrderAndUnknownFields) {
  v1::ForwardRequest first;
  first.mutable_hidden_states()->set_dtype(v1::DTYPE_F32);
  first.mutable_hidden_states()->add_shape(1);
  first.mutable_hidden_states()->set_data("abcdefgh");
  v1::ForwardRequest second;  // The tensor in two parts, and the other fields behind it.
  second.mutable_hidden_states()->add_shape(2);
  second.set_layer(3);
  second.set_request_id(9);
  const std::string unknown("\xfa\x06\x03xyz", 6);  // Field 111, three bytes.
  const std::string bytes = first.SerializeAsString() + unknown + second.SerializeAsString();
  v1::ForwardRequest expected;
  ASSERT_TRUE(expected.ParseFromString(bytes));

  const auto decoded = DecodeTensorMessage<v1::ForwardRequest>(Frame(bytes));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_TRUE(decoded->has_tensor) << decoded->tensor_status;
  EXPECT_EQ(decoded->message.layer(), 3u);
  EXPECT_EQ(decoded->message.request_id(), 9u);
  EXPECT_EQ(decoded->tensor.cols, expected.hidden_states().shape(1));
  EXPECT_EQ(decoded->tensor.data.Flatten(), expected.hidden_states().data());
}

TEST(MessageCodecTest, TensorBytesAreSharedNotCopied) {
  auto bytes = std::make_shared<const std::string>(4096, 'z');
  TensorFrame tensor{Dtype::kF32, 2, 512, {}};
  tensor.data.Append(Slice(bytes->data(), bytes->size(), bytes));
  const Frame frame = EncodeTensorMessage(v1::ForwardResponse(), &tensor);
  EXPECT_EQ(frame.slices().back().data(), reinterpret_cast<const uint8_t*>(bytes->data()));
  const auto decoded = DecodeTensorMessage<v1::ForwardResponse>(frame);
  ASSERT_TRUE(decoded.ok());
  ASSERT_EQ(decoded->tensor.data.slices().size(), 1u);
  EXPECT_EQ(decoded->tensor.data.slices()[0].data(),
            reinterpret_cast<const uint8_t*>(bytes->data()));
}

TEST(MessageCodecTest, NeverAcceptsWhatGeneratedCodeRefuses) {
  const google::protobuf::LogSilencer quiet;
  std::mt19937 random(9);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = RandomRequest(&random).SerializeAsString();
    if (bytes.empty()) {
      continue;
    }
    if (i % 2 == 0) {
      bytes.resize(random() % bytes.size());
    } else {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    internal::v1::ComputeRequest parsed;
    const bool valid = parsed.ParseFromString(bytes);
    const auto decoded =
        DecodeTensorMessage<internal::v1::ComputeRequest>(CutAtRandom(bytes, &random, 1 + i % 30));
    if (!valid) {
      EXPECT_FALSE(decoded.ok() && decoded->tensor_status.ok());
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);  // Otherwise this test tested nothing.
}

class BadTensorTest : public testing::Test {
 protected:
  // The error of a request with this tensor, whose other fields must be readable all the same.
  static std::string ErrorOf(const v1::Tensor& tensor) {
    v1::ForwardRequest request;
    request.set_request_id(77);
    *request.mutable_hidden_states() = tensor;
    const auto decoded =
        DecodeTensorMessage<v1::ForwardRequest>(Frame(request.SerializeAsString()));
    EXPECT_TRUE(decoded.ok());
    EXPECT_EQ(decoded->message.request_id(), 77u);
    EXPECT_FALSE(decoded->has_tensor);
    EXPECT_EQ(decoded->tensor_status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(decoded->tensor_status.message());
  }

  static v1::Tensor Valid() {
    v1::Tensor tensor;
    tensor.set_dtype(v1::DTYPE_BF16);
    tensor.add_shape(2);
    tensor.add_shape(3);
    tensor.set_data(std::string(12, '\0'));
    return tensor;
  }
};

TEST_F(BadTensorTest, ByteCount) {
  v1::Tensor tensor = Valid();
  tensor.mutable_data()->pop_back();
  EXPECT_THAT(ErrorOf(tensor), AllOf(HasSubstr("hidden_states.data has 11 bytes"),
                                     HasSubstr("[2, 3]"), HasSubstr("12")));
}

TEST_F(BadTensorTest, Dtype) {
  v1::Tensor tensor = Valid();
  tensor.set_dtype(v1::DTYPE_UNSPECIFIED);
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("hidden_states.dtype is DTYPE_UNSPECIFIED"));
  tensor.set_dtype(static_cast<v1::Dtype>(99));
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("hidden_states.dtype is 99"));
}

TEST_F(BadTensorTest, Dimensions) {
  v1::Tensor tensor = Valid();
  tensor.add_shape(1);
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("hidden_states.shape has 3 dimensions"));
}

TEST_F(BadTensorTest, ShapeWhoseProductOverflows) {
  v1::Tensor tensor = Valid();
  tensor.set_shape(0, uint64_t{1} << 63);
  tensor.set_shape(1, 2);
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("overflows"));
  tensor.set_shape(1, 1);  // Fits as a count of elements, not of bytes.
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("overflows"));
}

TEST_F(BadTensorTest, ScalesWithoutBlocks) {
  v1::Tensor tensor = Valid();
  tensor.set_scales("1234");
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("hidden_states.scales has 4 bytes"));
}

class BadScalesTest : public BadTensorTest {
 protected:
  // [3, 130]: two blocks to a row.
  static v1::Tensor Valid() {
    v1::Tensor tensor;
    tensor.set_dtype(v1::DTYPE_INT8_BLOCK128);
    tensor.add_shape(3);
    tensor.add_shape(130);
    tensor.set_data(std::string(390, '\1'));
    tensor.set_scales(std::string(24, '\0'));
    return tensor;
  }
};

TEST_F(BadScalesTest, OneForEachBlockOfARow) {
  v1::ForwardRequest request;
  *request.mutable_hidden_states() = Valid();
  EXPECT_TRUE(DecodeTensorMessage<v1::ForwardRequest>(Frame(request.SerializeAsString()))
                  ->tensor_status.ok());
  // None, one too few, one too many, part of one, and as many as blocks of all values together.
  for (const size_t bytes : {0, 20, 28, 23, 16}) {
    v1::Tensor tensor = Valid();
    tensor.set_scales(std::string(bytes, '\0'));
    EXPECT_THAT(ErrorOf(tensor),
                AllOf(HasSubstr("hidden_states.scales has " + std::to_string(bytes) + " bytes"),
                      HasSubstr("[3, 130]"), HasSubstr("needs 24")));
  }
}

TEST_F(BadScalesTest, ClaimedShapes) {
  v1::Tensor tensor = Valid();
  tensor.set_shape(0, uint64_t{1} << 40);
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("hidden_states.data has 390 bytes"));
  tensor.set_shape(1, uint64_t{1} << 24);
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("overflows"));
  // Rows of nothing, however many, have no scales.
  tensor.set_shape(0, std::numeric_limits<uint64_t>::max());
  tensor.set_shape(1, 0);
  tensor.clear_data();
  EXPECT_THAT(ErrorOf(tensor), HasSubstr("needs 0"));
}

TEST(TensorCopyTest, Int8BlocksLieAcrossSlices) {
  constexpr size_t kRows = 3;
  constexpr size_t kCols = 300;  // Blocks of 128, 128 and 44.
  std::mt19937 random(4);
  std::string data(kRows * kCols, '\0');
  for (char& byte : data) {
    byte = static_cast<char>(random());
  }
  std::vector<float> scales;
  for (int i = 0; i < 9; ++i) {
    scales.push_back(std::ldexp(1.0f, i - 4));
  }
  const std::string scale_bytes(reinterpret_cast<const char*>(scales.data()), 36);
  for (const size_t longest : {1, 7, 127, 128, 129, 1000}) {
    const TensorFrame tensor{Dtype::kI8Block128, kRows, kCols, CutAtRandom(data, &random, longest),
                             CutAtRandom(scale_bytes, &random, 5)};
    std::vector<float> copied(kRows * kCols);
    EXPECT_EQ(CopyRows(tensor, Dtype::kF32, copied.data()), 0u);
    std::vector<float> expected;
    std::vector<uint16_t> rounded;
    for (size_t i = 0; i < copied.size(); ++i) {
      // Scales are powers of two: exact.
      const float scale = std::ldexp(1.0f, static_cast<int>(i / kCols * 3 + i % kCols / 128) - 4);
      expected.push_back(scale * static_cast<int8_t>(data[i]));
      rounded.push_back(BF16FromFloat(copied[i]));
    }
    EXPECT_TRUE(SameRows(copied, expected, kCols));
    std::vector<uint16_t> narrow(copied.size());
    CopyRows(tensor, Dtype::kBF16, narrow.data());
    EXPECT_TRUE(SameRows(narrow, rounded, kCols));
  }
}

TEST(TensorCopyTest, CountsRowsWithAScaleThatIsNotFinite) {
  std::vector<float> scales = {1.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f,
                               std::numeric_limits<float>::infinity()};
  TensorFrame tensor{Dtype::kI8Block128, 4, 2, Frame(std::string(8, '\1'))};
  tensor.scales = Frame(std::string(reinterpret_cast<const char*>(scales.data()), 16));
  std::vector<float> copied(8);
  EXPECT_EQ(CopyRows(tensor, Dtype::kF32, copied.data()), 2u);
  EXPECT_TRUE(std::isnan(copied[2]) && std::isnan(copied[3]));
  EXPECT_EQ(copied[4], 1.0f);
}

TEST(TensorCopyTest, ConvertsElementsThatLieAcrossSlices) {
  std::mt19937 random(3);
  std::vector<float> values(7 * 11);
  for (float& value : values) {
    value = static_cast<float>(random()) / 1e9f - 2.0f;
  }
  const std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  for (size_t longest = 1; longest < 12; ++longest) {
    TensorFrame tensor{Dtype::kF32, 7, 11, CutAtRandom(bytes, &random, longest)};
    std::vector<uint16_t> copied(values.size());
    EXPECT_EQ(CopyRows(tensor, Dtype::kBF16, copied.data()), 0u);
    std::vector<uint16_t> expected;
    for (const float value : values) {
      expected.push_back(BF16FromFloat(value));
    }
    EXPECT_TRUE(SameRows(copied, expected, 11));
  }
}

TEST(TensorCopyTest, SelectedRowsAreSharedInRunsWorthIt) {
  struct Case {
    size_t row_bytes;
    std::vector<uint32_t> rows;
    size_t slices;
    bool copied;
  };
  for (const Case& c : std::vector<Case>{{4096, {0, 2, 3, 7}, 3, false},
                                         {kShareFrom, {1, 3}, 2, false},
                                         {kShareFrom - 1, {1, 3}, 1, true},
                                         {1024, {1, 2, 5, 6}, 2, false},
                                         {1024, {1, 2, 5}, 1, true},
                                         {16, {0, 1, 2, 3, 4, 5, 6, 7}, 1, false},
                                         {16, {3}, 1, false},
                                         {16, {}, 0, false}}) {
    const auto matrix = std::make_shared<AlignedBuffer>(8 * c.row_bytes);
    for (size_t i = 0; i < matrix->size(); ++i) {
      matrix->data()[i] = static_cast<uint8_t>(i % 251);
    }
    const uint64_t before = copied_tensor_bytes.load();
    Frame frame;
    SelectRows(matrix, c.row_bytes, c.rows, nullptr, &frame);
    std::string expected;
    for (const uint32_t row : c.rows) {
      expected.append(reinterpret_cast<const char*>(matrix->data()) + row * c.row_bytes,
                      c.row_bytes);
    }
    EXPECT_TRUE(SameRows(frame.Flatten(), expected, c.row_bytes));
    EXPECT_EQ(frame.slices().size(), c.slices);
    EXPECT_EQ(copied_tensor_bytes.load() - before, c.copied ? expected.size() : 0);
    for (const Slice& slice : frame.slices()) {
      EXPECT_EQ(slice.owner() == matrix, !c.copied);
    }
  }
}

TEST(TensorCopyTest, CountsRowsWithNaNOrInfinity) {
  std::vector<float> values(3 * 4, 1.0f);
  values[1] = std::numeric_limits<float>::quiet_NaN();
  values[2] = std::numeric_limits<float>::infinity();
  values[11] = -std::numeric_limits<float>::infinity();
  TensorFrame tensor{Dtype::kF32, 3, 4, {}};
  tensor.data = Frame(std::string(reinterpret_cast<const char*>(values.data()), 48));
  std::vector<float> copied(12);
  EXPECT_EQ(CopyRows(tensor, Dtype::kF32, copied.data()), 2u);
}

}  // namespace
}  // namespace expertmesh
