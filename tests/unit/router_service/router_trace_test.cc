// What a router's spans say of requests.
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/support/span_recorder.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kCaller[] = "00f067aa0ba902b7";
constexpr char kForward[] = "expertmesh.v1.Router/Forward";
constexpr char kCompute[] = "expertmesh.internal.v1.Expert/Compute";

std::string Parent(const std::string& flags) {
  return absl::StrCat("00-", kTrace, "-", kCaller, "-", flags);
}

class RouterTraceTest : public RouterTest {
 protected:
  void Start() { Start({.ratio = 0}); }
  void Start(const tracing::KeepOptions& keep, RouterOptions options = {}) {
    tracing::TracerOptions traced;
    traced.keep = keep;
    traced.calendar = [this] { return clock_.Now() + absl::Hours(1000); };
    tracer_ = std::make_unique<tracing::Tracer>(traced, &recorder_, &clock_);
    options.tracer = tracer_.get();
    options.batcher.max_linger_share = 0;  // A wait for company would last for ever on this clock.
    StartRouter(options);
  }

  void TearDown() override {
    RouterTest::TearDown();
    tracer_.reset();
  }

  Answer ForwardTraced(const std::string& traceparent, const std::string& tracestate = "",
                       uint32_t layer = 1) {
    v1::ForwardRequest request;
    request.set_layer(layer);
    request.set_traceparent(traceparent);
    request.set_tracestate(tracestate);
    return ForwardRequest(request, RandomRows(1, 16));
  }

  // Answers come before their batch is noted; with the router gone it is.
  void Finish() {
    for (auto& [address, node] : nodes_) {
      node->Release();
    }
    router_.reset();
    tracer_->Flush();
  }

  // Finish() first.
  std::vector<RecordedSpan> Servers() const { return recorder_.Named(kForward); }
  std::vector<RecordedSpan> Calls(int kind) const {
    std::vector<RecordedSpan> calls;
    for (const RecordedSpan& span : recorder_.Named(kCompute)) {
      if (span.span.kind() == kind) {
        calls.push_back(span);
      }
    }
    return calls;
  }
  std::vector<RecordedSpan> ClientCalls() const {
    return Calls(internal::otlp::Span::SPAN_KIND_CLIENT);
  }
  std::vector<RecordedSpan> NodeCalls() const {
    return Calls(internal::otlp::Span::SPAN_KIND_SERVER);
  }

  SpanRecorder recorder_;
  std::unique_ptr<tracing::Tracer> tracer_;
};

TEST_F(RouterTraceTest, OneRequestIsOneTrace) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  ASSERT_TRUE(ForwardTraced(Parent("01"), "vendor=1").status.ok());
  Finish();

  ASSERT_THAT(recorder_.spans(), SizeIs(10));
  EXPECT_EQ(tracer_->counts().spans, 10u);
  for (const RecordedSpan& span : recorder_.spans()) {
    EXPECT_EQ(span.trace_id(), kTrace);
    EXPECT_LE(span.span.start_time_unix_nano(), span.span.end_time_unix_nano());
    EXPECT_GE(absl::FromUnixNanos(static_cast<int64_t>(span.span.start_time_unix_nano())),
              absl::UnixEpoch() + absl::Hours(1000));
  }
  ASSERT_THAT(Servers(), SizeIs(1));
  const RecordedSpan request = Servers()[0];
  EXPECT_EQ(request.parent_id(), kCaller);
  EXPECT_EQ(request.span.kind(), internal::otlp::Span::SPAN_KIND_SERVER);
  EXPECT_EQ(request.span.trace_state(), "vendor=1");
  EXPECT_EQ(request.span.flags() & 0x301u, 0x301u);  // Sampled; the parent is remote.
  EXPECT_EQ(request.service, "expertmesh-router");
  EXPECT_EQ(request.Attribute("rpc.system.name"), "grpc");
  EXPECT_EQ(request.Attribute("rpc.method"), kForward);
  EXPECT_EQ(request.Attribute("rpc.status_code"), "OK");
  EXPECT_EQ(request.Attribute("expertmesh.layer"), "1");
  EXPECT_EQ(request.Attribute("expertmesh.tokens"), "16");
  EXPECT_EQ(request.Attribute("expertmesh.keep"), "");  // Its caller's choice.
  EXPECT_FALSE(request.span.has_status());

  const std::vector<RecordedSpan> dispatches = recorder_.Named("expertmesh.dispatch");
  ASSERT_THAT(dispatches, SizeIs(1));
  EXPECT_EQ(dispatches[0].parent_id(), request.span_id());
  EXPECT_EQ(dispatches[0].Attribute("expertmesh.batch.id"), kTrace);
  EXPECT_EQ(dispatches[0].Attribute("expertmesh.batch.requests"), "1");
  EXPECT_EQ(dispatches[0].span.links_size(), 0);

  ASSERT_THAT(ClientCalls(), SizeIs(2));
  std::vector<std::string> addresses;
  for (const RecordedSpan& call : ClientCalls()) {
    EXPECT_EQ(call.parent_id(), dispatches[0].span_id());
    EXPECT_EQ(call.Attribute("server.port"), "1");
    EXPECT_EQ(call.Attribute("expertmesh.contributes"), "true");
    addresses.push_back(call.Attribute("server.address"));
    if (addresses.back() == "a") {  // The node was told this span as its parent.
      EXPECT_EQ(a.traceparent(), absl::StrCat("00-", kTrace, "-", call.span_id(), "-01"));
      EXPECT_EQ(a.tracestate(), "vendor=1");
    }
  }
  EXPECT_THAT(addresses, testing::UnorderedElementsAre("a", "b"));
  EXPECT_THAT(recorder_.Named("expertmesh.batch"), IsEmpty());
}

TEST_F(RouterTraceTest, ANodesSpansAreMadeOfWhatItSays) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.EditAnswers([this](internal::v1::ComputeResponse* response, TensorFrame*) {
    clock_.Advance(absl::Milliseconds(10));
    response->set_receive_us(1000);
    response->set_queue_us(2000);
    response->set_compute_us(3000);
    response->set_merge_id(7);
    response->set_merged_batches(2);
  });
  ASSERT_TRUE(ForwardTraced(Parent("01")).status.ok());
  Finish();

  ASSERT_THAT(NodeCalls(), SizeIs(1));
  const RecordedSpan call = ClientCalls()[0];
  const RecordedSpan node = NodeCalls()[0];
  EXPECT_EQ(node.parent_id(), call.span_id());
  EXPECT_EQ(node.service, "expertmesh-expert");
  EXPECT_EQ(node.span.flags() & 0x200u, 0x200u);
  const auto length = [](const RecordedSpan& span) {
    return span.span.end_time_unix_nano() - span.span.start_time_unix_nano();
  };
  EXPECT_EQ(length(call), 10'000'000u);
  EXPECT_EQ(length(node), 6'000'000u);
  // The ways there and back are taken to be the same.
  EXPECT_EQ(node.span.start_time_unix_nano() - call.span.start_time_unix_nano(), 2'000'000u);
  const RecordedSpan queue = recorder_.Named("expertmesh.node.queue").at(0);
  const RecordedSpan compute = recorder_.Named("expertmesh.node.compute").at(0);
  EXPECT_EQ(queue.parent_id(), node.span_id());
  EXPECT_EQ(compute.parent_id(), node.span_id());
  EXPECT_EQ(length(queue), 2'000'000u);
  EXPECT_EQ(length(compute), 3'000'000u);
  EXPECT_EQ(queue.span.end_time_unix_nano(), compute.span.start_time_unix_nano());
  EXPECT_EQ(compute.Attribute("expertmesh.node.merge_id"), "-7");
  EXPECT_EQ(compute.Attribute("expertmesh.node.merged_batches"), "2");
}

TEST_F(RouterTraceTest, ANodeThatSaysMoreTimeThanThereWasStaysInsideItsCall) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.Report({{1'000'000, 1'000'000}});
  ASSERT_TRUE(ForwardTraced(Parent("01")).status.ok());
  Finish();
  EXPECT_LE(NodeCalls().at(0).span.end_time_unix_nano(),
            ClientCalls().at(0).span.end_time_unix_nano());
}

TEST_F(RouterTraceTest, WhatIsNotSampledLeavesNoSpan) {
  Start();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_TRUE(ForwardTraced(Parent("00")).status.ok());
  EXPECT_TRUE(ForwardTraced("").status.ok());
  EXPECT_TRUE(ForwardTraced("nonsense").status.ok());
  Finish();
  EXPECT_THAT(recorder_.spans(), IsEmpty());
}

TEST_F(RouterTraceTest, NewTracesAreSampledByTheRatioAndSayIt) {
  Start({.ratio = 1});
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_TRUE(ForwardTraced("").status.ok());
  Finish();
  ASSERT_THAT(Servers(), SizeIs(1));
  EXPECT_EQ(Servers()[0].parent_id(), "");
  EXPECT_EQ(Servers()[0].span.trace_state(), "ot=th:0");
  EXPECT_EQ(a.tracestate(), "ot=th:0");
}

TEST_F(RouterTraceTest, ACallersChoiceHoldsUnlessParentsDoNotCount) {
  Start({.ratio = 1});
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_TRUE(ForwardTraced(Parent("00")).status.ok());
  Finish();
  EXPECT_THAT(recorder_.spans(), IsEmpty());

  addresses_.clear();
  Start({.ratio = 1, .parent_based = false});
  AddNode("b:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_TRUE(ForwardTraced(Parent("00")).status.ok());
  Finish();
  EXPECT_THAT(Servers(), SizeIs(1));
}

TEST_F(RouterTraceTest, SlowRequestsAreKept) {
  Start({.ratio = 0, .slow = absl::Milliseconds(100)});
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.EditAnswers([this](internal::v1::ComputeResponse*, TensorFrame*) {
    clock_.Advance(absl::Milliseconds(101));
  });
  EXPECT_TRUE(ForwardTraced(Parent("00")).status.ok());
  Finish();
  ASSERT_THAT(Servers(), SizeIs(1));
  EXPECT_EQ(Servers()[0].trace_id(), kTrace);
  EXPECT_EQ(Servers()[0].Attribute("expertmesh.keep"), "slow");
}

TEST_F(RouterTraceTest, RequestsThatFailAreKept) {
  Start();
  AddNode("a:1", {0, 1, 2});
  FakeNode& b = AddNode("b:1", {3, 4, 5});
  Connect();
  b.FailWith(absl::InternalError("it broke"));
  EXPECT_FALSE(ForwardTraced(Parent("00")).status.ok());
  Finish();
  ASSERT_THAT(Servers(), SizeIs(1));
  EXPECT_EQ(Servers()[0].Attribute("expertmesh.keep"), "failed");
  EXPECT_EQ(Servers()[0].Attribute("error.type"), "UNAVAILABLE");
  EXPECT_EQ(Servers()[0].span.status().code(), internal::otlp::Status::STATUS_CODE_ERROR);
  std::vector<std::string> attempts;
  std::set<std::string> failed;
  for (const RecordedSpan& call : ClientCalls()) {
    if (call.Attribute("server.address") == "b") {
      failed.insert(call.span.span_id());
      attempts.push_back(call.Attribute("expertmesh.attempt"));
      EXPECT_EQ(call.Attribute("rpc.status_code"), "INTERNAL");
      EXPECT_THAT(call.span.status().message(), testing::HasSubstr("it broke"));
    }
  }
  EXPECT_THAT(attempts, ElementsAre("1", "2", "3"));
  for (const RecordedSpan& node : NodeCalls()) {  // One that failed says nothing of its times.
    EXPECT_FALSE(failed.contains(node.span.parent_span_id()));
  }
}

TEST_F(RouterTraceTest, RequestsThatNeverGetIntoABatchAreKept) {
  Start();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_EQ(ForwardTraced(Parent("00"), "", 99).status.code(), absl::StatusCode::kInvalidArgument);
  Finish();
  ASSERT_THAT(recorder_.spans(), SizeIs(1));
  EXPECT_EQ(Servers()[0].Attribute("rpc.status_code"), "INVALID_ARGUMENT");
  EXPECT_FALSE(Servers()[0].span.has_status());  // It is the caller's mistake.
}

TEST_F(RouterTraceTest, ARetriedRequestIsKeptWithItsAttempts) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  FakeNode& b = AddNode("b:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.FailOnce(absl::InternalError("once"));
  b.FailOnce(absl::InternalError("once"));
  EXPECT_TRUE(ForwardTraced(Parent("00")).status.ok());
  Finish();
  ASSERT_THAT(Servers(), SizeIs(1));
  EXPECT_EQ(Servers()[0].Attribute("expertmesh.keep"), "retried");
  std::vector<std::string> attempts;
  std::vector<std::string> contributes;
  for (const RecordedSpan& call : ClientCalls()) {
    attempts.push_back(call.Attribute("expertmesh.attempt"));
    contributes.push_back(call.Attribute("expertmesh.contributes"));
  }
  EXPECT_THAT(attempts, Contains("2"));
  EXPECT_THAT(contributes, Contains("false"));
  const RecordedSpan dispatch = recorder_.Named("expertmesh.dispatch").at(0);
  ASSERT_GE(dispatch.span.events_size(), 1);
  EXPECT_EQ(dispatch.span.events(0).name(), "expertmesh.retry");
}

TEST_F(RouterTraceTest, TheMessagesContextComesBeforeThatOfItsCall) {
  Start();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const auto call = std::make_shared<CallContext>(CallContext::Caller{
      .traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", .streamed = true});
  for (const std::string& own : {std::string(), std::string("nonsense"), Parent("01")}) {
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_request_id(12);
    request.set_traceparent(own);
    Answer answer;
    absl::Notification done;
    Send(Encode(request, RandomRows(1, 4)), &answer, &done, call);
    done.WaitForNotification();
  }
  Finish();
  std::vector<std::string> traces;
  for (const RecordedSpan& span : recorder_.Named("expertmesh.v1.Router/ForwardStream")) {
    traces.push_back(span.trace_id());
    EXPECT_EQ(span.Attribute("expertmesh.request_id"), "12");
  }
  EXPECT_THAT(traces, ElementsAre("0af7651916cd43dd8448eb211c80319c",
                                  "0af7651916cd43dd8448eb211c80319c", kTrace));
}

TEST_F(RouterTraceTest, ATracestateThatIsNotValidGoesNoFurther) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  EXPECT_TRUE(ForwardTraced(Parent("01"), "no member").status.ok());
  Finish();
  EXPECT_EQ(Servers().at(0).span.trace_state(), "");
  EXPECT_EQ(a.tracestate(), "");
}

class RouterBatchTraceTest : public RouterTraceTest {
 protected:
  // One request is held at the node; `flags` of those that come meanwhile and make one batch.
  void ForwardTogether(const std::vector<std::string>& flags) {
    if (nodes_.empty()) {
      AddNode("a:1", {0, 1, 2, 3, 4, 5});
    }
    FakeNode& a = *nodes_.at("a:1");
    Connect();
    a.Hold();
    std::vector<Answer> answers(flags.size() + 1);
    std::vector<absl::Notification> done(flags.size() + 1);
    for (size_t i = 0; i < answers.size(); ++i) {
      v1::ForwardRequest request;
      request.set_layer(1);
      if (i > 0) {
        request.set_traceparent(absl::StrCat("00-", absl::Hex(i, absl::kZeroPad16),
                                             absl::Hex(i, absl::kZeroPad16), "-", kCaller, "-",
                                             flags[i - 1]));
      }
      Send(Encode(request, RandomRows(static_cast<uint32_t>(i), i == 0 ? 8 : 1)), &answers[i],
           &done[i]);
      if (i == 0) {
        a.AwaitHeld(1);
      }
    }
    a.Release();
    for (size_t i = 0; i < answers.size(); ++i) {
      done[i].WaitForNotification();
      EXPECT_TRUE(answers[i].status.ok() || allow_errors_) << answers[i].status;
    }
    Finish();
  }

  bool allow_errors_ = false;

  static RouterOptions OneBatchInFlight() {
    RouterOptions options;
    options.batcher.max_in_flight_tokens = 1;
    return options;
  }
};

TEST_F(RouterBatchTraceTest, ABatchOfManyIsLinkedBothWaysUpToTheLimitOfLinks) {
  Start({.ratio = 0}, OneBatchInFlight());
  ForwardTogether(std::vector<std::string>(200, "01"));
  ASSERT_THAT(Servers(), SizeIs(200));
  EXPECT_EQ(tracer_->counts().spans, recorder_.spans().size());
  const std::vector<RecordedSpan> batches = recorder_.Named("expertmesh.batch");
  ASSERT_THAT(batches, SizeIs(1));
  const RecordedSpan& batch = batches[0];
  EXPECT_EQ(batch.parent_id(), "");
  EXPECT_EQ(batch.span.links_size(), 128);
  EXPECT_EQ(batch.span.dropped_links_count(), 72u);
  EXPECT_EQ(batch.Attribute("expertmesh.batch.requests"), "200");
  EXPECT_EQ(batch.Attribute("expertmesh.batch.tokens"), "200");
  EXPECT_EQ(batch.Attribute("expertmesh.batch.id"), batch.trace_id());

  std::map<std::string, RecordedSpan> by_span;
  for (const RecordedSpan& dispatch : recorder_.Named("expertmesh.dispatch")) {
    by_span.emplace(dispatch.span_id(), dispatch);
    EXPECT_EQ(dispatch.Attribute("expertmesh.batch.id"), batch.trace_id());
    ASSERT_EQ(dispatch.span.links_size(), 1);
    EXPECT_EQ(dispatch.span.links(0).span_id(), batch.span.span_id());
    EXPECT_EQ(dispatch.span.links(0).trace_id(), batch.span.trace_id());
  }
  EXPECT_THAT(by_span, SizeIs(200));
  for (const internal::otlp::Span::Link& link : batch.span.links()) {
    const auto linked = by_span.find(absl::BytesToHexString(link.span_id()));
    ASSERT_NE(linked, by_span.end());
    EXPECT_EQ(linked->second.span.trace_id(), link.trace_id());
    EXPECT_EQ(link.attributes(0).key(), "expertmesh.tokens");
  }
  // The calls are in the trace of one of them.
  ASSERT_THAT(ClientCalls(), SizeIs(1));
  EXPECT_EQ(ClientCalls()[0].trace_id(), batch.Attribute("expertmesh.batch.calls_trace_id"));
  EXPECT_THAT(by_span, Contains(testing::Key(ClientCalls()[0].parent_id())));
}

TEST_F(RouterBatchTraceTest, OnlySampledRequestsOfABatchLeaveSpans) {
  Start({.ratio = 0}, OneBatchInFlight());
  ForwardTogether({"00", "00", "01", "00"});
  ASSERT_THAT(Servers(), SizeIs(1));
  const RecordedSpan batch = recorder_.Named("expertmesh.batch").at(0);
  EXPECT_EQ(batch.span.links_size(), 1);
  EXPECT_EQ(batch.Attribute("expertmesh.batch.requests"), "4");
  // Nodes were told the trace that is kept.
  EXPECT_EQ(nodes_.at("a:1")->traceparent().substr(3, 32), Servers()[0].trace_id());
}

TEST_F(RouterBatchTraceTest, ASlowBatchIsKeptWithAllItsRequests) {
  Start({.ratio = 0, .slow = absl::Milliseconds(5)}, OneBatchInFlight());
  AddNode("a:1", {0, 1, 2, 3, 4, 5})
      .EditAnswers([this](internal::v1::ComputeResponse*, TensorFrame*) {
        clock_.Advance(absl::Milliseconds(10));
      });
  ForwardTogether({"00", "01", "00"});
  ASSERT_THAT(Servers(), SizeIs(4));  // The first, which was alone, is slow as well.
  for (const RecordedSpan& request : Servers()) {
    EXPECT_EQ(request.Attribute("expertmesh.keep"), "slow");
  }
  const std::vector<RecordedSpan> batches = recorder_.Named("expertmesh.batch");
  ASSERT_THAT(batches, SizeIs(1));
  EXPECT_EQ(batches[0].span.links_size(), 3);
  EXPECT_EQ(batches[0].Attribute("expertmesh.keep"), "slow");
}

TEST_F(RouterBatchTraceTest, WhereOneRequestFailsAllOfItsBatchAreKept) {
  Start({.ratio = 0}, OneBatchInFlight());
  AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  allow_errors_ = true;
  nodes_.at("b:1")->FailWith(absl::ResourceExhaustedError("full"));
  ForwardTogether(std::vector<std::string>(40, "00"));
  const std::vector<RecordedSpan> batches = recorder_.Named("expertmesh.batch");
  ASSERT_THAT(batches, SizeIs(1));
  EXPECT_EQ(batches[0].span.links_size(), 40);
  std::set<std::string> keeps;
  for (const RecordedSpan& request : Servers()) {
    const bool ok = request.Attribute("rpc.status_code") == "OK";
    keeps.insert(absl::StrCat(ok, request.Attribute("expertmesh.keep")));
  }
  EXPECT_THAT(keeps, testing::UnorderedElementsAre("0failed", "1batch"));
}

TEST_F(RouterBatchTraceTest, LateChoicesAreLimitedPerSecond) {
  Start({.ratio = 0, .slow = absl::ZeroDuration(), .most_per_second = 3});
  AddNode("a:1", {0, 1, 2, 3, 4, 5})
      .EditAnswers([this](internal::v1::ComputeResponse*, TensorFrame*) {
        clock_.Advance(absl::Milliseconds(1));
      });
  Connect();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(ForwardTraced(Parent(i == 9 ? "01" : "00")).status.ok());
  }
  Finish();
  ASSERT_THAT(Servers(), SizeIs(4));  // Three of them, and what was sampled.
  EXPECT_EQ(Servers()[3].Attribute("expertmesh.keep"), "");
  EXPECT_EQ(tracer_->counts().kept_late, 3u);
  EXPECT_EQ(tracer_->counts().dropped_limit, 7u);
  EXPECT_EQ(tracer_->counts().kept_sampled, 1u);
}

}  // namespace
}  // namespace expertmesh::router
