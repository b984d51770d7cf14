#include "common/wire/frame_checksum.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "common/wire/tensor_encode.h"

namespace expertmesh {
namespace {

internal::v1::ComputeRequest Request() {
  internal::v1::ComputeRequest request;
  request.set_batch_id(7);
  request.set_layer(2);
  request.set_epoch(9);
  request.set_total_rows(3);
  request.set_first_row(1);
  request.set_partials_dtype(v1::DTYPE_BF16);
  for (const uint32_t count : {1u, 2u}) {
    request.add_assignments_per_row(count);
  }
  for (const uint32_t expert : {4u, 5u, 6u}) {
    request.add_expert_ids(expert);
    request.add_expert_weights(0.25f * static_cast<float>(expert));
  }
  return request;
}

TensorFrame Rows(Dtype dtype) {
  std::vector<float> values(2 * 130);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i) - 100.0f;
  }
  return EncodeRows(Dtype::kF32, values.data(), 2, 130, dtype);
}

// The same bytes with one bit changed.
Frame Flipped(const Frame& frame, size_t bit) {
  std::string bytes = frame.Flatten();
  bytes[bit / 8] ^= static_cast<char>(1 << (bit % 8));
  return Frame(std::move(bytes));
}

TEST(FrameChecksumTest, SeesEveryBitOfTheTensor) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kI8Block128}) {
    const TensorFrame rows = Rows(dtype);
    std::set<uint64_t> seen = {ChecksumOf(Request(), rows)};
    size_t count = 1;
    for (size_t bit = 0; bit < rows.data.size() * 8; ++bit, ++count) {
      TensorFrame changed = rows;
      changed.data = Flipped(rows.data, bit);
      seen.insert(ChecksumOf(Request(), changed));
    }
    for (size_t bit = 0; bit < rows.scales.size() * 8; ++bit, ++count) {
      TensorFrame changed = rows;
      changed.scales = Flipped(rows.scales, bit);
      seen.insert(ChecksumOf(Request(), changed));
    }
    EXPECT_EQ(seen.size(), count);
  }
}

TEST(FrameChecksumTest, SeesWhatIsToBeDoneWithTheRows) {
  const TensorFrame rows = Rows(Dtype::kF32);
  std::set<uint64_t> seen = {ChecksumOf(Request(), rows)};
  const auto with = [&](auto change) {
    internal::v1::ComputeRequest request = Request();
    change(request);
    seen.insert(ChecksumOf(request, rows));
  };
  with([](auto& request) { request.set_batch_id(6); });
  with([](auto& request) { request.set_layer(3); });
  with([](auto& request) { request.set_epoch(8); });
  with([](auto& request) { request.set_total_rows(2); });
  with([](auto& request) { request.set_first_row(0); });
  with([](auto& request) { request.set_partials_dtype(v1::DTYPE_F32); });
  with([](auto& request) { request.set_per_assignment(true); });
  with([](auto& request) { request.set_timeout_us(0); });
  with([](auto& request) { request.set_timeout_us(5); });
  with([](auto& request) { request.set_assignments_per_row(0, 2); });
  with([](auto& request) { request.set_expert_ids(2, 7); });
  with([](auto& request) { request.set_expert_weights(1, 0.5f); });
  EXPECT_EQ(seen.size(), 13u);
  internal::v1::ComputeRequest traced = Request();
  traced.set_traceparent("00-1");
  traced.set_checksum(5);
  EXPECT_TRUE(seen.contains(ChecksumOf(traced, rows)));
}

// However the bytes are cut, and the same in every build.
TEST(FrameChecksumTest, IsOfTheBytesAlone) {
  const TensorFrame rows = Rows(Dtype::kF32);
  TensorFrame cut = rows;
  cut.data = Frame();
  for (size_t at = 0; at < rows.data.size(); at += 13) {
    cut.data.Append(rows.data.Sub(at, std::min<size_t>(13, rows.data.size() - at)));
  }
  EXPECT_EQ(ChecksumOf(Request(), cut), ChecksumOf(Request(), rows));
  EXPECT_EQ(ChecksumOf(Request(), rows), 11050699352825689109u);
  internal::v1::ComputeResponse response;
  response.set_batch_id(7);
  const uint64_t first = ChecksumOf(response, rows);
  response.set_first_row(1);
  EXPECT_NE(ChecksumOf(response, rows), first);
}

}  // namespace
}  // namespace expertmesh
