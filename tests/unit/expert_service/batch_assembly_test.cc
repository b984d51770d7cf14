#include "expert_service/batch_assembly.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/wire/frame_checksum.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/wire_dtype.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;

class BatchAssemblyTest : public testing::Test {
 protected:
  BatchAssemblyTest() : hosted_(checkpoint_, &backend_, {0, 1}, [] {}) {
    EXPECT_TRUE(hosted_
                    .Load({{{1, {0, 1, 2, 3}, {}}, {2, {0, 1, 2, 3}, {}}}},
                          HostedExperts::Publish::kTogether)
                    .ok());
    Restart();
  }

  void Restart() {
    assembler_ =
        std::make_unique<BatchAssembler>(limits_, &checkpoint_->model(), &hosted_, &clock_);
  }

  TestBatch Random(uint64_t batch_id, size_t rows, uint32_t layer = 1) {
    return RandomBatch(&random_, batch_id, layer, rows, {0, 1, 2, 3});
  }

  // The frame is refused with `code`, for batch `batch_id`, and a message with `part`; and the
  // stream goes on.
  void ExpectRefused(const Frame& frame, absl::StatusCode code, const std::string& part,
                     uint64_t batch_id = 7) {
    const BatchAssembler::Outcome outcome = assembler_->Add(frame);
    EXPECT_EQ(outcome.batch_id, batch_id);
    EXPECT_EQ(outcome.status.code(), code) << outcome.status;
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(part));
    EXPECT_EQ(outcome.batch, nullptr);
    EXPECT_NE(assembler_->Add(MakeFrame(Random(++next_good_, 2), 0, 2)).batch, nullptr);
    EXPECT_EQ(assembler_->open_batches(), 0u);
    EXPECT_EQ(assembler_->open_bytes(), 0u);
  }

  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  FakeClock clock_;
  HostedExperts hosted_;
  AssemblyLimits limits_{/*max_batch_rows=*/64, /*max_frame_bytes=*/4096, /*max_open_bytes=*/16384};
  std::unique_ptr<BatchAssembler> assembler_;
  std::mt19937 random_{1};
  uint64_t next_good_ = 1000;
};

std::vector<float> HiddenStates(const ReceivedBatch& batch) {
  std::vector<float> all;
  for (const TensorFrame& part : batch.parts) {
    std::vector<float> values(part.rows * part.cols);
    CopyRows(part, Dtype::kF32, values.data());
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

void ExpectSame(const ReceivedBatch& batch, const TestBatch& sent) {
  ASSERT_EQ(batch.total_rows, sent.rows());
  EXPECT_EQ(batch.batch_id, sent.batch_id);
  EXPECT_EQ(batch.layer, sent.layer);
  EXPECT_EQ(batch.answer_rows(), sent.answer_rows());
  ASSERT_EQ(batch.row_begin.size(), sent.rows() + 1);
  std::vector<float> hidden_states;
  for (size_t row = 0; row < sent.rows(); ++row) {
    const uint32_t begin = batch.row_begin[row];
    const uint32_t end = batch.row_begin[row + 1];
    EXPECT_EQ(
        std::vector<uint32_t>(batch.expert_ids.begin() + begin, batch.expert_ids.begin() + end),
        sent.experts[row]);
    EXPECT_EQ(std::vector<float>(batch.weights.begin() + begin, batch.weights.begin() + end),
              sent.weights[row]);
    hidden_states.insert(hidden_states.end(), sent.hidden_states[row].begin(),
                         sent.hidden_states[row].end());
  }
  EXPECT_TRUE(SameRows(HiddenStates(batch), hidden_states, kDModel));
}

TEST_F(BatchAssemblyTest, AFrameWhoseBytesChangedIsRefused) {
  const TestBatch sent = Random(7, 3);
  internal::v1::ComputeRequest message = MakeRequest(sent, 0, 3);
  const auto whole = DecodeTensorMessage<internal::v1::ComputeRequest>(MakeFrame(sent, 0, 3));
  ASSERT_TRUE(whole.ok());
  message.set_checksum(ChecksumOf(message, whole->tensor));
  const Frame right = EncodeTensorMessage(message, &whole->tensor);
  const BatchAssembler::Outcome outcome = assembler_->Add(right);
  ASSERT_NE(outcome.batch, nullptr) << outcome.status;
  EXPECT_TRUE(outcome.batch->checksums);
  EXPECT_FALSE(assembler_->Add(MakeFrame(Random(8, 3), 0, 3)).batch->checksums);

  message.set_expert_weights(0, message.expert_weights(0) * 2.0f);
  ExpectRefused(EncodeTensorMessage(message, &whole->tensor), absl::StatusCode::kDataLoss,
                "checksum is ");
  std::string bytes = right.Flatten();
  bytes.back() ^= 1;
  ExpectRefused(Frame(bytes), absl::StatusCode::kDataLoss, "send the batch again");
  ExpectRefused(EncodeTensorMessage(message, nullptr), absl::StatusCode::kDataLoss, "checksum");
}

TEST_F(BatchAssemblyTest, OneFrameIsABatch) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    TestBatch sent = Random(7, 5, 2);
    sent.dtype = dtype;
    const BatchAssembler::Outcome outcome = assembler_->Add(MakeFrame(sent, 0, 5));
    ASSERT_NE(outcome.batch, nullptr) << outcome.status;
    ExpectSame(*outcome.batch, sent);
    EXPECT_EQ(outcome.batch->deadline, absl::InfiniteFuture());
    EXPECT_NE(outcome.batch->hosted->experts[3], nullptr);
    EXPECT_EQ(outcome.batch->partials_dtype, Dtype::kF32);
  }
}

TEST_F(BatchAssemblyTest, Int8IsDecodedWithTheScalesOfItsRow) {
  TestBatch sent = Random(7, 5, 2);
  sent.dtype = Dtype::kI8Block128;
  for (size_t row = 0; row < sent.rows(); ++row) {
    // The largest is 127 times a power of two: all of them are exact.
    sent.hidden_states[row].assign(kDModel, std::ldexp(3.0f, static_cast<int>(row)));
    sent.hidden_states[row][2] = std::ldexp(-127.0f, static_cast<int>(row));
  }
  EXPECT_EQ(assembler_->Add(MakeFrame(sent, 0, 3)).batch, nullptr);
  const BatchAssembler::Outcome outcome = assembler_->Add(MakeFrame(sent, 3, 2));
  ASSERT_NE(outcome.batch, nullptr) << outcome.status;
  ExpectSame(*outcome.batch, sent);
}

TEST_F(BatchAssemblyTest, PartialsOfAnyTypeCanBeAskedFor) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kI8Block128}) {
    const TestBatch sent = Random(7, 5, 2);
    internal::v1::ComputeRequest message = MakeRequest(sent, 0, 5);
    message.set_partials_dtype(ToWire(dtype));
    const BatchAssembler::Outcome outcome = assembler_->Add(MakeFrame(message, 5, kDModel));
    ASSERT_NE(outcome.batch, nullptr) << outcome.status;
    EXPECT_EQ(outcome.batch->partials_dtype, dtype);
  }
  internal::v1::ComputeRequest message = MakeRequest(Random(7, 5), 0, 5);
  message.set_partials_dtype(static_cast<v1::Dtype>(99));
  ExpectRefused(MakeFrame(message, 5, kDModel), absl::StatusCode::kInvalidArgument,
                "partials_dtype is 99; send DTYPE_F32, ");
}

TEST_F(BatchAssemblyTest, FramesOfSeveralBatchesInterleave) {
  const TestBatch a = Random(1, 9);
  const TestBatch b = Random(2, 7, 2);
  const std::vector<Frame> of_a = MakeFrames(a, 4);
  const std::vector<Frame> of_b = MakeFrames(b, 3);
  EXPECT_EQ(assembler_->Add(of_a[0]).batch, nullptr);
  EXPECT_EQ(assembler_->Add(of_b[0]).batch, nullptr);
  EXPECT_EQ(assembler_->Add(of_a[1]).batch, nullptr);
  EXPECT_EQ(assembler_->Add(of_b[1]).batch, nullptr);
  EXPECT_EQ(assembler_->open_batches(), 2u);
  EXPECT_GE(assembler_->open_bytes(),
            of_a[0].size() + of_a[1].size() + of_b[0].size() + of_b[1].size());
  const std::unique_ptr<ReceivedBatch> done_b = assembler_->Add(of_b[2]).batch;
  const std::unique_ptr<ReceivedBatch> done_a = assembler_->Add(of_a[2]).batch;
  ASSERT_NE(done_a, nullptr);
  ASSERT_NE(done_b, nullptr);
  ExpectSame(*done_a, a);
  ExpectSame(*done_b, b);
  EXPECT_EQ(assembler_->open_bytes(), 0u);
}

TEST_F(BatchAssemblyTest, ShapesThatDoNotFitAreRefused) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const TestBatch good = Random(7, 2);
  internal::v1::ComputeRequest message = MakeRequest(good, 0, 2);
  ExpectRefused(MakeFrame(message, 2, kDModel + 1), kInvalid, "d_model is 6");
  ExpectRefused(MakeFrame(message, 1, kDModel), kInvalid, "assignments_per_row has 2 entries");
  ExpectRefused(MakeFrame(message, 0, kDModel), kInvalid, "0 rows");
  ExpectRefused(MakeFrame(message, 3, kDModel), kInvalid, "total_rows 2");
  ExpectRefused(EncodeTensorMessage(message, nullptr), kInvalid, "hidden_states is missing");
  (*message.mutable_extensions())["acme.x"].set_raw("1");
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "extensions has an entry 'acme.x'");
  message.clear_extensions();
  message.set_total_rows(0);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "total_rows is 0");
  message.set_total_rows(65);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "must be from 1 to 64");
  message = MakeRequest(good, 0, 2);
  message.set_layer(3);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "layer 3 is not a MoE layer");
}

TEST_F(BatchAssemblyTest, AssignmentsThatDoNotAddUpAreRefused) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const TestBatch good = Random(7, 2);
  internal::v1::ComputeRequest message = MakeRequest(good, 0, 2);
  message.add_expert_ids(0);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "expert_ids has");
  message.add_expert_weights(1);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "expert_ids has");
  message = MakeRequest(good, 0, 2);
  message.add_expert_weights(1);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "expert_weights has");
  message = MakeRequest(good, 0, 2);
  message.set_assignments_per_row(1, 0);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "assignments_per_row has an entry 0");
  message.set_assignments_per_row(1, std::numeric_limits<uint32_t>::max());
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid,
                "assignments_per_row has an entry 4294967295");
  message = MakeRequest(good, 0, 2);
  message.set_expert_ids(0, kNumExperts);
  ExpectRefused(MakeFrame(message, 2, kDModel), kInvalid, "expert_ids has an entry 10");
}

TEST_F(BatchAssemblyTest, ExpertsThatAreNotHeldAreNamed) {
  TestBatch batch = Random(7, 3);
  batch.experts[1][0] = 8;
  batch.experts[2][0] = 4;
  ExpectRefused(MakeFrame(batch, 0, 3), absl::StatusCode::kFailedPrecondition,
                "layer 1: this node does not hold experts 4,8;");
  batch = RandomBatch(&random_, 7, 4, 1, {5});
  ExpectRefused(MakeFrame(batch, 0, 1), absl::StatusCode::kFailedPrecondition,
                "layer 4: this node does not hold experts 5;");
}

TEST_F(BatchAssemblyTest, WrongTypesAndNonsenseAreAnsweredByBatchId) {
  const TestBatch good = Random(7, 2);
  internal::v1::ComputeRequest message = MakeRequest(good, 0, 2);
  message.mutable_hidden_states()->set_dtype(v1::DTYPE_UNSPECIFIED);
  message.mutable_hidden_states()->add_shape(2);
  message.mutable_hidden_states()->add_shape(kDModel);
  message.mutable_hidden_states()->set_data(std::string(2 * kDModel, '\0'));
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument,
                "hidden_states.dtype is DTYPE_UNSPECIFIED");
  // Again, with the same id: a new batch, so a new answer.
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument,
                "hidden_states.dtype is DTYPE_UNSPECIFIED");
  message.mutable_hidden_states()->set_dtype(v1::DTYPE_F32);
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument, "48");
  message.mutable_hidden_states()->set_dtype(v1::DTYPE_INT8_BLOCK128);
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument,
                "hidden_states.scales has 0 bytes");
  std::string cut = MakeFrame(good, 0, 2).Flatten();
  cut.resize(cut.size() - 3);
  ExpectRefused(Frame(cut), absl::StatusCode::kInvalidArgument, "malformed");
  ExpectRefused(Frame(std::string("\xff\xff\xff")), absl::StatusCode::kInvalidArgument, "malformed",
                0);
}

TEST_F(BatchAssemblyTest, ClaimedSizesAreNotAllocated) {
  internal::v1::ComputeRequest message = MakeRequest(Random(7, 1), 0, 1);
  message.mutable_hidden_states()->set_dtype(v1::DTYPE_F32);
  message.mutable_hidden_states()->add_shape(uint64_t{1} << 62);
  message.mutable_hidden_states()->add_shape(uint64_t{1} << 62);
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument, "shape");
  message.mutable_hidden_states()->set_shape(0, uint64_t{1} << 40);
  message.mutable_hidden_states()->set_shape(1, kDModel);
  ExpectRefused(Frame(message.SerializeAsString()), absl::StatusCode::kInvalidArgument, "shape");
}

TEST_F(BatchAssemblyTest, FramesOutOfOrderFailTheirBatchOnce) {
  const TestBatch batch = Random(7, 10);
  // The middle is missing; what follows is dropped without a word.
  std::vector<Frame> frames = MakeFrames(batch, 2);
  EXPECT_TRUE(assembler_->Add(frames[0]).status.ok());
  ExpectRefused(frames[2], absl::StatusCode::kInvalidArgument, "first_row is 4; batch 7 goes on");
  EXPECT_TRUE(assembler_->Add(frames[3]).status.ok());
  EXPECT_TRUE(assembler_->Add(frames[4]).status.ok());
  // A batch that has never begun; and again the rest is dropped.
  ExpectRefused(frames[1], absl::StatusCode::kInvalidArgument, "frames go in order from row 0");
  EXPECT_TRUE(assembler_->Add(frames[2]).status.ok());
  // Begins again.
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(assembler_->Add(frames[i]).status.ok());
  }
  EXPECT_NE(assembler_->Add(frames[4]).batch, nullptr);
  // Begun twice.
  EXPECT_TRUE(assembler_->Add(frames[0]).status.ok());
  ExpectRefused(frames[0], absl::StatusCode::kInvalidArgument, "batch_id must be unique");
}

TEST_F(BatchAssemblyTest, FramesThatDisagreeFailTheirBatch) {
  const TestBatch batch = Random(7, 4);
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
  internal::v1::ComputeRequest message = MakeRequest(batch, 2, 2);
  message.set_layer(2);
  ExpectRefused(MakeFrame(message, 2, kDModel), absl::StatusCode::kInvalidArgument, "layer is 2");
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
  message.set_layer(1);
  message.set_total_rows(5);
  ExpectRefused(MakeFrame(message, 2, kDModel), absl::StatusCode::kInvalidArgument,
                "total_rows is 5");
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
  message.set_total_rows(4);
  message.set_partials_dtype(v1::DTYPE_BF16);
  ExpectRefused(MakeFrame(message, 2, kDModel), absl::StatusCode::kInvalidArgument,
                "partials_dtype is BF16; batch 7 began with F32");
  // F32 and nothing said are the same.
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
  message.set_partials_dtype(v1::DTYPE_F32);
  EXPECT_NE(assembler_->Add(MakeFrame(message, 2, kDModel)).batch, nullptr);
}

TEST_F(BatchAssemblyTest, AllFramesAgreeOnPerAssignment) {
  for (const bool per_assignment : {false, true}) {
    TestBatch batch = Random(7, 4);
    batch.per_assignment = per_assignment;
    EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
    const std::unique_ptr<ReceivedBatch> done = assembler_->Add(MakeFrame(batch, 2, 2)).batch;
    ASSERT_NE(done, nullptr);
    EXPECT_EQ(done->per_assignment, per_assignment);
    ExpectSame(*done, batch);

    EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
    batch.per_assignment = !per_assignment;
    ExpectRefused(MakeFrame(batch, 2, 2), absl::StatusCode::kInvalidArgument,
                  per_assignment ? "per_assignment is 0; batch 7 began with 1"
                                 : "per_assignment is 1; batch 7 began with 0");
  }
}

TEST_F(BatchAssemblyTest, AnAnswerPerAssignmentHasAtMostMaxBatchRows) {
  TestBatch batch = Random(7, 0);
  for (int row = 0; row < 33; ++row) {  // Two assignments each.
    batch.experts.push_back({1, 3});
    batch.weights.push_back({1.0f, 2.0f});
    batch.hidden_states.push_back(std::vector<float>(kDModel, 1.0f));
  }
  EXPECT_NE(assembler_->Add(MakeFrame(batch, 0, 33)).batch, nullptr);
  batch.per_assignment = true;
  ExpectRefused(MakeFrame(batch, 0, 33), absl::StatusCode::kInvalidArgument,
                "expert_ids has 66 entries so far; a batch with per_assignment may have 64");
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 32)).status.ok());
  ExpectRefused(MakeFrame(batch, 32, 1), absl::StatusCode::kInvalidArgument, "max_batch_rows");
  batch.experts.pop_back();
  batch.weights.pop_back();
  batch.hidden_states.pop_back();
  EXPECT_NE(assembler_->Add(MakeFrame(batch, 0, 32)).batch, nullptr);
}

TEST_F(BatchAssemblyTest, DeadlinesCountFromArrival) {
  TestBatch batch = Random(7, 4);
  batch.has_timeout = true;
  batch.timeout_us = 1000;
  const std::unique_ptr<ReceivedBatch> done = assembler_->Add(MakeFrame(batch, 0, 4)).batch;
  ASSERT_NE(done, nullptr);
  EXPECT_EQ(done->deadline, clock_.Now() + absl::Milliseconds(1));
  for (const int64_t past : {int64_t{0}, int64_t{-5}, std::numeric_limits<int64_t>::min()}) {
    batch.timeout_us = past;
    ExpectRefused(MakeFrame(batch, 0, 4), absl::StatusCode::kDeadlineExceeded, "timeout_us");
  }
  // Expires between its frames.
  batch.timeout_us = 1000;
  EXPECT_TRUE(assembler_->Add(MakeFrame(batch, 0, 2)).status.ok());
  clock_.Advance(absl::Milliseconds(1));
  ExpectRefused(MakeFrame(batch, 2, 2), absl::StatusCode::kDeadlineExceeded, "timeout_us");
  batch.timeout_us = std::numeric_limits<int64_t>::max();
  EXPECT_NE(assembler_->Add(MakeFrame(batch, 0, 4)).batch, nullptr);
}

TEST_F(BatchAssemblyTest, LargeFramesAndManyUnfinishedBatchesAreRefused) {
  limits_.max_frame_bytes = 200;
  Restart();
  ExpectRefused(MakeFrame(Random(7, 20), 0, 20), absl::StatusCode::kResourceExhausted,
                "max_frame_bytes");
  limits_ = AssemblyLimits{64, 4096, 5000};
  Restart();
  uint64_t id = 100;
  BatchAssembler::Outcome outcome;
  while (outcome.status.ok()) {  // Each costs 1 KiB at least.
    ASSERT_LT(id, 110u);
    outcome = assembler_->Add(MakeFrame(Random(++id, 2), 0, 1));
  }
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(outcome.batch_id, id);
  EXPECT_LE(assembler_->open_bytes(), 5000u);
  // Those that are complete need no room.
  EXPECT_NE(assembler_->Add(MakeFrame(Random(7, 20), 0, 20)).batch, nullptr);
}

}  // namespace
}  // namespace expertmesh::node
