#include "expert_service/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/support/compare_rows.h"
#include "tests/support/in_process_transport.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

class NodeTest : public testing::Test {
 protected:
  NodeTest() {
    options_.node_id = "node-a";
    options_.cpu_time = NoCpuTime;
    options_.max_batch_rows = 64;
    options_.max_queue_rows = 256;
    options_.reply_frame_bytes = 300;
    options_.expert_metrics.mode = telemetry::ExpertMetrics::kFull;
    Start();
  }

  void Start() {
    registry_ = std::make_shared<prometheus::Registry>();
    absl::StatusOr<std::unique_ptr<Node>> node =
        Node::Create(options_, checkpoint_, &backend_, &clock_, registry_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
  }

  void LoadAll() {
    const absl::Status status = node_->Load({{{1, kAll, {}}, {2, kAll, {}}, {4, kAll, {}}}});
    ASSERT_TRUE(status.ok()) << status;
  }

  TestBatch Random(uint64_t id, size_t rows, uint32_t layer = 1) {
    return RandomBatch(&random_, id, layer, rows, kAll);
  }

  static void Send(StreamHandler* stream, const TestBatch& batch, size_t rows_per_frame = 16) {
    for (Frame& frame : MakeFrames(batch, rows_per_frame)) {
      stream->OnFrame(std::move(frame));
    }
  }

  static void ExpectRight(FakeSink* sink, const TestBatch& batch) {
    const FakeSink::Answer answer = sink->Await(batch.batch_id, batch.rows());
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_FALSE(answer.malformed);
    EXPECT_TRUE(SameRows(answer.partials, Expected(batch), kDModel)) << "batch " << batch.batch_id;
  }

  std::string Metric(const std::string& series) {
    const std::string name = "expertmesh_expert_" + series;
    const std::string computed = MetricValue(*node_->computed(), name);
    return computed == "absent" ? MetricValue(*registry_, name) : computed;
  }

  static v1::HostedExperts Hosted(uint32_t layer, const std::vector<uint32_t>& experts) {
    v1::HostedExperts hosted;
    hosted.set_layer(layer);
    hosted.mutable_experts()->Add(experts.begin(), experts.end());
    return hosted;
  }

  NodeOptions options_;
  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  FakeClock clock_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Node> node_;
  std::mt19937 random_{5};
};

TEST_F(NodeTest, OptionsThatCannotWorkAreRefused) {
  const auto refused = [this](const NodeOptions& options) {
    return Node::Create(options, checkpoint_, &backend_, &clock_, registry_).status();
  };
  NodeOptions options = options_;
  options.node_id = "";
  EXPECT_THAT(std::string(refused(options).message()), HasSubstr("node_id"));
  options = options_;
  options.max_batch_rows = 0;
  EXPECT_THAT(std::string(refused(options).message()), HasSubstr("max_batch_rows"));
  options = options_;
  options.max_queue_rows = options.max_batch_rows - 1;
  EXPECT_THAT(std::string(refused(options).message()), HasSubstr("max_queue_rows"));
  options = options_;
  options.load_threads = 0;
  EXPECT_THAT(std::string(refused(options).message()), HasSubstr("load_threads"));
}

TEST_F(NodeTest, DescribesWhatItIsAndHolds) {
  v1::NodeDescription description = node_->Describe();
  EXPECT_EQ(description.state(), v1::NODE_STATE_LOADING);
  EXPECT_EQ(description.hosted_size(), 0);
  ASSERT_TRUE(node_->Load({{{1, {3, 4}, {1, 2}}, {4, {0}, {}}}}).ok());
  description = node_->Describe();
  EXPECT_EQ(description.node_id(), "node-a");
  EXPECT_EQ(description.family(), "fake");
  EXPECT_EQ(description.fingerprint(), std::string(64, 'f'));
  EXPECT_EQ(description.d_model(), kDModel);
  EXPECT_EQ(description.backend(), "fake");
  EXPECT_EQ(description.compute_dtype(), v1::DTYPE_F32);
  EXPECT_EQ(description.state(), v1::NODE_STATE_READY);
  ASSERT_EQ(description.hosted_size(), 2);
  EXPECT_THAT(description.hosted(0).experts(), ElementsAre(3, 4));
  EXPECT_EQ(description.hosted(0).slice_index(), 1u);
  EXPECT_EQ(description.hosted(1).layer(), 4u);
  EXPECT_EQ(description.memory().weights_bytes(), 2 * 3 * kDModel * kIntermediate * 4u);
  EXPECT_GT(description.memory().resident_bytes(), 0u);
  EXPECT_EQ(description.max_batch_rows(), 64u);
  EXPECT_EQ(description.max_frame_bytes(), options_.max_frame_bytes);
}

TEST_F(NodeTest, LayersServeWhileOthersLoad) {
  absl::Notification second_layer;
  absl::Notification go_on;
  backend_.OnPack([&] {
    if (backend_.packed() == 1) {
      second_layer.Notify();
      go_on.WaitForNotification();
    }
  });
  std::thread loading([this] { EXPECT_TRUE(node_->Load({{{1, {2}, {}}, {2, {2}, {}}}}).ok()); });
  second_layer.WaitForNotification();
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_LOADING);
  EXPECT_EQ(node_->Describe().hosted_size(), 1);
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  const TestBatch ready = RandomBatch(&random_, 1, 1, 3, {2});
  Send(stream.get(), ready);
  ExpectRight(sink.get(), ready);
  Send(stream.get(), RandomBatch(&random_, 2, 2, 3, {2}));
  EXPECT_EQ(sink->Await(2, 3).status.code(), absl::StatusCode::kFailedPrecondition);
  go_on.Notify();
  loading.join();
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_READY);
}

TEST_F(NodeTest, AFailedLoadIsAStateWithAReason) {
  checkpoint_->BreakLayer(2);
  EXPECT_EQ(node_->Load({{{1, {0}, {}}, {2, {0}, {}}}}).code(), absl::StatusCode::kDataLoss);
  const v1::NodeDescription description = node_->Describe();
  EXPECT_EQ(description.state(), v1::NODE_STATE_FAILED);
  EXPECT_THAT(description.message(), HasSubstr("layer 2 expert 0"));
  EXPECT_EQ(Metric("state{state=\"failed\"}"), "1");
  EXPECT_EQ(Metric("state{state=\"loading\"}"), "0");
}

TEST_F(NodeTest, SubscribersHearOfEveryChangeAndVersionsGrow) {
  std::atomic<int> heard{0};
  std::unique_ptr<StatusSubscription> subscription = node_->Subscribe([&heard] { ++heard; });
  const uint64_t before = node_->Status().version();
  LoadAll();
  EXPECT_EQ(heard, 4) << "three layers, then READY";
  const internal::v1::WatchStatusResponse loaded = node_->Status();
  EXPECT_EQ(loaded.version(), before + 4);
  EXPECT_EQ(loaded.description().hosted_size(), 3);
  internal::v1::UnloadExpertsRequest unload;
  *unload.add_experts() = Hosted(1, {0, 1});
  EXPECT_EQ(node_->UnloadExperts(unload)->unloaded(), 2u);
  EXPECT_EQ(heard, 6) << "no longer offered, then out of memory";
  EXPECT_GT(node_->Status().version(), loaded.version());
  subscription.reset();
  *unload.add_experts() = Hosted(2, {0});
  EXPECT_EQ(node_->UnloadExperts(unload)->unloaded(), 1u);
  EXPECT_EQ(heard, 6);
}

TEST_F(NodeTest, TimesOfABatchBeginWithItsLastFrame) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  backend_.Hold();
  Send(stream.get(), Random(1, 3));
  backend_.AwaitHeld();
  const TestBatch second = Random(2, 20);
  stream->OnFrame(MakeFrame(second, 0, 16));
  clock_.Advance(absl::Microseconds(100));
  stream->OnFrame(MakeFrame(second, 16, 4));
  clock_.Advance(absl::Microseconds(200));
  backend_.Release();
  const FakeSink::Answer held = sink->Await(1, 3);
  EXPECT_EQ(held.queue_us, 0u);
  EXPECT_EQ(held.compute_us, 300u);
  const FakeSink::Answer waited = sink->Await(2, 20);
  EXPECT_EQ(waited.queue_us, 200u);
  EXPECT_EQ(waited.compute_us, 0u);
}

TEST_F(NodeTest, LoadsAndUnloadsWhileServing) {
  ASSERT_TRUE(node_->Load({{{1, {0}, {}}}}).ok());
  internal::v1::LoadExpertsRequest load;
  *load.add_experts() = Hosted(1, {0, 9, 5, 5});
  absl::StatusOr<internal::v1::LoadExpertsResponse> loaded = node_->LoadExperts(load);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->loaded(), 2u);
  EXPECT_EQ(loaded->memory().weights_bytes(), 3 * 3 * kDModel * kIntermediate * 4u);
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_READY);
  EXPECT_THAT(node_->Describe().hosted(0).experts(), ElementsAre(0, 5, 9));
  EXPECT_EQ(loaded->memory().checkpoint_bytes(), 3 * 3 * kDModel * kIntermediate * 4u);
  EXPECT_EQ(Metric("weights_loaded_bytes"), "1728");
  EXPECT_EQ(Metric("weights_checkpoint_bytes"), "1728");
  EXPECT_EQ(Metric("tokens_total{expert=\"9\",layer=\"1\"}"), "0");

  // In use: unloading waits, and the batch is answered.
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  backend_.Hold();
  const TestBatch in_flight = RandomBatch(&random_, 1, 1, 4, {0, 5, 9});
  Send(stream.get(), in_flight);
  backend_.AwaitHeld();
  internal::v1::UnloadExpertsRequest unload;
  *unload.add_experts() = Hosted(1, {5, 9, 3});
  std::thread unloading([&] {
    const absl::StatusOr<internal::v1::UnloadExpertsResponse> done = node_->UnloadExperts(unload);
    EXPECT_EQ(done->unloaded(), 2u);
    EXPECT_EQ(done->memory().weights_bytes(), 3 * kDModel * kIntermediate * 4u);
    EXPECT_EQ(backend_.alive(), 1);
  });
  while (node_->Describe().hosted(0).experts_size() != 1) {
    std::this_thread::yield();
  }
  EXPECT_EQ(backend_.alive(), 3);
  Send(stream.get(), RandomBatch(&random_, 2, 1, 1, {5}));
  const FakeSink::Answer refused = sink->Await(2, 1);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("experts 5"));
  backend_.Release();
  unloading.join();
  ExpectRight(sink.get(), in_flight);
  load.mutable_experts(0)->set_layer(3);
  EXPECT_EQ(node_->LoadExperts(load).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(NodeTest, TheMemoryLimitHoldsForFlagsAndRequests) {
  options_.memory_limit_bytes = 2 * 3 * kDModel * kIntermediate * sizeof(float);
  Start();
  const LayerExperts three{1, {0, 1, 2}, {}};
  EXPECT_EQ(node_->CheckLoad({three}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend_.packed(), 0);
  ASSERT_TRUE(node_->Load({{{1, {0}, {}}}}).ok());
  internal::v1::LoadExpertsRequest load;
  *load.add_experts() = Hosted(1, {1, 2});
  EXPECT_EQ(node_->LoadExperts(load).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend_.packed(), 1);
  EXPECT_EQ(node_->Describe().memory().limit_bytes(), options_.memory_limit_bytes);
}

TEST_F(NodeTest, AnErrorTouchesNoOtherBatch) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  const TestBatch a = Random(1, 20);
  const TestBatch c = Random(3, 40, 4);
  const std::vector<Frame> frames = MakeFrames(a, 8);
  stream->OnFrame(frames[0]);
  stream->OnFrame(Frame(std::string("\x08\x02\xff\xff\xff")));  // Batch 2, cut short.
  stream->OnFrame(frames[1]);
  Send(stream.get(), c);
  TestBatch late = Random(4, 1);
  late.has_timeout = true;
  late.timeout_us = -1;
  Send(stream.get(), late);
  stream->OnFrame(frames[2]);
  ExpectRight(sink.get(), a);
  ExpectRight(sink.get(), c);
  EXPECT_EQ(sink->Get(2).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sink->Get(4).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Metric("rejected_total{reason=\"invalid_argument\"}"), "1");
  EXPECT_EQ(Metric("rejected_total{reason=\"deadline_exceeded\"}"), "1");
}

TEST_F(NodeTest, SlicesOfTheIntermediateDimensionAreUsedAsHeld) {
  ASSERT_TRUE(node_->Load({{{1, kAll, {1, 4}}}}).ok());
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  const TestBatch batch = Random(1, 5);
  Send(stream.get(), batch);
  EXPECT_TRUE(SameRows(sink->Await(1, 5).partials, Expected(batch, {1, 4}), kDModel));
}

TEST_F(NodeTest, NonFiniteValuesPassThroughAndAreCounted) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  TestBatch batch = Random(1, 6);
  batch.hidden_states[2][1] = std::nanf("");
  batch.hidden_states[4][0] = std::numeric_limits<float>::infinity();
  batch.hidden_states[4][5] = -std::numeric_limits<float>::infinity();
  Send(stream.get(), batch);
  std::vector<float> partials = sink->Await(1, 6).partials;
  std::vector<float> expected = Expected(batch);
  ASSERT_EQ(partials.size(), expected.size());
  const size_t nan = 2 * kDModel + 1;
  EXPECT_TRUE(std::isnan(partials[nan]));
  partials[nan] = expected[nan] = 0.0f;
  EXPECT_TRUE(SameRows(partials, expected, kDModel));
  EXPECT_EQ(Metric("nonfinite_tokens_total"), "2");
}

TEST_F(NodeTest, ComputesInBF16WhenTheBackendDoes) {
  FakeBackend backend(Dtype::kBF16);
  absl::StatusOr<std::unique_ptr<Node>> node = Node::Create(
      options_, checkpoint_, &backend, &clock_, std::make_shared<prometheus::Registry>());
  ASSERT_TRUE((*node)->Load({{{1, kAll, {}}}}).ok());
  EXPECT_EQ((*node)->Describe().compute_dtype(), v1::DTYPE_BF16);
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = (*node)->OpenCompute(sink);
  uint64_t id = 0;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    TestBatch batch = Random(++id, 9);
    batch.dtype = dtype;
    Send(stream.get(), batch, 2);
    ExpectRight(sink.get(), batch);
  }
}

TEST_F(NodeTest, PartialsComeInTheTypeThatWasAskedFor) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  uint64_t id = 0;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kI8Block128}) {
    TestBatch batch = Random(++id, 9);
    batch.partials_dtype = dtype;
    Send(stream.get(), batch, 4);
    const FakeSink::Answer answer = sink->Await(id, 9);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.dtype, dtype);
    const std::vector<float> expected = Expected(batch);
    const auto bound = [&](size_t i) {
      const auto row = expected.begin() + static_cast<ptrdiff_t>(i / kDModel * kDModel);
      const float largest = *std::max_element(row, row + kDModel);  // None is negative.
      // Half a unit in the last place of 8 and 11 bits, half of a scale.
      return dtype == Dtype::kBF16         ? expected[i] * 0x1p-8f
             : dtype == Dtype::kF16        ? expected[i] * 0x1p-11f
             : dtype == Dtype::kI8Block128 ? largest / 127.0f * 0.50002f
                                           : 0.0f;
    };
    EXPECT_TRUE(RowsNear(answer.partials, expected, kDModel, bound)) << NameOf(dtype);
  }
  // One row of each batch whose partials could change.
  EXPECT_EQ(Metric("wire_relative_error_count{direction=\"partials\",layer=\"1\"}"), "3");
  EXPECT_EQ(Metric("wire_relative_error_bucket{direction=\"partials\",layer=\"1\",le=\"0.01\"}"),
            "3");
}

TEST_F(NodeTest, ARowOfPartialsHasTheSameBitsInAnyCompany) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  TestBatch together = Random(1, 9);
  together.partials_dtype = Dtype::kI8Block128;
  Send(stream.get(), together, 4);
  const std::vector<float> all = sink->Await(1, 9).partials;
  for (size_t row = 0; row < 9; ++row) {
    TestBatch alone;
    alone.batch_id = 10 + row;
    alone.partials_dtype = Dtype::kI8Block128;
    alone.experts = {together.experts[row]};
    alone.weights = {together.weights[row]};
    alone.hidden_states = {together.hidden_states[row]};
    Send(stream.get(), alone);
    ASSERT_EQ(all.size(), 9 * kDModel);
    EXPECT_TRUE(SameBits(sink->Await(alone.batch_id, 1).partials,
                         absl::MakeConstSpan(all).subspan(row * kDModel, kDModel), kDModel));
  }
}

TEST_F(NodeTest, MetricsCountAssignmentsAndMergedRows) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  Send(stream.get(), RandomBatch(&random_, 1, 2, 5, {7}));
  sink->Await(1, 5);
  Send(stream.get(), RandomBatch(&random_, 2, 2, 6, {7}));
  sink->Await(2, 6);
  EXPECT_EQ(Metric("tokens_total{expert=\"7\",layer=\"2\"}"), "11");
  EXPECT_EQ(Metric("tokens_total{expert=\"6\",layer=\"2\"}"), "0");
  EXPECT_EQ(Metric("batch_rows_sum"), "11");
  EXPECT_EQ(Metric("batch_rows_count"), "2");
  EXPECT_EQ(Metric("queue_duration_seconds_count"), "2");
  EXPECT_EQ(Metric("forward_duration_seconds_count"), "2");
  EXPECT_EQ(Metric("queue_rows"), "0");
  EXPECT_EQ(Metric("state{state=\"ready\"}"), "1");
}

TEST_F(NodeTest, DrainFinishesWhatWasAcceptedAndThenRefuses) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  backend_.Hold();
  const TestBatch a = Random(1, 3);
  const TestBatch b = Random(2, 4);
  const TestBatch late = Random(3, 5);
  Send(stream.get(), a);
  backend_.AwaitHeld();
  Send(stream.get(), b);
  EXPECT_EQ(node_->Status().batches_in_flight(), 2u);
  EXPECT_EQ(node_->Status().rows_in_flight(), 7u);
  bool drained = false;
  std::thread draining(
      [&] { drained = node_->Drain(absl::Milliseconds(200), clock_.Now() + absl::Seconds(10)); });
  clock_.AwaitWaiters(1);
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_DRAINING);
  Send(stream.get(), late);  // Its router had not heard yet.
  clock_.Advance(absl::Milliseconds(200));
  backend_.Release();
  draining.join();
  EXPECT_TRUE(drained);
  ExpectRight(sink.get(), a);
  ExpectRight(sink.get(), b);
  ExpectRight(sink.get(), late);
  Send(stream.get(), Random(4, 1));
  EXPECT_EQ(sink->Await(4, 1).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(node_->LoadExperts({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_DRAINING);
}

TEST_F(NodeTest, AnIdleNodeDrainsOnlyWhenRoutersHadTimeToHearOfIt) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  std::thread draining([&] {
    EXPECT_TRUE(node_->Drain(absl::Milliseconds(200), clock_.Now() + absl::Seconds(10)));
  });
  clock_.AwaitWaiters(1);
  const TestBatch late = Random(1, 5);
  Send(stream.get(), late);
  ExpectRight(sink.get(), late);
  clock_.Advance(absl::Milliseconds(200));
  draining.join();
}

TEST_F(NodeTest, DrainGivesUpAtItsDeadline) {
  LoadAll();
  const auto sink = std::make_shared<FakeSink>();
  const std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
  backend_.Hold();
  Send(stream.get(), Random(1, 3));
  backend_.AwaitHeld();
  Send(stream.get(), Random(2, 3));
  std::thread draining(
      [&] { EXPECT_FALSE(node_->Drain(absl::ZeroDuration(), clock_.Now() + absl::Seconds(10))); });
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(sink->Await(2, 3).status.code(), absl::StatusCode::kUnavailable);
  backend_.Release();
  draining.join();
}

TEST_F(NodeTest, DrainEndsALoad) {
  absl::Notification packing;
  absl::Notification go_on;
  backend_.OnPack([&] {
    packing.Notify();
    go_on.WaitForNotification();
  });
  std::thread loading([this] {
    EXPECT_EQ(node_->Load({{{1, {0, 1}, {}}}}).code(), absl::StatusCode::kCancelled);
  });
  packing.WaitForNotification();
  EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), clock_.Now() + absl::Seconds(1)));
  go_on.Notify();
  loading.join();
  EXPECT_EQ(node_->Status().state(), v1::NODE_STATE_DRAINING);
}

// A router's end of a connection.
class Observer final : public NodeObserver {
 public:
  explicit Observer(std::shared_ptr<FakeSink> answers) : answers_(std::move(answers)) {}
  void OnStatus(const internal::v1::WatchStatusResponse& status) override {
    const absl::MutexLock lock(&mutex_);
    state_ = status.state();
  }
  void OnFrame(Frame frame) override { EXPECT_TRUE(answers_->Send(std::move(frame)).ok()); }
  void OnDisconnected(const absl::Status&) override {
    const absl::MutexLock lock(&mutex_);
    state_ = v1::NODE_STATE_UNSPECIFIED;
  }
  void Await(v1::NodeState state) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return state_ == state; };
    mutex_.Await(absl::Condition(&reached));
  }

 private:
  const std::shared_ptr<FakeSink> answers_;
  absl::Mutex mutex_;
  v1::NodeState state_ ABSL_GUARDED_BY(mutex_) = v1::NODE_STATE_UNSPECIFIED;
};

TEST_F(NodeTest, ServesThroughATransport) {
  LoadAll();
  InProcessNetwork network;
  network.Register("node:1", node_.get());
  const auto sink = std::make_shared<FakeSink>();
  Observer observer(sink);
  const std::unique_ptr<NodeConnection> connection = network.Connect("node:1", &observer);
  observer.Await(v1::NODE_STATE_READY);
  std::vector<TestBatch> batches;
  for (uint64_t id = 1; id <= 20; ++id) {
    batches.push_back(Random(id, 1 + id * 3, id % 2 == 0 ? 2 : 4));
    for (Frame& frame : MakeFrames(batches.back(), 7)) {
      ASSERT_TRUE(connection->Send(std::move(frame)).ok());
    }
    ExpectRight(sink.get(), batches.back());
  }
  std::thread draining(
      [&] { EXPECT_TRUE(node_->Drain(absl::ZeroDuration(), clock_.Now() + absl::Seconds(1))); });
  observer.Await(v1::NODE_STATE_DRAINING);
  draining.join();
  network.Unregister("node:1");
  observer.Await(v1::NODE_STATE_UNSPECIFIED);
}

}  // namespace
}  // namespace expertmesh::node
