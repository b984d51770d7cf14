#include "common/net/byte_buffer.h"

#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace expertmesh {
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

TEST(ByteBufferTest, RoundTripKeepsTheBytes) {
  for (const size_t size : {0, 1, 20, 100, 1023, 1024, 70'000}) {
    Frame frame;
    frame.Append(Slice::FromString("head"));
    frame.Append(Slice::FromString(std::string(size, 'b')));
    grpc::ByteBuffer buffer = ToByteBuffer(frame);
    const Frame back = TakeFrame(&buffer);
    EXPECT_EQ(back.Flatten(), frame.Flatten());
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
}  // namespace expertmesh
