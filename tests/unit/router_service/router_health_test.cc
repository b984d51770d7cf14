// Nodes that are there and serve badly: no request fails while a replica is left, and they are put
// out of use until they serve again.
#include <gmock/gmock.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::HasSubstr;

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};
// Longer than an answer may take, by more than the time between two looks at it.
constexpr absl::Duration kOverdue = absl::Milliseconds(350);

class RouterHealthTest : public RouterTest {
 protected:
  // Requests leave at once, whatever the clock of the test says of those before.
  static RouterOptions Options() {
    RouterOptions options;
    options.batcher.max_linger_share = 0;
    return options;
  }

  // Two nodes that hold everything, whose pace is known; ties go to the first.
  FakeNode& StartPair() {
    StartRouter(Options());
    FakeNode& first = AddNode("a:1", kAll);
    AddNode("b:1", kAll);
    Connect();
    ExpectServed(1);
    return first;
  }

  void ExpectServed(int requests) {
    for (int i = 0; i < requests; ++i) {
      const std::vector<float> rows = RandomRows(static_cast<uint32_t>(i), 3);
      ExpectRight(1, rows, Forward(1, rows));
    }
  }

  v1::TopologyNode First() { return router_->fleet().Topology().nodes(0); }
  // Until the first node has this link, and batches are placed by it: what another node holds, too,
  // is placed on the first one only while that is up.
  void AwaitLink(v1::NodeLink link) {
    AwaitTopology([this, link](const v1::Topology& topology) {
      const auto view = router_->fleet().view();
      const bool used = (*view->placement().Layer(1))[0].SliceOn(0).has_value();
      return topology.nodes(0).link() == link && used == (link == v1::NODE_LINK_UP);
    });
  }
  // The first node is tried again, and is used.
  void AwaitRestored() {
    clock_.Advance(mesh::HealthOptions().longest_ejection);
    AwaitLink(v1::NODE_LINK_UP);
  }

  // The first node has answered so many, and the router has read them: what the node says of itself
  // afterwards comes after them. While an answer is read, its batch does not count as overdue.
  void AwaitBatches(FakeNode& node, uint64_t count) {
    while (node.batches() < count) {
      std::this_thread::yield();
    }
    constexpr uint32_t kOtherLimit = 4096;
    node.SetMaxBatchRows(kOtherLimit);
    AwaitTopology([](const v1::Topology& topology) {
      return topology.nodes(0).description().max_batch_rows() == kOtherLimit;
    });
  }

  // A request of which the first node owes its part.
  struct Waiting {
    std::vector<float> rows = RandomRows(99, 3);
    Answer answer;
    absl::Notification done;
  };
  void SendOne(Waiting* waiting) {
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_return_routing(true);
    Send(Encode(request, waiting->rows), &waiting->answer, &waiting->done);
  }

  // What `node` owes is asked of no other, and is used when it comes.
  void ExpectWaitedFor(FakeNode& node) {
    node.Hold();
    Waiting waiting;
    SendOne(&waiting);
    node.AwaitHeld(1);
    clock_.Advance(absl::Seconds(5));
    EXPECT_FALSE(waiting.done.HasBeenNotified());
    node.Release();
    waiting.done.WaitForNotification();
    ExpectRight(1, waiting.rows, waiting.answer);
  }
};

TEST_F(RouterHealthTest, WhatASilentNodeOwesIsAskedOfAReplicaAndTheNodeIsNotUsed) {
  FakeNode& a = StartPair();
  a.Hold();
  Waiting waiting;
  SendOne(&waiting);
  a.AwaitHeld(1);
  clock_.Advance(kOverdue);
  waiting.done.WaitForNotification();
  ExpectRight(1, waiting.rows, waiting.answer);  // Each assignment once.
  AwaitLink(v1::NODE_LINK_EJECTED);
  EXPECT_EQ(First().link(), v1::NODE_LINK_EJECTED);
  EXPECT_THAT(First().reason(), HasSubstr("no answers"));
  EXPECT_EQ(First().ejections(), 1);
  EXPECT_EQ(First().overdue_batches(), 1);
  EXPECT_EQ(router_->fleet().Summary().nodes.at(mesh::LinkState::kEjected), 1);

  const uint64_t batches = a.batches();
  ExpectServed(5);
  EXPECT_EQ(a.batches(), batches);
  a.Release();  // What comes too late is not used.
  AwaitRestored();
  ExpectServed(5);
  EXPECT_GT(a.batches(), batches);
}

TEST_F(RouterHealthTest, ANodeThatIsStillSilentWhenItIsTriedStaysOut) {
  FakeNode& a = StartPair();
  a.Hold();
  Waiting waiting;
  SendOne(&waiting);
  a.AwaitHeld(1);
  clock_.Advance(kOverdue);
  waiting.done.WaitForNotification();
  clock_.Advance(absl::Seconds(1));
  a.AwaitHeld(2);  // It is tried,
  clock_.Advance(kOverdue);
  while (First().overdue_batches() < 2) {
    std::this_thread::yield();
  }
  EXPECT_EQ(First().link(), v1::NODE_LINK_EJECTED);  // in vain.
  a.Release();
  AwaitRestored();
}

TEST_F(RouterHealthTest, WithoutAReplicaItIsWaitedFor) {
  StartRouter(Options());
  FakeNode& a = AddNode("a:1", kAll);
  Connect();
  ExpectServed(1);
  ExpectWaitedFor(a);
}

TEST_F(RouterHealthTest, BeforeAnyAnswerNothingIsOverdue) {
  StartRouter(Options());
  FakeNode& a = AddNode("a:1", kAll);
  AddNode("b:1", kAll);
  Connect();
  ExpectWaitedFor(a);
  EXPECT_EQ(First().link(), v1::NODE_LINK_UP);
}

TEST_F(RouterHealthTest, WithoutALimitNothingIsOverdue) {
  RouterOptions options = Options();
  options.health.shortest_limit = absl::InfiniteDuration();
  StartRouter(options);
  FakeNode& a = AddNode("a:1", kAll);
  AddNode("b:1", kAll);
  Connect();
  ExpectServed(1);
  ExpectWaitedFor(a);
}

TEST_F(RouterHealthTest, HalfAnAnswerIsNone) {
  FakeNode& a = StartPair();
  a.EditAnswers([](internal::v1::ComputeResponse*, TensorFrame* partials) {
    partials->rows /= 2;
    partials->data = partials->data.Sub(0, partials->rows * partials->cols * sizeof(float));
  });
  Waiting waiting;
  SendOne(&waiting);
  AwaitBatches(a, 2);
  clock_.Advance(kOverdue);
  waiting.done.WaitForNotification();
  ExpectRight(1, waiting.rows, waiting.answer);
  EXPECT_EQ(First().link(), v1::NODE_LINK_EJECTED);
  a.EditAnswers(nullptr);
  AwaitRestored();
}

TEST_F(RouterHealthTest, NorIsTheAnswerToAnotherBatch) {
  FakeNode& a = StartPair();
  a.EditAnswers([](internal::v1::ComputeResponse* response, TensorFrame*) {
    response->set_batch_id(response->batch_id() + 1000);
  });
  Waiting waiting;
  SendOne(&waiting);
  AwaitBatches(a, 2);
  clock_.Advance(kOverdue);
  waiting.done.WaitForNotification();
  ExpectRight(1, waiting.rows, waiting.answer);
  EXPECT_EQ(First().link(), v1::NODE_LINK_EJECTED);
}

// By code of the error.
class NodeErrorTest : public RouterHealthTest, public testing::WithParamInterface<int> {};

TEST_P(NodeErrorTest, CostsNoRequestAndPutsTheNodeOutOfUse) {
  FakeNode& a = StartPair();
  a.FailWith(absl::Status(static_cast<absl::StatusCode>(GetParam()), "as the test wants"));
  ExpectServed(20);
  clock_.Advance(absl::Milliseconds(50));
  AwaitLink(v1::NODE_LINK_EJECTED);
  EXPECT_FALSE(First().reason().empty());
  const uint64_t batches = a.batches();
  ExpectServed(5);
  EXPECT_EQ(a.batches(), batches);
  a.FailWith(absl::OkStatus());
  AwaitRestored();
  ExpectServed(5);
  EXPECT_GT(a.batches(), batches);
}

INSTANTIATE_TEST_SUITE_P(EveryCode, NodeErrorTest, testing::Range(1, 17));

TEST_F(RouterHealthTest, OneWhoseAnswersAreOftenUnreadableCostsNoRequest) {
  FakeNode& a = StartPair();
  int turn = 0;
  a.EditAnswers([&turn](internal::v1::ComputeResponse* response, TensorFrame*) {
    response->set_first_row(++turn % 3 == 0 ? 7 : 0);
  });
  ExpectServed(60);
  clock_.Advance(absl::Milliseconds(50));
  AwaitLink(v1::NODE_LINK_EJECTED);
  EXPECT_GT(First().faulty_answers(), 3);
  EXPECT_THAT(First().reason(), HasSubstr("does not fit what was asked"));
}

TEST_F(RouterHealthTest, WithoutAReplicaACallerIsNotToldThatItsRequestWasWrong) {
  StartRouter(Options());
  FakeNode& a = AddNode("a:1", kAll);
  Connect();
  a.FailWith(absl::PermissionDeniedError("not you"));
  const Answer answer = Forward(1, RandomRows(12, 2));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(
      std::string(answer.status.message()),
      testing::AllOf(HasSubstr("node a:1"), HasSubstr("not you"), HasSubstr("PERMISSION_DENIED")));
  EXPECT_EQ(ReasonOf(answer.status), v1::ERROR_REASON_NODES_LOST);
}

TEST_F(RouterHealthTest, ANodeThatIsEjectedStillServesWhatNoOtherHolds) {
  StartRouter(Options());
  FakeNode& a = AddNode("a:1", kAll);
  AddNode("b:1", {0, 1, 2});
  Connect();
  ExpectServed(1);
  a.FailTimes(3, absl::InternalError("three times"));
  Forward(1, RandomRows(1, 1));
  clock_.Advance(absl::Milliseconds(50));
  AwaitLink(v1::NODE_LINK_EJECTED);
  EXPECT_TRUE(router_->ready());
  ExpectServed(5);
}

TEST_F(RouterHealthTest, WhenAllHoldersFailItIsNotSaidThatThereAreNone) {
  StartRouter(Options());
  for (const char* address : {"a:1", "b:1"}) {
    AddNode(address, kAll).FailWith(absl::UnavailableError("out of order"));
  }
  Connect();
  const Answer answer = Forward(1, RandomRows(12, 2));
  EXPECT_EQ(ReasonOf(answer.status), v1::ERROR_REASON_NODES_LOST);
  EXPECT_THAT(std::string(answer.status.message()),
              testing::AllOf(HasSubstr("all nodes that hold expert"), HasSubstr("out of order")));
}

}  // namespace
}  // namespace expertmesh::router
