#include "expert_service/compute_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "common/wire/message_codec.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/wire_dtype.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "tests/support/compare_rows.h"

namespace expertmesh::node {
namespace {

// 11 us in the queue and 22 us of computing.
const StageTimes kTimes = {absl::FromUnixMicros(1), absl::FromUnixMicros(5),
                           absl::FromUnixMicros(16), absl::FromUnixMicros(38)};

TEST(ComputeResponseTest, ResultsAreCutAndNotCopied) {
  constexpr size_t kRows = 23;
  constexpr size_t kCols = 16;
  const auto values = std::make_shared<std::vector<float>>(kRows * kCols);
  for (size_t i = 0; i < values->size(); ++i) {
    (*values)[i] = static_cast<float>(i);
  }
  constexpr size_t kLimit = 500;
  std::vector<size_t> widened;
  const std::vector<Frame> frames =
      EncodePartials({9, values->data(), kRows, kCols, values, kTimes}, kLimit, &widened);
  EXPECT_TRUE(widened.empty());
  EXPECT_EQ(values.use_count(), 1 + static_cast<long>(frames.size()));
  EXPECT_GT(frames.size(), 3u);
  size_t rows = 0;
  for (const Frame& frame : frames) {
    EXPECT_LE(frame.size(), kLimit);
    const absl::StatusOr<TensorMessage<internal::v1::ComputeResponse>> decoded =
        DecodeTensorMessage<internal::v1::ComputeResponse>(frame);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->message.batch_id(), 9u);
    EXPECT_EQ(decoded->message.status().code(), 0);
    EXPECT_EQ(decoded->message.first_row(), rows);
    EXPECT_EQ(decoded->tensor.dtype, Dtype::kF32);
    EXPECT_EQ(decoded->tensor.cols, kCols);
    ASSERT_EQ(decoded->tensor.data.slices().size(), 1u);
    EXPECT_EQ(static_cast<const void*>(decoded->tensor.data.slices()[0].data()),
              static_cast<const void*>(values->data() + rows * kCols));
    rows += decoded->tensor.rows;
    const bool last = rows == kRows;
    EXPECT_EQ(decoded->message.queue_us(), last ? 11u : 0u);
    EXPECT_EQ(decoded->message.compute_us(), last ? 22u : 0u);
  }
  EXPECT_EQ(rows, kRows);
}

TEST(ComputeResponseTest, OtherTypesAreCutByTheirOwnSize) {
  constexpr size_t kRows = 23;
  constexpr size_t kCols = 150;
  const auto values = std::make_shared<std::vector<float>>(kRows * kCols);
  for (size_t i = 0; i < values->size(); ++i) {
    // Values of 8 bits, so exact in bf16 and f16; the largest of each block is 127: exact in int8.
    (*values)[i] = i % kCols % 128 == 0 ? -127.0f : static_cast<float>(i % 127);
  }
  constexpr size_t kLimit = 2000;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kI8Block128}) {
    std::vector<size_t> widened;
    const std::vector<Frame> frames =
        EncodePartials({9, values->data(), kRows, kCols, values, kTimes, dtype}, kLimit, &widened);
    EXPECT_TRUE(widened.empty());
    // No more frames than it takes.
    EXPECT_GT(frames.size(), 2u);
    const size_t row_bytes = dtype == Dtype::kI8Block128 ? kCols + 8 : kCols * BytesOf(dtype);
    const size_t rows_per_frame = (kLimit - 128) / row_bytes;
    EXPECT_EQ(frames.size(), (kRows + rows_per_frame - 1) / rows_per_frame);
    std::vector<float> all;
    for (const Frame& frame : frames) {
      EXPECT_LE(frame.size(), kLimit);
      internal::v1::ComputeResponse generated;
      ASSERT_TRUE(generated.ParseFromString(frame.Flatten()));
      EXPECT_EQ(generated.partials().dtype(), ToWire(dtype));
      EXPECT_EQ(generated.first_row() * kCols, all.size());
      const auto decoded = DecodeTensorMessage<internal::v1::ComputeResponse>(frame);
      ASSERT_TRUE(decoded.ok() && decoded->has_tensor) << decoded->tensor_status;
      std::vector<float> part(decoded->tensor.rows * kCols);
      DecodeRows(decoded->tensor, Dtype::kF32, part.data());
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(SameRows(all, *values, kCols));
  }
}

TEST(ComputeResponseTest, ARowThatIsTooLargeGoesAlone) {
  const auto values = std::make_shared<std::vector<float>>(3 * 1000);
  std::vector<size_t> widened;
  EXPECT_EQ(EncodePartials({1, values->data(), 3, 1000, values, {}}, 100, &widened).size(), 3u);
}

// 65504 is the largest of f16, and what rounds to it fits; an infinity is no value that is lost.
TEST(ComputeResponseTest, RowsBeyondTheTypeGoAsFloat32AndLeaveOthersAlone) {
  constexpr size_t kRows = 9;
  constexpr size_t kCols = 40;
  const auto values = std::make_shared<std::vector<float>>(kRows * kCols, 1.5f);
  const auto set = [&](size_t row, float value) { (*values)[row * kCols + row] = value; };
  set(0, 65519.0f);
  set(2, 65520.0f);
  set(3, -1e9f);
  set(5, std::numeric_limits<float>::infinity());
  set(8, 3.4e38f);
  std::vector<size_t> widened;
  const auto all_of = [&](Dtype dtype, size_t limit) {
    widened.clear();
    std::vector<float> all;
    size_t last_queue_us = 0;
    for (const Frame& frame : EncodePartials(
             {9, values->data(), kRows, kCols, values, kTimes, dtype}, limit, &widened)) {
      const auto decoded = DecodeTensorMessage<internal::v1::ComputeResponse>(frame);
      EXPECT_TRUE(decoded.ok() && decoded->has_tensor);
      EXPECT_EQ(decoded->message.first_row() * kCols, all.size());
      for (size_t row = 0; row < decoded->tensor.rows; ++row) {
        const bool wide = std::count(widened.begin(), widened.end(), all.size() / kCols + row) > 0;
        EXPECT_EQ(decoded->tensor.dtype, wide ? Dtype::kF32 : dtype);
      }
      last_queue_us = decoded->message.queue_us();
      std::vector<float> part(decoded->tensor.rows * kCols);
      DecodeRows(decoded->tensor, Dtype::kF32, part.data());
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(last_queue_us, 11u);
    return all;
  };
  for (const size_t limit : {size_t{1}, size_t{300}, size_t{1} << 20}) {
    std::vector<float> expected = *values;
    expected[0] = 65504.0f;
    EXPECT_TRUE(SameRows(all_of(Dtype::kF16, limit), expected, kCols));
    EXPECT_THAT(widened, testing::ElementsAre(2, 3, 8));
    all_of(Dtype::kBF16, limit);  // Ends between 3.39e38 and 3.4e38.
    EXPECT_THAT(widened, testing::ElementsAre(8));
    all_of(Dtype::kI8Block128, limit);
    EXPECT_THAT(widened, testing::IsEmpty());
  }
}

TEST(ComputeResponseTest, ErrorsNameBatchCodeAndMessage) {
  const Frame frame = EncodeError(5, absl::FailedPreconditionError("not held"));
  internal::v1::ComputeResponse response;
  ASSERT_TRUE(response.ParseFromString(frame.Flatten()));
  EXPECT_EQ(response.batch_id(), 5u);
  EXPECT_EQ(response.status().code(), 9);
  EXPECT_EQ(response.status().message(), "not held");
  EXPECT_FALSE(response.has_partials());
}

}  // namespace
}  // namespace expertmesh::node
