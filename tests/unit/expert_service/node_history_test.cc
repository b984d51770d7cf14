// Many routers at once, with everything that can happen to them: random batches in random pieces,
// nonsense, deadlines, streams that break, experts that come and go. Expert arithmetic is exact and
// different for every expert, so an answer that is right was computed from the right rows by the
// right experts, whatever it was merged with; and every batch is answered exactly once.
#include <gtest/gtest.h>

#include <thread>

#include "expert_service/node.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

constexpr int kRouters = 6;
constexpr int kBatchesPerRouter = 150;
// Experts 0 to 7 stay; 8 and 9 come and go.
const std::vector<uint32_t> kSteady = {0, 1, 2, 3, 4, 5, 6, 7};
const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
constexpr uint32_t kLayers[] = {1, 2, 4};

struct Sent {
  TestBatch batch;
  bool may_miss_experts = false;
  bool may_expire = false;
  bool broken = false;
};

// One stream and what was sent on it.
class RouterDouble {
 public:
  RouterDouble(Node* node, uint32_t seed)
      : node_(node), random_(seed), sink_(std::make_shared<FakeSink>()) {}

  void Run() {
    std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink_);
    for (int i = 0; i < kBatchesPerRouter; ++i) {
      SendOne(stream.get(), static_cast<uint64_t>(i) + 1);
      if (Below(20) == 0) {
        sink_->Await(sent_.back().batch.batch_id, sent_.back().batch.rows());
      }
    }
    for (const Sent& sent : sent_) {
      sink_->Await(sent.batch.batch_id, sent.batch.rows());
    }
  }

  // Another stream that breaks with batches in flight.
  void RunAndBreak() {
    const auto sink = std::make_shared<FakeSink>();
    std::unique_ptr<StreamHandler> stream = node_->OpenCompute(sink);
    for (uint64_t id = 1; id <= 5; ++id) {
      const TestBatch batch = RandomBatch(&random_, id, 1, 1 + Below(30), kSteady);
      for (Frame& frame : MakeFrames(batch, 8)) {
        stream->OnFrame(std::move(frame));
      }
    }
    sink->Break();
  }

  void Check() const {
    EXPECT_EQ(sink_->answers(), sent_.size());
    for (const Sent& sent : sent_) {
      const FakeSink::Answer answer = sink_->Get(sent.batch.batch_id);
      EXPECT_FALSE(answer.malformed) << "batch " << sent.batch.batch_id;
      if (answer.status.ok()) {
        EXPECT_FALSE(sent.broken);
        EXPECT_TRUE(SameRows(answer.partials, Expected(sent.batch), kDModel))
            << "batch " << sent.batch.batch_id;
        continue;
      }
      EXPECT_EQ(answer.frames, 1u);
      switch (answer.status.code()) {
        case absl::StatusCode::kInvalidArgument:
          EXPECT_TRUE(sent.broken) << answer.status;
          break;
        case absl::StatusCode::kFailedPrecondition:
          EXPECT_TRUE(sent.may_miss_experts) << answer.status;
          break;
        case absl::StatusCode::kDeadlineExceeded:
          EXPECT_TRUE(sent.may_expire) << answer.status;
          break;
        case absl::StatusCode::kResourceExhausted:
          break;  // The queue was full.
        default:
          ADD_FAILURE() << answer.status;
      }
    }
  }

 private:
  size_t Below(size_t limit) { return random_() % limit; }

  void SendOne(StreamHandler* stream, uint64_t id) {
    Sent sent;
    sent.may_miss_experts = Below(4) == 0;
    sent.batch = RandomBatch(&random_, id, kLayers[Below(3)], 1 + Below(40),
                             sent.may_miss_experts ? kAll : kSteady);
    if (Below(8) == 0) {
      sent.may_expire = true;
      sent.batch.has_timeout = true;
      sent.batch.timeout_us = static_cast<int64_t>(Below(300));
    }
    sent.broken = Below(12) == 0;
    std::vector<Frame> frames = MakeFrames(sent.batch, 1 + Below(20));
    if (sent.broken) {
      internal::v1::ComputeRequest request = MakeRequest(sent.batch, 0, 1);
      request.add_expert_ids(kNumExperts);
      frames = {MakeFrame(request, 1, kDModel)};
      sent.may_expire = false;
    }
    sent_.push_back(std::move(sent));
    for (Frame& frame : frames) {
      stream->OnFrame(std::move(frame));
    }
  }

  Node* const node_;
  std::mt19937 random_;
  const std::shared_ptr<FakeSink> sink_;
  std::vector<Sent> sent_;
};

// Experts 8 and 9 of every layer come and go.
void LoadAndUnload(Node* node, const std::atomic<bool>* stop) {
  internal::v1::LoadExpertsRequest load;
  internal::v1::UnloadExpertsRequest unload;
  for (const uint32_t layer : kLayers) {
    v1::HostedExperts hosted;
    hosted.set_layer(layer);
    hosted.add_experts(8);
    hosted.add_experts(9);
    *load.add_experts() = hosted;
    *unload.add_experts() = hosted;
  }
  while (!*stop) {
    EXPECT_EQ(node->LoadExperts(load)->loaded(), 6u);
    EXPECT_EQ(node->UnloadExperts(unload)->unloaded(), 6u);
  }
}

TEST(NodeHistoryTest, EveryAnswerIsTheRightOneAndThereIsOne) {
  NodeOptions options;
  options.node_id = "history";
  options.max_batch_rows = 64;
  options.max_queue_rows = 2048;
  options.reply_frame_bytes = 400;
  options.load_threads = 2;
  FakeBackend backend;
  FakeClock clock;
  options.cpu_time = [&clock] { return clock.Now() - absl::UnixEpoch(); };
  absl::StatusOr<std::unique_ptr<Node>> created = Node::Create(
      options, MakeCheckpoint(), &backend, &clock, std::make_shared<prometheus::Registry>());
  ASSERT_TRUE(created.ok()) << created.status();
  Node* const node = created->get();
  std::atomic<int> changes{0};
  const std::unique_ptr<StatusSubscription> subscription =
      node->Subscribe([&changes] { ++changes; });
  ASSERT_TRUE(node->Load({{{1, kSteady, {}}, {2, kSteady, {}}, {4, kSteady, {}}}}).ok());

  std::vector<std::unique_ptr<RouterDouble>> routers;
  std::vector<std::thread> threads;
  for (int i = 0; i < kRouters; ++i) {
    routers.push_back(std::make_unique<RouterDouble>(node, 100 + i));
    threads.emplace_back([router = routers.back().get()] {
      router->Run();
      router->RunAndBreak();
    });
  }
  std::atomic<bool> stop{false};
  std::thread changing([&] { LoadAndUnload(node, &stop); });
  // Ticks for as long as experts change: a load rests by this clock.
  std::atomic<bool> unchanging{false};
  std::thread ticking([&] {
    while (!unchanging) {
      clock.Advance(absl::Microseconds(10));
      EXPECT_GE(node->Status().version(), 1u);
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  stop = true;
  changing.join();
  unchanging = true;
  ticking.join();
  EXPECT_TRUE(node->Drain(absl::ZeroDuration(), absl::InfiniteFuture()));
  EXPECT_EQ(node->Status().batches_in_flight(), 0u);
  EXPECT_EQ(node->Status().rows_in_flight(), 0u);
  EXPECT_EQ(backend.alive(), 24);
  EXPECT_GT(changes, 4);
  for (const std::unique_ptr<RouterDouble>& router : routers) {
    router->Check();
  }
}

}  // namespace
}  // namespace expertmesh::node
