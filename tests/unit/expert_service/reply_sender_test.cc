#include "expert_service/reply_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "expert_service/batch_assembly.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

// Two batches, merged and computed: one answered per row, one per assignment.
class ReplySenderTest : public testing::Test {
 protected:
  ReplySenderTest() : hosted_(checkpoint_, &backend_, {0, 1}, [] {}) {
    EXPECT_TRUE(hosted_.Load({{{1, {0, 1, 2}, {}}}}, HostedExperts::Publish::kTogether).ok());
    for (uint64_t id = 1; id <= 2; ++id) {
      TestBatch sent = RandomBatch(&random_, id, 1, 4 + id, {0, 1, 2});
      sent.per_assignment = id == 1;
      sent.partials_dtype = id == 1 ? Dtype::kF32 : Dtype::kBF16;
      sent_.push_back(sent);
      BatchAssembler assembler({}, &checkpoint_->model(), &hosted_, &clock_);
      queued_.push_back({7, sink_, assembler.Add(MakeFrame(sent, 0, sent.rows())).batch});
      StageTimes& times = queued_.back().batch->times;
      times.started = times.complete + absl::Microseconds(30);
      times.computed = times.started + absl::Microseconds(400);
    }
    merged_.Merge(queued_, Dtype::kF32);
    backend_.Submit(merged_.grouped(), [](absl::Status status) { EXPECT_TRUE(status.ok()); });
  }

  std::string Metric(const std::string& series) { return MetricValue(*registry_, series); }

  const std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  FakeClock clock_;
  const std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  NodeMetrics metrics_{registry_};
  HostedExperts hosted_;
  ReplySender reply_sender_{100, &metrics_};
  std::mt19937 random_{3};
  const std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::vector<TestBatch> sent_;
  std::vector<QueuedBatch> queued_;
  MergedBatch merged_;
};

TEST_F(ReplySenderTest, EachBatchGetsItsRowsItsTypeAndItsTimes) {
  EXPECT_TRUE(reply_sender_.SendPartials(queued_[0], merged_, 0));
  EXPECT_TRUE(reply_sender_.SendPartials(queued_[1], merged_, sent_[0].answer_rows()));
  for (const TestBatch& sent : sent_) {
    const FakeSink::Answer answer = sink_->Get(sent.batch_id);
    EXPECT_FALSE(answer.malformed);
    EXPECT_GT(answer.frames, 1u);
    EXPECT_EQ(answer.dtype, sent.partials_dtype);
    EXPECT_EQ(answer.queue_us, 30u);
    EXPECT_EQ(answer.compute_us, 400u);
    const std::vector<float> expected = Expected(sent);
    ASSERT_EQ(answer.partials.size(), expected.size());
    if (sent.partials_dtype == Dtype::kF32) {
      EXPECT_TRUE(SameRows(answer.partials, expected, kDModel));
    } else {
      const std::vector<double> rounded(expected.begin(), expected.end());
      EXPECT_TRUE(RowsClose(answer.partials, rounded, kDModel, 0.01));
    }
  }
  EXPECT_EQ(Metric("expertmesh_expert_queue_duration_seconds_count"), "2");
  EXPECT_EQ(Metric("expertmesh_expert_wire_relative_error_count"
                   "{direction=\"partials\",layer=\"1\"}"),
            "1")
      << "float32 loses nothing";
}

TEST_F(ReplySenderTest, OnlyWhatIsOnItsWayKeepsThePartials) {
  const std::weak_ptr<const AlignedBuffer> partials = merged_.partials();
  EXPECT_TRUE(reply_sender_.SendPartials(queued_[0], merged_, 0));
  merged_.ReleasePartials();
  EXPECT_TRUE(partials.expired()) << "the sink has decoded them";
}

TEST_F(ReplySenderTest, ABrokenStreamIsToldAndCounted) {
  sink_->BreakUnnoticed();
  EXPECT_FALSE(reply_sender_.SendPartials(queued_[0], merged_, 0));
  EXPECT_EQ(Metric("expertmesh_expert_rejected_total{reason=\"stream_gone\"}"), "1");
}

TEST_F(ReplySenderTest, ErrorsAreSentAndCountedByTheirCode) {
  reply_sender_.SendError(*sink_, 2, absl::ResourceExhaustedError("queue full"));
  EXPECT_EQ(sink_->Get(2).status, absl::ResourceExhaustedError("queue full"));
  sink_->Break();
  reply_sender_.SendError(*sink_, 1, absl::ResourceExhaustedError("queue full"));
  EXPECT_EQ(sink_->answers(), 1u);
  EXPECT_EQ(Metric("expertmesh_expert_rejected_total{reason=\"resource_exhausted\"}"), "2");
}

}  // namespace
}  // namespace expertmesh::node
