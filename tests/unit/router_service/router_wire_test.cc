// Types of rows on the router's links: to and from nodes, and of clients.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/wire/wire_dtype.h"
#include "router_service/router.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::HasSubstr;

struct WireCase {
  const char* name;
  Dtype dtype;
  // How much of the largest of its row a value may change: half a unit in the last place of 8 and
  // 11 bits, half of a 127th.
  float change;
};
const WireCase kCases[] = {{"f32", Dtype::kF32, 0.0f},
                           {"bf16", Dtype::kBF16, 0x1p-8f},
                           {"f16", Dtype::kF16, 0x1p-11f},
                           {"int8", Dtype::kI8Block128, 0.50002f / 127.0f}};

class RouterWireTest : public RouterTest {
 protected:
  // Layer 1, experts x * (e + 1) + 1: |slope| is at most 6, weights add up to 1. Change of a hidden
  // state by h of 1, and of a partial (at most 7) by p.
  static void ExpectWithin(const std::vector<float>& rows, const Answer& answer, float h, float p) {
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    const std::vector<float> expected = Expected(1, rows, answer.response.routing());
    // Sums of a handful of float32 terms, in another order than ours.
    const float bound = 6.0f * h + 7.0f * p * (1.0f + h) + 2e-5f;
    ASSERT_TRUE(RowsNear(answer.output, expected, kModel, bound));
    float largest = 0.0f;
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(answer.output[i] - expected[i]));
    }
    // A lossy type that loses nothing at all is not what was asked for.
    if (h + p > 0.0f) {
      EXPECT_GT(largest, 5e-5f);
    }
  }

  uint64_t ErrorsSampled() {
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      if (family.name == "expertmesh_router_wire_relative_error" && !family.metric.empty()) {
        return family.metric.at(0).histogram.sample_count;
      }
    }
    return 0;
  }
  double LargestErrorBucket(double bound) {
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      if (family.name == "expertmesh_router_wire_relative_error") {
        for (const auto& bucket : family.metric.at(0).histogram.bucket) {
          if (bucket.upper_bound == bound) {
            return static_cast<double>(bucket.cumulative_count);
          }
        }
      }
    }
    return -1.0;
  }
};

class EveryEncodingTest : public RouterWireTest, public testing::WithParamInterface<WireCase> {};

TEST_P(EveryEncodingTest, OfHiddenStates) {
  RouterOptions options;
  options.wire_hidden_states = GetParam().name;
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(2, 40);
  ExpectWithin(rows, Forward(1, rows), GetParam().change, 0.0f);
  EXPECT_EQ(a.hidden_states_dtype(), GetParam().dtype);
  EXPECT_EQ(ErrorsSampled(), GetParam().dtype == Dtype::kF32 ? 0u : 2u);
}

TEST_P(EveryEncodingTest, OfPartials) {
  RouterOptions options;
  options.wire_partials = GetParam().name;
  options.max_frame_bytes = 1;
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(3, 40);
  // Two nodes: each rounds its own.
  ExpectWithin(rows, Forward(1, rows), 0.0f, GetParam().change * 2.0f);
  EXPECT_EQ(a.hidden_states_dtype(), Dtype::kF32);
  EXPECT_EQ(ErrorsSampled(), 0u);
}

TEST_P(EveryEncodingTest, OfAClient) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(4, 30);
  const TensorFrame tensor =
      EncodeRows(Dtype::kF32, rows.data(), rows.size() / kModel, kModel, GetParam().dtype);
  std::vector<float> received(rows.size());
  DecodeRows(tensor, Dtype::kF32, received.data());
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_return_routing(true);
  const auto ask = [&] {
    Answer answer;
    absl::Notification done;
    Send(EncodeTensorMessage(request, &tensor), &answer, &done);
    done.WaitForNotification();
    return answer;
  };
  // In the type of the question.
  Answer answer = ask();
  EXPECT_EQ(answer.dtype, GetParam().dtype);
  ExpectWithin(received, answer, 0.0f, GetParam().change);
  request.set_output_dtype(v1::DTYPE_F32);
  answer = ask();
  EXPECT_EQ(answer.dtype, Dtype::kF32);
  ExpectRight(1, received, answer);
  // And the other way round.
  request.set_output_dtype(ToWire(GetParam().dtype));
  answer = ForwardRequest(request, rows);
  EXPECT_EQ(answer.dtype, GetParam().dtype);
  ExpectWithin(rows, answer, 0.0f, GetParam().change);
}

INSTANTIATE_TEST_SUITE_P(All, EveryEncodingTest, testing::ValuesIn(kCases),
                         [](const auto& param) { return param.param.name; });

TEST_F(RouterWireTest, LinksHaveTheirOwnTypesAndTheTopologySaysThem) {
  RouterOptions options;
  options.wire_hidden_states = "auto,b:1=bf16";
  options.wire_partials = "f16,a:1=int8";
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  FakeNode& b = AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(5, 40);
  ExpectWithin(rows, Forward(1, rows), 0x1p-8f, 2.0f / 127.0f);
  EXPECT_EQ(a.hidden_states_dtype(), Dtype::kF32);
  EXPECT_EQ(b.hidden_states_dtype(), Dtype::kBF16);
  EXPECT_EQ(ErrorsSampled(), 1u);
  const v1::Topology topology = router_->fleet().Topology();
  EXPECT_EQ(topology.nodes(0).hidden_states_dtype(), v1::DTYPE_F32);
  EXPECT_EQ(topology.nodes(0).partials_dtype(), v1::DTYPE_INT8_BLOCK128);
  EXPECT_EQ(topology.nodes(1).hidden_states_dtype(), v1::DTYPE_BF16);
  EXPECT_EQ(topology.nodes(1).partials_dtype(), v1::DTYPE_F16);
}

TEST_F(RouterWireTest, ARowHasTheSameBitsInAnyBatch) {
  RouterOptions options;
  options.wire_hidden_states = "int8";
  options.wire_partials = "int8";
  StartRouter(options);
  AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  const std::vector<float> rows = RandomRows(6, 25);
  const Answer together = Forward(1, rows);
  for (size_t row = 0; row < 25; ++row) {
    const auto begin = rows.begin() + static_cast<ptrdiff_t>(row * kModel);
    const Answer alone = Forward(1, std::vector<float>(begin, begin + kModel));
    const auto expected = absl::MakeConstSpan(together.output).subspan(row * kModel, kModel);
    ASSERT_TRUE(SameBits(alone.output, expected, kModel)) << "row " << row;
  }
}

TEST_F(RouterWireTest, TheErrorOfInt8IsMeasured) {
  RouterOptions options;
  options.wire_hidden_states = "int8";
  StartRouter(options);
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  for (uint32_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(Forward(1, RandomRows(i, 5)).status.ok());
  }
  EXPECT_EQ(ErrorsSampled(), 10u);
  // Rows of 8 values from -1 to 1: at most half of a 127th of the largest for each of them, sqrt(8)
  // of that together, beside a norm of the largest at least: 0.012.
  EXPECT_EQ(LargestErrorBucket(2e-2), 10.0);
  EXPECT_EQ(LargestErrorBucket(2e-4), 0.0);
}

TEST_F(RouterWireTest, PartialsOfAnotherTypeThanAskedAreRefused) {
  RouterOptions options;
  options.wire_partials = "bf16";
  StartRouter(options);
  FakeNode& a = AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  a.EditAnswers([](internal::v1::ComputeResponse*, TensorFrame* partials) {
    const std::vector<float> zeros(kModel, 0.0f);
    *partials = EncodeRows(Dtype::kF32, zeros.data(), 1, kModel, Dtype::kF16);
  });
  const Answer answer = Forward(1, RandomRows(7, 1));
  EXPECT_FALSE(answer.status.ok());
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("expected BF16 rows from 0 of 1"));
}

// Rows 1 and 4 are beyond f16 as they are, and so are partials of row 2.
std::vector<float> RowsOfAllSizes() {
  std::vector<float> rows = RandomRows(8, 6);
  rows[1 * kModel + 3] = 1e6f;
  rows[2 * kModel + 5] = 65500.0f;
  rows[4 * kModel] = -65520.0f;
  return rows;
}

class OverflowTest : public RouterWireTest, public testing::WithParamInterface<bool> {
 protected:
  void Start(const std::string& hidden_states, const std::string& partials) {
    RouterOptions options;
    options.wire_hidden_states = hidden_states;
    options.wire_partials = partials;
    options.strict = GetParam();
    StartRouter(options);
    AddNode("a:1", {0, 1, 2});
    AddNode("b:1", {3, 4, 5});
    Connect();
  }
  double OverflowRows() {
    double rows = 0.0;
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      if (family.name == "expertmesh_router_wire_overflow_rows_total") {
        for (const auto& metric : family.metric) {
          rows += metric.counter.value;
        }
      }
    }
    return rows;
  }
};

TEST_P(OverflowTest, RowsBeyondF16AreRightAndLeaveTheBitsOfOthersAlone) {
  Start("f16", "f16");
  const std::vector<float> rows = RowsOfAllSizes();
  const Answer together = Forward(1, rows);
  ASSERT_TRUE(together.status.ok()) << together.status;
  const std::vector<float> expected = Expected(1, rows, together.response.routing());
  const auto bound = [](size_t i) {
    const size_t row = i / kModel;
    const bool fits = row == 0 || row == 3 || row == 5;
    return (fits ? 7.0f : row == 1 ? 6e6f : 4e5f) * 0x1p-9f;
  };
  EXPECT_TRUE(RowsNear(together.output, expected, kModel, bound));
  for (size_t row = 0; row < 6; ++row) {
    const auto begin = rows.begin() + static_cast<ptrdiff_t>(row * kModel);
    const Answer alone = Forward(1, std::vector<float>(begin, begin + kModel));
    const auto part = absl::MakeConstSpan(together.output).subspan(row * kModel, kModel);
    EXPECT_TRUE(SameBits(alone.output, part, kModel)) << "row " << row;
  }
  // Each of the two rows went to one or two nodes, twice.
  EXPECT_GE(OverflowRows(), 4.0);
  EXPECT_LE(OverflowRows(), 8.0);
}

TEST_P(OverflowTest, RowsThatFitAreNotCounted) {
  Start("f16", "f16");
  std::vector<float> rows = RandomRows(9, 6);
  rows[0] = std::numeric_limits<float>::infinity();
  rows[kModel] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(Forward(1, rows).status.ok());
  EXPECT_EQ(OverflowRows(), 0.0);
}

INSTANTIATE_TEST_SUITE_P(StrictAndNot, OverflowTest, testing::Bool());

TEST_F(RouterWireTest, AnOutputBeyondItsTypeIsAnErrorThatNamesTokenAndValue) {
  StartRouter();
  AddNode("a:1", {0, 1, 2, 3, 4, 5});
  Connect();
  v1::ForwardRequest request;
  request.set_layer(1);
  request.set_output_dtype(v1::DTYPE_F16);
  const Answer beyond = ForwardRequest(request, RowsOfAllSizes());
  EXPECT_EQ(beyond.status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(beyond.status.message()), HasSubstr("output: token 1 has a value"));
  EXPECT_THAT(std::string(beyond.status.message()), HasSubstr("F16 cannot hold"));
  request.set_output_dtype(v1::DTYPE_BF16);
  EXPECT_TRUE(ForwardRequest(request, RowsOfAllSizes()).status.ok());
  // What was not finite is passed on as it is.
  request.set_output_dtype(v1::DTYPE_F16);
  std::vector<float> infinite = RandomRows(10, 3);
  infinite[0] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(ForwardRequest(request, infinite).status.ok());
}

TEST_F(RouterWireTest, OptionsThatCannotBeReadAreRefused) {
  RouterOptions options;
  options.wire_partials = "int4";
  const absl::StatusOr<std::unique_ptr<Router>> router =
      Router::Create(options, std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                     MakeBackend(), &network_, &clock_, &registry_);
  EXPECT_EQ(router.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(router.status().message()), HasSubstr("--wire-partials"));
}

}  // namespace
}  // namespace expertmesh::router
