// Messages that have more beside their tensor than a reader wants to look at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/wire/message_codec.h"

namespace expertmesh {
namespace {

constexpr size_t kMost = 1000;

absl::Status Decode(const std::string& bytes) {
  return DecodeTensorMessage<v1::ForwardRequest>(Frame(bytes), kMost).status();
}

std::string WithTensor(size_t count) {
  v1::ForwardRequest request;
  request.mutable_hidden_states()->set_dtype(v1::DTYPE_F32);
  request.mutable_hidden_states()->add_shape(1);
  request.mutable_hidden_states()->add_shape(count / 4);
  request.mutable_hidden_states()->set_data(std::string(count, 'x'));
  return request.SerializeAsString();
}

TEST(MessageLimitsTest, TheTensorDoesNotCount) {
  const std::string list = "\x52\xd0\x07" + std::string(976, '\1');  // token_ids
  EXPECT_TRUE(Decode(WithTensor(100'000) + list).ok());
  EXPECT_TRUE(Decode(list + WithTensor(100'000)).ok());
}

TEST(MessageLimitsTest, EverythingElseDoes) {
  const std::string list = "\x52\xe8\x07" + std::string(1000, '\1');
  std::string fields;   // token_ids, one by one.
  std::string tensors;  // Empty, again and again.
  std::string pieces;   // A byte or two each.
  for (int i = 0; i < 1000; ++i) {
    fields += "\x50\1";
    tensors += std::string("\xc2\x3e\0", 3);
    pieces += "\xc2\x3e\x02\x08\x01";
  }
  const std::string group = "\x8b\x7d" + fields + "\x8c\x7d";
  for (const std::string& others : {list, fields, tensors, pieces, group}) {
    EXPECT_EQ(Decode(others).code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(Decode(WithTensor(100'000) + others).code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(Decode(others + WithTensor(100'000)).code(), absl::StatusCode::kOutOfRange);
    EXPECT_TRUE(DecodeTensorMessage<v1::ForwardRequest>(Frame(others)).ok());
  }
}

TEST(MessageLimitsTest, AGroupWithoutEndIsNotReadToTheEnd) {
  std::string group = "\x8b\x7d";
  group += std::string(100'000, '\x08');
  EXPECT_EQ(Decode(group).code(), absl::StatusCode::kOutOfRange);
}

TEST(MessageLimitsTest, ATensorWithMuchBesideItsDataIsRefused) {
  v1::ForwardRequest request;
  for (int i = 0; i < 100'000; ++i) {
    request.mutable_hidden_states()->add_shape(1);
  }
  const auto decoded = DecodeTensorMessage<v1::ForwardRequest>(Frame(request.SerializeAsString()));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->tensor_status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(decoded->tensor_status.message()),
              testing::HasSubstr("send dtype and shape"));
}

}  // namespace
}  // namespace expertmesh
