// How often the router copies the bytes of a tensor on their way through. Between a received
// message and the matrix of the batch there is one copy, and rows leave that matrix for the nodes
// as they lie in it; partials are copied once, to be summed; an answer is copied only to have
// another type than the sum.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/message_bytes.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

class RouterCopiesTest : public RouterTest {
 protected:
  static constexpr size_t kTokens = 24;

  // Nodes with these experts each, as slice i of `slices` where that is more than 1.
  void Start(uint32_t d_model, const std::vector<std::vector<uint32_t>>& experts,
             uint32_t slices = 1) {
    d_model_ = d_model;
    FakeCheckpointOptions checkpoint;
    checkpoint.d_model = d_model;
    StartRouter({}, checkpoint);
    for (uint32_t i = 0; i < experts.size(); ++i) {
      FakeNodeOptions node;
      node.d_model = d_model;
      node.experts = experts[i];
      node.slice_index = slices > 1 ? i : 0;
      node.slice_count = slices;
      AddNodeWith("node:" + std::to_string(i + 1), node);
    }
    Connect();
  }

  // Bytes that the router copies for one request.
  uint64_t CopiedBytes(v1::Dtype output_dtype) {
    std::vector<float> rows(kTokens * d_model_);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = static_cast<float>(i % 17) - 8.0f;
    }
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_output_dtype(output_dtype);
    const uint64_t before = copied_tensor_bytes.load();
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows, d_model_), &answer, &done);
    done.WaitForNotification();
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    return copied_tensor_bytes.load() - before;
  }

  uint64_t RowsSentToNodes() const {
    uint64_t rows = 0;
    for (const auto& [address, node] : nodes_) {
      rows += node->rows();
    }
    return rows;
  }
  uint64_t F32Bytes(uint64_t rows) const { return rows * d_model_ * sizeof(float); }

  uint32_t d_model_ = 0;
};

TEST_F(RouterCopiesTest, WhatIsReceivedIsCopiedOnceAndWhatIsSentIsNot) {
  Start(1024, {{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}}, 2);
  const uint64_t copied = CopiedBytes(v1::DTYPE_F32);
  EXPECT_EQ(RowsSentToNodes(), 2 * kTokens);  // Every row to every node.
  EXPECT_EQ(copied, F32Bytes(kTokens) + F32Bytes(2 * kTokens));
}

TEST_F(RouterCopiesTest, NorAreRowsThatGoToSomeOfTheNodes) {
  Start(1024, {{0, 1}, {2, 3}, {4, 5}});
  const uint64_t copied = CopiedBytes(v1::DTYPE_F32);
  EXPECT_LT(RowsSentToNodes(), 3 * kTokens);
  EXPECT_GT(RowsSentToNodes(), kTokens);
  EXPECT_EQ(copied, F32Bytes(kTokens) + F32Bytes(RowsSentToNodes()));
}

TEST_F(RouterCopiesTest, AnotherTypeOfAnswerIsMadeInOneCopy) {
  Start(1024, {{0, 1, 2, 3, 4, 5}});
  EXPECT_EQ(CopiedBytes(v1::DTYPE_BF16), 2 * F32Bytes(kTokens) + F32Bytes(kTokens) / 2);
}

TEST_F(RouterCopiesTest, ShortRowsAreCopiedTogetherOnceOnTheirWayOut) {
  Start(8, {{0, 1}, {2, 3}, {4, 5}});
  const uint64_t copied = CopiedBytes(v1::DTYPE_F32);
  const uint64_t received = F32Bytes(kTokens) + F32Bytes(RowsSentToNodes());
  EXPECT_GT(copied, received);
  EXPECT_LE(copied, received + F32Bytes(RowsSentToNodes()));
}

}  // namespace
}  // namespace expertmesh::router
