#include "common/net/byte_buffer.h"

#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/compare_rows.h"

namespace expertmesh::net {
namespace {

TEST(ByteBufferTest, LargeSlicesAreSharedUntilTheBufferIsGone) {
  auto owner = std::make_shared<const std::string>(100'000, 'x');
  const std::weak_ptr<const std::string> alive = owner;
  Frame frame;
  frame.Append(Slice(owner->data(), owner->size(), owner));
  const void* const bytes = owner->data();
  auto buffer = std::make_unique<grpc::ByteBuffer>(ToByteBuffer(frame));
  frame = Frame();
  owner.reset();
  EXPECT_FALSE(alive.expired());
  {
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(buffer->Dump(&slices).ok());
    ASSERT_EQ(slices.size(), 1u);
    EXPECT_EQ(slices[0].begin(), bytes);
  }
  buffer.reset();
  EXPECT_TRUE(alive.expired());
}

// The rows of a matrix that one node gets.
TEST(ByteBufferTest, SlicesOfOneOwnerShareItUntilTheLastIsGone) {
  auto owner = std::make_shared<std::string>(20'000, '\0');
  for (size_t i = 0; i < owner->size(); ++i) {
    (*owner)[i] = static_cast<char>(i * 7 % 251);
  }
  const std::weak_ptr<const std::string> alive = owner;
  const auto slice = [&owner](size_t at, size_t size) {
    return Slice(owner->data() + at, size, owner);
  };
  Frame frame;
  for (const Slice& part : {slice(9'000, 2'000), slice(0, 3'000), slice(500, 10),
                            Slice::FromString(std::string(5'000, 'h')), slice(12'000, 4'000)}) {
    frame.Append(part);
  }
  const std::string expected = frame.Flatten();
  std::vector<grpc::Slice> slices;
  {
    const grpc::ByteBuffer buffer = ToByteBuffer(frame);
    ASSERT_TRUE(buffer.Dump(&slices).ok());
  }
  ASSERT_EQ(slices.size(), 5u);
  EXPECT_EQ(slices[1].begin(), reinterpret_cast<const uint8_t*>(owner->data()));
  frame = Frame();
  owner.reset();
  std::string bytes;
  while (!slices.empty()) {
    EXPECT_FALSE(alive.expired());
    bytes.insert(0, reinterpret_cast<const char*>(slices.back().begin()), slices.back().size());
    slices.pop_back();
  }
  EXPECT_TRUE(alive.expired());
  EXPECT_TRUE(SameRows(bytes, expected, 1));
}

TEST(ByteBufferTest, RoundTripKeepsTheBytes) {
  for (const size_t size : {0, 1, 20, 100, 1023, 1024, 70'000}) {
    Frame frame;
    frame.Append(Slice::FromString("head"));
    frame.Append(Slice::FromString(std::string(size, 'b')));
    grpc::ByteBuffer buffer = ToByteBuffer(frame);
    const Frame back = TakeFrame(&buffer);
    EXPECT_TRUE(SameRows(back.Flatten(), frame.Flatten(), 1));
    EXPECT_EQ(buffer.Length(), 0u);
  }
}

TEST(ByteBufferTest, EmptyFrameIsAnEmptyMessage) {
  grpc::ByteBuffer buffer = ToByteBuffer(Frame());
  EXPECT_TRUE(buffer.Valid());
  EXPECT_TRUE(TakeFrame(&buffer).empty());
  grpc::ByteBuffer never_filled;
  EXPECT_TRUE(TakeFrame(&never_filled).empty());
}

TEST(ByteBufferTest, ReceivedBytesOutliveTheBuffer) {
  Frame part;
  {
    grpc::ByteBuffer buffer = ToByteBuffer(Frame(std::string(50'000, 'y')));
    part = TakeFrame(&buffer).Sub(10, 20);
  }
  EXPECT_EQ(part.Flatten(), std::string(20, 'y'));
}

}  // namespace
}  // namespace expertmesh::net
