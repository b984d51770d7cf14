// What a link asks of its connection, and when.
#include "router_service/mesh/node_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/wire/tensor_encode.h"
#include "router_service/mesh/mesh_view.h"
#include "tests/support/call_result.h"

namespace expertmesh::mesh {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t kModelWidth = 4;

// Remembers, in order, what one connection is asked for.
class RecordingTransport final : public Transport {
 public:
  std::unique_ptr<NodeConnection> Connect(std::string, NodeObserver*) override {
    return std::make_unique<Connection>(this);
  }
  std::vector<std::string> TakeCalls() { return std::exchange(calls_, {}); }

 private:
  class Connection final : public NodeConnection {
   public:
    explicit Connection(RecordingTransport* owner) : owner_(owner) {}
    absl::Status Send(Frame) override {
      owner_->calls_.push_back("send");
      return absl::OkStatus();
    }
    size_t QueuedBytes() const override { return 0; }
    void PauseReading() override { owner_->calls_.push_back("pause"); }
    void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                     LoadDone done) override {
      owner_->calls_.push_back(
          absl::StrCat("load ", request.term(), " ", absl::FormatDuration(timeout)));
      done(absl::NotFoundError("as the test wants"));
    }
    void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                       UnloadDone done) override {
      owner_->calls_.push_back(
          absl::StrCat("unload ", request.term(), " ", absl::FormatDuration(timeout)));
      done(absl::NotFoundError("as the test wants"));
    }

   private:
    RecordingTransport* const owner_;
  };

  std::vector<std::string> calls_;
};

struct Batch final : NodeBatch {
  explicit Batch(uint32_t count) {
    rows = answer_rows = count;
    d_model = kModelWidth;
    partials = std::make_shared<AlignedBuffer>(count * kModelWidth * sizeof(float));
  }
  bool CanGoElsewhere(const MeshView&) const override { return can_go; }
  void Done(const absl::Status& status) override { ended.push_back(status); }
  bool can_go = false;
  std::vector<absl::Status> ended;
};

class NodeLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    link_.Connect(&transport_);
    ComeUp();
  }

  void ComeUp() {
    internal::v1::WatchStatusResponse status;
    status.set_state(v1::NODE_STATE_READY);
    status.mutable_description()->set_fingerprint("model");
    link_.OnStatus(status);
  }

  std::shared_ptr<Batch> Send(uint64_t id, uint32_t rows, uint32_t assignments = 1) {
    auto batch = std::make_shared<Batch>(rows);
    batch->assignments = assignments;
    Frame frame("a request");
    link_.Send(id, batch, absl::MakeSpan(&frame, 1));
    return batch;
  }
  // The node answers one row of the batch.
  void Answer(uint64_t id, uint32_t row, uint64_t queue_us = 0, uint64_t compute_us = 0) {
    internal::v1::ComputeResponse response;
    response.set_batch_id(id);
    response.set_first_row(row);
    response.set_queue_us(queue_us);
    response.set_compute_us(compute_us);
    TensorFrame tensor{Dtype::kF32, 1, kModelWidth, {}};
    tensor.data = Frame(std::string(kModelWidth * sizeof(float), '\0'));
    link_.OnFrame(EncodeTensorMessage(response, &tensor));
  }

  // As if the mesh took 1 ms for each assignment.
  void Judge() {
    const MeshView view({}, std::make_shared<const Placement>(), {}, {});
    link_.Judge({clock_.Now(), awake_since_, absl::Milliseconds(1), &view});
  }
  double Faults(const std::string& fault) {
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      for (const prometheus::ClientMetric& metric : family.metric) {
        for (const auto& label : metric.label) {
          if (label.name == "fault" && label.value == fault) {
            return metric.counter.value;
          }
        }
      }
    }
    return 0;
  }

  absl::Time awake_since_ = absl::InfinitePast();
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  RecordingTransport transport_;
  FakeClock clock_;
  TimerQueue timers_{&clock_};
  NodeLink link_{
      "node:1", {{"model", "outline"}, kModelWidth, {}, {}}, &metrics_, &timers_, &clock_, [] {}};
};

TEST_F(NodeLinkTest, ANodeWithoutAllFilesIsTakenByItsOutline) {
  const auto says = [this](const std::string& fingerprint, const std::string& outline) {
    internal::v1::WatchStatusResponse status;
    status.set_state(v1::NODE_STATE_READY);
    status.mutable_description()->set_fingerprint(fingerprint);
    status.mutable_description()->set_outline(outline);
    link_.OnStatus(status);
    return link_.ToProto();
  };
  EXPECT_EQ(says("partial:outline", "outline").reason(), "");
  const v1::TopologyNode refused = says("partial:other", "other");
  EXPECT_EQ(refused.link(), v1::NODE_LINK_REFUSED);
  EXPECT_THAT(refused.reason(), testing::HasSubstr("partial:other"));
  EXPECT_EQ(says("another fine-tune", "outline").link(), v1::NODE_LINK_REFUSED);
}

TEST_F(NodeLinkTest, WhatANodeSaysIsShownPrintableAndBounded) {
  internal::v1::WatchStatusResponse status;
  status.set_state(v1::NODE_STATE_FAILED);
  status.mutable_description()->set_fingerprint("model");
  status.mutable_description()->set_node_id("two\nlines");
  status.mutable_description()->set_message("\x1b" + std::string(5'000'000, 'x'));
  link_.OnStatus(status);
  const v1::TopologyNode shown = link_.ToProto();
  EXPECT_EQ(shown.description().node_id(), "two\\nlines");
  EXPECT_THAT(shown.description().message(), testing::StartsWith("\\x1bxxx"));
  EXPECT_LT(shown.ByteSizeLong(), 4000u);
}

TEST_F(NodeLinkTest, TheConnectionRestsWhenNothingIsAwaited) {
  const auto batch = Send(1, 2);
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("send"));
  Answer(1, 0);
  EXPECT_THAT(transport_.TakeCalls(), IsEmpty());  // The second row is to come.
  Answer(1, 1);
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("pause"));
  EXPECT_THAT(batch->ended, ElementsAre(absl::OkStatus()));
}

TEST_F(NodeLinkTest, TheConnectionDoesNotRestWhileABatchIsInFlight) {
  const auto first = Send(1, 1);
  const auto second = Send(2, 1);
  Answer(2, 0);
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("send", "send"));
  Answer(1, 0);
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("pause"));
}

// Rest, then send: a connection that is told in the other order would not read the answer.
TEST_F(NodeLinkTest, ABatchSentFromTheEndOfAnotherIsAwaited) {
  struct Chained final : NodeBatch {
    bool CanGoElsewhere(const MeshView&) const override { return false; }
    void Done(const absl::Status&) override { next(); }
    std::function<void()> next;
  };
  auto batch = std::make_shared<Chained>();
  batch->rows = batch->answer_rows = 1;
  batch->d_model = kModelWidth;
  batch->partials = std::make_shared<AlignedBuffer>(kModelWidth * sizeof(float));
  batch->next = [this] { Send(2, 1); };
  Frame frame("a request");
  link_.Send(1, batch, absl::MakeSpan(&frame, 1));
  Answer(1, 0);
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("send", "pause", "send"));
}

TEST_F(NodeLinkTest, WhatIsOverdueGoesElsewhereIfItCan) {
  const auto stays = Send(1, 1);
  const auto goes = Send(2, 1);
  goes->can_go = true;
  clock_.Advance(absl::Milliseconds(250));
  Judge();
  EXPECT_THAT(goes->ended, IsEmpty());
  clock_.Advance(absl::Milliseconds(1));
  Judge();
  EXPECT_THAT(stays->ended, IsEmpty());
  ASSERT_EQ(goes->ended.size(), 1);
  EXPECT_EQ(goes->ended[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(link_.rows_in_flight(), 1);
  Answer(2, 0);  // Too late.
  Answer(1, 0);
  EXPECT_EQ(goes->ended.size(), 1);
  EXPECT_THAT(stays->ended, ElementsAre(absl::OkStatus()));
}

TEST_F(NodeLinkTest, MoreWorkInFlightMayTakeLonger) {
  const auto batch = Send(1, 1, 1000);
  batch->can_go = true;
  clock_.Advance(absl::Milliseconds(4000));
  Judge();
  EXPECT_THAT(batch->ended, IsEmpty());
  clock_.Advance(absl::Milliseconds(1));
  Judge();
  EXPECT_EQ(batch->ended.size(), 1);
}

TEST_F(NodeLinkTest, ANodeThatAnswersOthersMeanwhileIsLateAndOneThatDoesNotIsSilent) {
  Send(1, 1);
  Send(2, 1);
  clock_.Advance(absl::Milliseconds(100));
  Answer(2, 0);
  clock_.Advance(absl::Milliseconds(200));
  Judge();
  EXPECT_EQ(Faults("late"), 1);
  EXPECT_EQ(Faults("silent"), 0);
  EXPECT_EQ(link_.state(), LinkState::kUp);
  Send(3, 1);
  clock_.Advance(absl::Milliseconds(300));
  Judge();
  Judge();  // Counted once.
  EXPECT_EQ(Faults("late"), 1);
  EXPECT_EQ(Faults("silent"), 1);
  EXPECT_EQ(link_.state(), LinkState::kEjected);
}

// The router itself was stopped, or had no time for its network: what came is not read yet.
TEST_F(NodeLinkTest, NothingIsOverdueThatCouldNotBeHeard) {
  const auto batch = Send(1, 1);
  batch->can_go = true;
  clock_.Advance(absl::Seconds(10));
  awake_since_ = clock_.Now();
  Judge();
  EXPECT_THAT(batch->ended, IsEmpty());
  clock_.Advance(absl::Milliseconds(251));
  Judge();
  EXPECT_EQ(batch->ended.size(), 1);
}

TEST_F(NodeLinkTest, AnotherProcessThatComesBackIsNotEjectedForTheOneBefore) {
  Send(1, 1);
  clock_.Advance(absl::Milliseconds(300));
  Judge();
  EXPECT_EQ(link_.state(), LinkState::kEjected);
  link_.OnDisconnected(absl::UnavailableError("it died"));
  EXPECT_EQ(link_.state(), LinkState::kDown);
  ComeUp();
  EXPECT_EQ(link_.state(), LinkState::kUp);
  EXPECT_EQ(link_.ToProto().ejections(), 1);
}

TEST_F(NodeLinkTest, ComputedAreTheAssignmentsOfABatchAndNotThoseBesideIt) {
  Send(1, 1, 3);
  Send(2, 1, 5);
  Answer(1, 0, 0, 70);
  Answer(2, 0, 0, 20);
  EXPECT_EQ(link_.ToProto().computed_assignments(), 8u);
  EXPECT_EQ(link_.ToProto().compute_us(), 90u);
}

TEST_F(NodeLinkTest, TheLinksTimeIsWhatTheNodeDoesNotAccountFor) {
  for (uint64_t batch = 1; batch <= 100; ++batch) {
    const uint64_t assignments = batch % 9 + 1;
    Send(batch, 1, static_cast<uint32_t>(assignments));
    // A hop of 300 us, 4 us an assignment on the way; 7 more in the queue, and 20 computing.
    clock_.Advance(absl::Microseconds(300 + 31 * assignments));
    Answer(batch, 0, 7 * assignments, 20 * assignments);
  }
  EXPECT_NEAR(link_.ToProto().link_us_per_assignment(), 4, 1e-6);
}

TEST_F(NodeLinkTest, LoadsAndUnloadsGoToTheConnectionWhileThereIsOne) {
  internal::v1::LoadExpertsRequest load;
  load.set_term(3);
  internal::v1::UnloadExpertsRequest unload;
  unload.set_term(4);
  for (const absl::StatusCode expected :
       {absl::StatusCode::kNotFound, absl::StatusCode::kUnavailable}) {
    CallResult<internal::v1::LoadExpertsResponse> loaded;
    link_.LoadExperts(load, absl::Seconds(2), loaded.done());
    EXPECT_EQ(loaded.Await().status().code(), expected);
    CallResult<internal::v1::UnloadExpertsResponse> unloaded;
    link_.UnloadExperts(unload, absl::Seconds(1), unloaded.done());
    EXPECT_EQ(unloaded.Await().status().code(), expected);
    link_.Close();
  }
  EXPECT_THAT(transport_.TakeCalls(), ElementsAre("load 3 2s", "unload 4 1s"));
}

}  // namespace
}  // namespace expertmesh::mesh
