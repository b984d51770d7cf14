// The whole router on the in-process transport: batches, nodes that come and go, deadlines.

#include "router_service/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/compare_rows.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(RouterTest, OneNodeComputesWhatTheRoutingSays) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(1, 5);
  const Answer answer = Forward(3, rows);
  ExpectRight(3, rows, answer);
  EXPECT_EQ(answer.response.request_id(), 5u);
  EXPECT_EQ(answer.response.routing().expert_ids_size(), 10);
  EXPECT_EQ(answer.response.epoch(), router_->fleet().view()->epoch());
  EXPECT_EQ(answer.response.timing().batch_tokens(), 5u);
}

TEST_F(RouterTest, SpreadOverNodesEachTokenTravelsToANodeOnce) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  FakeNode& b = AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(2, 40);
  ExpectRight(1, rows, Forward(1, rows));
  EXPECT_EQ(a.batches(), 1u);
  EXPECT_EQ(b.batches(), 1u);
  EXPECT_EQ(a.assignments() + b.assignments(), 80u);
  EXPECT_LE(a.rows(), 40u);
  EXPECT_LE(b.rows(), 40u);
}

TEST_F(RouterTest, SharedExpertsAreAddedByTheRouter) {
  StartRouter({}, true);
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(3, 9);
  ExpectRight(1, rows, Forward(1, rows), true);
}

TEST_F(RouterTest, SlicesOfAnExpertAddUp) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  AddNodeWith("a:1", FakeNodeOptions{.experts = all, .slice_index = 0, .slice_count = 2});
  AddNodeWith("b:1", FakeNodeOptions{.experts = all, .slice_index = 1, .slice_count = 2});
  Connect();
  const std::vector<float> rows = RandomRows(4, 7);
  ExpectRight(1, rows, Forward(1, rows));
}

TEST_F(RouterTest, LargeBatchesTravelInFramesAndPieces) {
  RouterOptions options;
  options.max_frame_bytes = 1;  // One row to a frame.
  StartRouter(options);
  FakeNode& a =
      AddNodeWith("a:1", FakeNodeOptions{.experts = {0, 1, 2, 3, 4, 5}, .max_batch_rows = 16});
  Connect();
  const std::vector<float> rows = RandomRows(5, 50);
  ExpectRight(1, rows, Forward(1, rows));
  EXPECT_EQ(a.batches(), 4u);
}

TEST_F(RouterTest, TimingHasTheNodeThatTookLongest) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  FakeNode& b = AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(2, 40);
  // Both numbers are of one node, and neither its place nor the larger queue makes it that one.
  a.Report({{5, 70}, {60, 10}});
  b.Report({{60, 10}, {5, 70}});
  for (int i = 0; i < 2; ++i) {
    const Answer answer = Forward(1, rows);
    ExpectRight(1, rows, answer);
    EXPECT_EQ(answer.response.timing().nodes(), 2u);
    EXPECT_EQ(answer.response.timing().node_queue_us(), 5u);
    EXPECT_EQ(answer.response.timing().node_compute_us(), 70u);
  }
}

TEST_F(RouterTest, TimingOfANodeWithSeveralBatchesIsOfTheLongestOne) {
  StartRouter();
  FakeNode& a =
      AddNodeWith("a:1", FakeNodeOptions{.experts = {0, 1, 2, 3, 4, 5}, .max_batch_rows = 16});
  Connect();
  a.Report({{8, 9}, {30, 9}, {9, 29}, {1, 2}});
  const Answer answer = Forward(1, RandomRows(5, 50));
  EXPECT_EQ(a.batches(), 4u);
  EXPECT_EQ(answer.response.timing().nodes(), 1u);
  EXPECT_EQ(answer.response.timing().node_queue_us(), 30u);
  EXPECT_EQ(answer.response.timing().node_compute_us(), 9u);
}

TEST_F(RouterTest, TimingLeavesOutANodeThatRefused) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  FakeNode& a = AddNode("a:1", all);
  FakeNode& b = AddNode("b:1", all);
  Connect();
  a.FailWith(absl::FailedPreconditionError("expert 3 of layer 1 is not held here"));
  a.Report({{900, 900}});
  b.Report({{3, 4}});
  const Answer answer = Forward(1, RandomRows(10, 6));
  EXPECT_EQ(a.batches(), 1u);
  EXPECT_EQ(answer.response.timing().nodes(), 1u);
  EXPECT_EQ(answer.response.timing().node_queue_us(), 3u);
  EXPECT_EQ(answer.response.timing().node_compute_us(), 4u);
}

TEST_F(RouterTest, ATokenHasTheSameBitsAloneAndInAnyBatch) {
  StartRouter();
  AddNode("a:1", {0, 3});
  AddNode("b:1", {1, 4});
  AddNode("c:1", {2, 5});
  Connect();
  const std::vector<float> rows = RandomRows(6, 33);
  const Answer together = Forward(1, rows);
  for (size_t row = 0; row < 33; ++row) {
    const std::vector<float> alone(rows.begin() + row * kModel, rows.begin() + (row + 1) * kModel);
    const Answer answer = Forward(1, alone);
    ASSERT_TRUE(answer.status.ok());
    const auto expected = absl::MakeConstSpan(together.output).subspan(row * kModel, kModel);
    ASSERT_TRUE(SameBits(answer.output, expected, kModel)) << "row " << row;
  }
}

TEST_F(RouterTest, RequestsThatWaitTogetherLeaveTogether) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  std::vector<Answer> answers(9);
  std::deque<absl::Notification> done(9);
  for (uint32_t i = 0; i < 9; ++i) {
    v1::ForwardRequest request;
    request.set_request_id(i);
    request.set_layer(1);
    request.set_return_routing(true);
    Send(Encode(request, RandomRows(i, 2)), &answers[i], &done[i]);
  }
  a.AwaitHeld(1);
  a.Release();
  for (uint32_t i = 0; i < 9; ++i) {
    done[i].WaitForNotification();
    EXPECT_EQ(answers[i].response.request_id(), i);
    ExpectRight(1, RandomRows(i, 2), answers[i]);
  }
  EXPECT_EQ(a.batches(), 2u);  // The first, and all the others together.
}

TEST_F(RouterTest, ManyCallersAtOnceEachGetTheirOwnAnswer) {
  StartRouter();
  AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {2, 3, 4});
  AddNode("c:1", {4, 5, 0});
  Connect();
  std::vector<std::thread> callers;
  for (uint32_t caller = 0; caller < 8; ++caller) {
    callers.emplace_back([this, caller] {
      for (uint32_t i = 0; i < 25; ++i) {
        const uint32_t layer = i % 2 == 0 ? 1 : 3;
        const std::vector<float> rows = RandomRows(caller * 1000 + i, 1 + (caller + i) % 7);
        ExpectRight(layer, rows, Forward(layer, rows));
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
}

TEST_F(RouterTest, ALostNodeCostsNoRequestWhenThereAreReplicas) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  FakeNode& a = AddNode("a:1", all);
  AddNode("b:1", all);
  Connect();
  a.Hold();
  const std::vector<float> rows = RandomRows(7, 12);
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_return_routing(true);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, rows), &answer, &done);
  a.AwaitHeld(1);  // Ties go to the first node in placement order.
  network_.Unregister("a:1");
  done.WaitForNotification();
  ExpectRight(1, rows, answer);  // Each assignment counted once: twice would show.
}

TEST_F(RouterTest, ALostSliceIsServedAgainOnItsOwn) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  AddNodeWith("a:1", FakeNodeOptions{.experts = all, .slice_index = 0, .slice_count = 2});
  FakeNode& b =
      AddNodeWith("b:1", FakeNodeOptions{.experts = all, .slice_index = 1, .slice_count = 2});
  AddNodeWith("c:1", FakeNodeOptions{.experts = all, .slice_index = 1, .slice_count = 2});
  Connect();
  b.Hold();
  const std::vector<float> rows = RandomRows(8, 4);
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_return_routing(true);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, rows), &answer, &done);
  b.AwaitHeld(1);
  network_.Unregister("b:1");
  done.WaitForNotification();
  ExpectRight(1, rows, answer);
}

TEST_F(RouterTest, WithoutReplicasTheErrorNamesLayerAndExpertsAndServiceRecovers) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4});
  AddNode("b:1", {5});
  Connect();
  network_.Unregister("b:1");
  AwaitTopology([](const v1::Topology& topology) { return !topology.ready(); });
  const v1::Topology topology = router_->fleet().Topology();
  ASSERT_EQ(topology.missing_size(), 2);
  EXPECT_THAT(topology.missing(0).experts(), ElementsAre(5));
  EXPECT_EQ(topology.nodes(1).link(), v1::NODE_LINK_DOWN);
  EXPECT_FALSE(router_->ready());

  const std::vector<float> rows = RandomRows(9, 60);  // Some of 60 tokens need expert 5.
  const Answer answer = Forward(3, rows);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answer.status.message()),
              AllOf(HasSubstr("layer 3"), HasSubstr("expert 5")));

  network_.Register("b:1", nodes_["b:1"].get());
  AwaitTopology([](const v1::Topology& topology) { return topology.ready(); });
  ExpectRight(3, rows, Forward(3, rows));
}

TEST_F(RouterTest, OnlyRequestsThatNeedTheMissingExpertFail) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  // Find a token for expert 5 and one for others, then take expert 5 away.
  std::vector<float> needs;
  std::vector<float> does_not;
  for (uint32_t seed = 0; needs.empty() || does_not.empty(); ++seed) {
    const std::vector<float> row = RandomRows(seed, 1);
    const v1::Routing routing = Forward(1, row).response.routing();
    const bool hit = routing.expert_ids(0) == 5 || routing.expert_ids(1) == 5;
    (hit ? needs : does_not) = row;
  }
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_return_routing(true);
  std::vector<Answer> answers(3);
  std::deque<absl::Notification> done(3);
  Send(Encode(request, does_not), &answers[0], &done[0]);  // In flight: the others share a batch.
  a.AwaitHeld(1);
  Send(Encode(request, needs), &answers[1], &done[1]);
  Send(Encode(request, does_not), &answers[2], &done[2]);
  a.SetExperts({0, 1, 2, 3, 4});
  AwaitTopology([](const v1::Topology& topology) { return !topology.ready(); });
  a.Release();
  for (absl::Notification& one : done) {
    one.WaitForNotification();
  }
  EXPECT_EQ(answers[1].status.code(), absl::StatusCode::kUnavailable);
  ExpectRight(1, does_not, answers[2]);
}

TEST_F(RouterTest, ANodeWithAnotherModelIsRefusedWithBothFingerprints) {
  StartRouter();
  AddNodeWith("a:1", FakeNodeOptions{.fingerprint = "bbbb", .experts = {0, 1, 2, 3, 4, 5}});
  router_->fleet().SetAddresses(addresses_);
  AwaitTopology([](const v1::Topology& topology) {
    return topology.nodes_size() == 1 && topology.nodes(0).link() == v1::NODE_LINK_REFUSED;
  });
  EXPECT_THAT(router_->fleet().Topology().nodes(0).reason(),
              AllOf(HasSubstr("aaaa"), HasSubstr("bbbb")));
  EXPECT_FALSE(router_->ready());
  EXPECT_EQ(Forward(1, RandomRows(1, 1)).status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(RouterTest, AnExpertThatMovedIsFoundElsewhere) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  FakeNode& a = AddNode("a:1", all);
  AddNode("b:1", all);
  Connect();
  a.FailWith(absl::FailedPreconditionError("expert 3 of layer 1 is not held here"));
  const std::vector<float> rows = RandomRows(10, 6);
  ExpectRight(1, rows, Forward(1, rows));
}

TEST_F(RouterTest, ANodeThatRefusesABatchStillServesWhatOnlyItHolds) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  AddNode("b:1", {0, 1, 2});
  Connect();
  // Refuses its first batch, as a node does that has just let go of some of its experts.
  a.FailOnce(absl::FailedPreconditionError("experts 0,1 of layer 1 are not held here"));
  const std::vector<float> rows = RandomRows(26, 20);
  ExpectRight(1, rows, Forward(1, rows));
}

TEST_F(RouterTest, AFullNodeIsReportedAsSuchWhenThereIsNoOther) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.FailWith(absl::ResourceExhaustedError("queue is full"));
  const Answer answer = Forward(1, RandomRows(11, 2));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("queue is full"));
}

TEST_F(RouterTest, ErrorsOfANodeNameTheNode) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.FailWith(absl::InvalidArgumentError("no such thing"));
  const Answer answer = Forward(1, RandomRows(12, 2));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);  // It was not the caller.
  EXPECT_THAT(std::string(answer.status.message()),
              AllOf(HasSubstr("node a"), HasSubstr("no such thing")));
}

TEST_F(RouterTest, NonsenseFromANodeFailsTheRequestAndNothingElse) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.AnswerBytes("\xff\xff\xff");
  EXPECT_FALSE(Forward(1, RandomRows(13, 2)).status.ok());
  a.AnswerBytes("");
  a.EditAnswers(
      [](internal::v1::ComputeResponse* response, TensorFrame*) { response->set_first_row(1); });
  EXPECT_FALSE(Forward(1, RandomRows(13, 2)).status.ok());
  a.EditAnswers(nullptr);
  const std::vector<float> rows = RandomRows(14, 2);
  ExpectRight(1, rows, Forward(1, rows));
}

TEST_F(RouterTest, ADeadlineThatPassesIsAnsweredAtOnceAndTheOthersGoOn) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_return_routing(true);
  std::vector<Answer> answers(2);
  std::deque<absl::Notification> done(2);
  const std::vector<float> rows = RandomRows(15, 3);
  Send(Encode(request, rows), &answers[0], &done[0]);
  a.AwaitHeld(1);
  request.set_timeout_us(5000);
  Send(Encode(request, rows), &answers[1], &done[1]);
  clock_.Advance(absl::Milliseconds(5));
  done[1].WaitForNotification();
  EXPECT_EQ(answers[1].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(done[0].HasBeenNotified());
  a.Release();
  done[0].WaitForNotification();
  ExpectRight(1, rows, answers[0]);
}

TEST_F(RouterTest, ARequestWithoutADeadlineDoesNotWaitForEver) {
  RouterOptions options;
  options.max_request_time = absl::Seconds(30);
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, RandomRows(25, 1)), &answer, &done);
  a.AwaitHeld(1);
  clock_.Advance(absl::Seconds(30));
  done.WaitForNotification();
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RouterTest, ADeadlineThatHasPassedIsRefusedOnArrival) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_EQ(Forward(1, RandomRows(16, 1), clock_.Now()).status.code(),
            absl::StatusCode::kDeadlineExceeded);
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_timeout_us(-3);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, RandomRows(16, 1)), &answer, &done);
  done.WaitForNotification();
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(a.batches(), 0u);
}

TEST_F(RouterTest, ACallerThatWentAwayWhileItsRequestWaitedIsNotComputed) {
  RouterOptions options;
  options.max_tokens_in_flight = 10;
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  Answer first;
  Answer waiting;
  std::deque<absl::Notification> done(2);
  const std::shared_ptr<CallContext> call = Call();
  Send(Encode(request, RandomRows(18, 1)), &first, &done[0]);
  a.AwaitHeld(1);
  Send(Encode(request, RandomRows(18, 9)), &waiting, &done[1], call);
  call->Cancel();
  a.Release();
  done[0].WaitForNotification();
  EXPECT_TRUE(first.status.ok()) << first.status;
  done[1].WaitForNotification();
  EXPECT_EQ(waiting.status.code(), absl::StatusCode::kCancelled);
  // What it had been admitted for is free, and no node has seen it.
  EXPECT_TRUE(Forward(1, RandomRows(18, 10)).status.ok());
  EXPECT_EQ(a.rows(), 11u);
}

TEST_F(RouterTest, OverloadIsRefusedAtTheDoor) {
  RouterOptions options;
  options.max_tokens_in_flight = 10;
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  Answer first;
  absl::Notification done;
  Send(Encode(request, RandomRows(17, 8)), &first, &done);
  const Answer second = Forward(1, RandomRows(17, 3));
  EXPECT_EQ(second.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(second.status.message()), HasSubstr("8 tokens of at most 10"));
  a.AwaitHeld(1);
  a.Release();
  done.WaitForNotification();
  EXPECT_TRUE(Forward(1, RandomRows(17, 3)).status.ok());
}

TEST_F(RouterTest, BadRequestsNameTheFieldAndTheServiceGoesOn) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const auto error = [this](const Frame& frame) {
    Answer answer;
    absl::Notification done;
    Send(frame, &answer, &done);
    done.WaitForNotification();
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(answer.status.message());
  };
  v1::ForwardRequest request;
  request.set_layer(2);
  EXPECT_THAT(error(Encode(request, RandomRows(1, 1))),
              AllOf(HasSubstr("layer is 2"), HasSubstr("1, 3")));
  request.set_layer(1);
  EXPECT_THAT(error(Encode(request, RandomRows(1, 1), 4)),
              AllOf(HasSubstr("[2, 4]"), HasSubstr("d_model of this model is 8")));
  EXPECT_THAT(error(EncodeTensorMessage(request, nullptr)), HasSubstr("hidden_states is missing"));
  EXPECT_THAT(error(Frame(std::string("\xff\xff\xff\xff"))), HasSubstr("malformed"));
  (*request.mutable_extensions())["acme.x"].set_raw("1");
  EXPECT_THAT(error(Encode(request, RandomRows(1, 1))),
              HasSubstr("extensions has an entry 'acme.x'"));
  request.clear_extensions();
  request.set_output_dtype(static_cast<v1::Dtype>(99));
  EXPECT_THAT(error(Encode(request, RandomRows(1, 1))), HasSubstr("output_dtype is 99"));
  const std::vector<float> rows = RandomRows(18, 2);
  ExpectRight(1, rows, Forward(1, rows));
}

TEST_F(RouterTest, ZeroTokensGiveZeroRows) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const Answer answer = Forward(1, {});
  EXPECT_TRUE(answer.status.ok());
  EXPECT_TRUE(answer.output.empty());
  EXPECT_EQ(answer.response.timing().nodes(), 0u);
  EXPECT_EQ(answer.response.timing().node_queue_us(), 0u);
  EXPECT_EQ(answer.response.timing().node_compute_us(), 0u);
}

TEST_F(RouterTest, NonFiniteTokensPassAndAreCounted) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  std::vector<float> rows = RandomRows(19, 3);
  rows[kModel] = std::numeric_limits<float>::quiet_NaN();
  const Answer answer = Forward(1, rows);
  ASSERT_TRUE(answer.status.ok());
  EXPECT_TRUE(std::isnan(answer.output[kModel]));
  for (size_t i = 0; i < kModel; ++i) {
    EXPECT_TRUE(std::isfinite(answer.output[i]));
    EXPECT_TRUE(std::isfinite(answer.output[2 * kModel + i]));
  }
  double counted = 0;
  for (const prometheus::MetricFamily& family : registry_.Collect()) {
    if (family.name == "expertmesh_router_nonfinite_tokens_total") {
      counted = family.metric.at(0).counter.value;
    }
  }
  EXPECT_EQ(counted, 1.0);
}

TEST_F(RouterTest, LoadCountsEveryAssignment) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const Answer answer = Forward(3, RandomRows(20, 30));
  std::vector<uint64_t> expected(6);
  for (const uint32_t expert : answer.response.routing().expert_ids()) {
    ++expected[expert];
  }
  const v1::GetLoadResponse load = router_->controller().GetLoad({});
  ASSERT_EQ(load.layers_size(), 2);
  EXPECT_EQ(load.layers(1).layer(), 3u);
  EXPECT_EQ(load.layers(1).tokens(), 30u);
  EXPECT_THAT(load.layers(1).assignments(), testing::ElementsAreArray(expected));
}

TEST_F(RouterTest, ADrainedNodeGetsNothingNewUnlessItIsTheOnlyOne) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  FakeNode& b = AddNode("b:1", {0, 1, 2, 3, 4});
  Connect();
  ASSERT_TRUE(router_->fleet().Drain("a:1", false).ok());
  const std::vector<float> rows = RandomRows(21, 40);
  ExpectRight(1, rows, Forward(1, rows));
  EXPECT_GT(b.assignments(), 0u);
  const uint64_t only_a_has = a.assignments();
  EXPECT_EQ(only_a_has + b.assignments(), 80u);
  EXPECT_EQ(only_a_has, router_->controller().GetLoad({}).layers(0).assignments(5));
  EXPECT_EQ(router_->fleet().Drain("zzz", false).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RouterTest, ANodeThatIsNoLongerListedIsLetGoAndMayReturn) {
  StartRouter();
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  AddNode("a:1", all);
  AddNode("b:1", all);
  Connect();
  router_->fleet().SetAddresses({"b:1"});
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(1));
  AwaitTopology([](const v1::Topology& topology) { return topology.nodes_size() == 1; });
  const std::vector<float> rows = RandomRows(22, 4);
  ExpectRight(1, rows, Forward(1, rows));
  router_->fleet().SetAddresses({"a:1", "b:1"});
  AwaitTopology([](const v1::Topology& topology) {
    return topology.nodes_size() == 2 && topology.nodes(0).link() == v1::NODE_LINK_UP;
  });
}

TEST_F(RouterTest, DrainAnswersWhatWasAcceptedAndRefusesTheRest) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, RandomRows(23, 2)), &answer, &done);
  a.AwaitHeld(1);
  std::thread drain([this] { EXPECT_TRUE(router_->Drain(absl::InfiniteDuration())); });
  clock_.AwaitWaiters(2);  // The timer of the request's deadline, and Drain.
  EXPECT_EQ(Forward(1, RandomRows(23, 1)).status.code(), absl::StatusCode::kUnavailable);
  a.Release();
  drain.join();
  done.WaitForNotification();
  EXPECT_TRUE(answer.status.ok());
}

TEST_F(RouterTest, DestructionAnswersWhatIsInFlight) {
  StartRouter();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Hold();
  v1::ForwardRequest request;
  request.set_layer(1);
  std::vector<Answer> answers(2);
  std::deque<absl::Notification> done(2);
  for (int i = 0; i < 2; ++i) {
    Send(Encode(request, RandomRows(24, 2)), &answers[i], &done[i]);
  }
  a.AwaitHeld(1);
  router_.reset();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(done[i].HasBeenNotified());
    EXPECT_EQ(answers[i].status.code(), absl::StatusCode::kUnavailable);
  }
}

TEST(RouterOptionsTest, ContradictionsAreRefused) {
  InProcessNetwork network;
  FakeClock clock;
  prometheus::Registry registry;
  RouterOptions options;
  options.batcher.max_queue_tokens = options.batcher.max_batch_tokens - 1;
  EXPECT_EQ(Router::Create(options, std::make_shared<FakeCheckpoint>(), MakeBackend(), &network,
                           &clock, &registry)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

// A node that is there is asked again when no other can serve, but not for ever.
TEST_F(RouterTest, ALostPartIsAskedForAsOftenAsIsAllowed) {
  RouterOptions options;
  options.max_attempts = 3;
  StartRouter(options);
  FakeNode& node = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  node.FailTimes(4, absl::DataLossError("often"));
  EXPECT_FALSE(Forward(1, RandomRows(1, 1)).status.ok());
  EXPECT_EQ(node.batches(), 3u);
}

}  // namespace
}  // namespace expertmesh::router
