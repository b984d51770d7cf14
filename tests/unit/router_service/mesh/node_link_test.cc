// What a link asks of its connection, and when.
#include "router_service/mesh/node_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/wire/tensor_encode.h"

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
  void Done(const absl::Status& status, bool) override { ended.push_back(status); }
  std::vector<absl::Status> ended;
};

class NodeLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    link_.Connect(&transport_);
    internal::v1::WatchStatusResponse status;
    status.set_state(v1::NODE_STATE_READY);
    status.mutable_description()->set_fingerprint("model");
    link_.OnStatus(status);
  }

  std::shared_ptr<Batch> Send(uint64_t id, uint32_t rows) {
    auto batch = std::make_shared<Batch>(rows);
    Frame frame("a request");
    link_.Send(id, batch, absl::MakeSpan(&frame, 1));
    return batch;
  }
  // The node answers one row of the batch.
  void Answer(uint64_t id, uint32_t row) {
    internal::v1::ComputeResponse response;
    response.set_batch_id(id);
    response.set_first_row(row);
    TensorFrame tensor{Dtype::kF32, 1, kModelWidth, {}};
    tensor.data = Frame(std::string(kModelWidth * sizeof(float), '\0'));
    link_.OnFrame(EncodeTensorMessage(response, &tensor));
  }

  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  RecordingTransport transport_;
  NodeLink link_{"node:1", "model", {}, &metrics_, [] {}};
};

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
    void Done(const absl::Status&, bool) override { next(); }
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

}  // namespace
}  // namespace expertmesh::mesh
