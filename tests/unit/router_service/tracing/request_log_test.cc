#include "router_service/tracing/request_log.h"

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/telemetry/logging.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router_service/tracing/tracer.h"

namespace expertmesh::tracing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RequestLogTest : public testing::Test {
 protected:
  RequestLogTest() {
    EXPECT_TRUE(telemetry::InitLogging("router", "warning", "json").ok());
    testing::internal::CaptureStderr();
  }
  // What was logged since the start, or the last call of this.
  std::vector<nlohmann::json> Lines() {
    std::vector<nlohmann::json> lines;
    for (const absl::string_view line :
         absl::StrSplit(testing::internal::GetCapturedStderr(), '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    testing::internal::CaptureStderr();
    return lines;
  }
  ~RequestLogTest() override { testing::internal::GetCapturedStderr(); }

  // A request of 16 tokens that took 12.5 ms.
  static TraceRecord Record(absl::StatusCode code, Keep keep) {
    TraceRecord record;
    record.layer = 3;
    record.batch_requests = 1;
    RequestRecord& request = record.requests.emplace_back();
    request.span = {{0x0123456789abcdef, 0xfedcba9876543210}, 0xab, 1};
    request.code = code;
    request.keep = keep;
    request.tokens = 16;
    request.arrival = absl::UnixEpoch();
    request.answered = request.arrival + absl::Microseconds(12500);
    return record;
  }

  FakeClock clock_;
  RequestLog log_{&clock_};
};

TEST_F(RequestLogTest, ARequestThatFailedHasALineWithItsTrace) {
  TraceRecord record = Record(absl::StatusCode::kUnavailable, Keep::kFailed);
  v1::NodeDescription description;
  description.set_node_id("n1");
  const auto node = std::make_shared<const mesh::NodeIdentity>("host:1", description);
  for (const char* why : {"first", "it\nis gone"}) {
    CallRecord& call = record.calls.emplace_back();
    call.node = node;
    call.code = absl::StatusCode::kUnavailable;
    call.message = record.AddText(why);
  }
  log_.Add(record);
  const std::vector<nlohmann::json> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0]["level"], "warning");
  EXPECT_EQ(lines[0]["message"],
            "layer 3: a request of 16 tokens failed with UNAVAILABLE after 12.5 ms; "
            "node n1: it\\nis gone");
  EXPECT_EQ(lines[0]["trace_id"], "0123456789abcdeffedcba9876543210");
  EXPECT_EQ(lines[0]["span_id"], "00000000000000ab");
}

TEST_F(RequestLogTest, ASlowOneSaysWhereItsTimeWent) {
  TraceRecord record = Record(absl::StatusCode::kOk, Keep::kSlow);
  record.dispatched = true;
  record.closed = absl::UnixEpoch() + absl::Milliseconds(7);
  record.planned = absl::UnixEpoch() + absl::Milliseconds(8);
  record.received = absl::UnixEpoch() + absl::Milliseconds(12);
  log_.Add(record);
  const std::vector<nlohmann::json> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0]["message"],
            "layer 3: a request of 16 tokens was slow: OK after 12.5 ms, queue 7.0 ms, "
            "nodes 4.0 ms");
  EXPECT_EQ(lines[0]["trace_id"], "0123456789abcdeffedcba9876543210");
}

TEST_F(RequestLogTest, OthersAreNotWorthALine) {
  for (const Keep keep : {Keep::kSampled, Keep::kRetried, Keep::kOfBatch}) {
    log_.Add(Record(absl::StatusCode::kOk, keep));
  }
  for (const auto code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kCancelled,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kFailedPrecondition}) {
    log_.Add(Record(code, Keep::kFailed));
  }
  EXPECT_THAT(Lines(), IsEmpty());
  for (const auto code : {absl::StatusCode::kInternal, absl::StatusCode::kDeadlineExceeded,
                          absl::StatusCode::kDataLoss}) {
    clock_.Advance(absl::Seconds(1));
    log_.Add(Record(code, Keep::kSampled));
  }
  EXPECT_THAT(Lines(), SizeIs(3));
}

TEST_F(RequestLogTest, AFewASecondAreWrittenAndTheOthersCounted) {
  const TraceRecord record = Record(absl::StatusCode::kInternal, Keep::kFailed);
  for (int i = 0; i < 5; ++i) {
    log_.Add(record);
  }
  EXPECT_THAT(Lines(), SizeIs(1));
  clock_.Advance(absl::Milliseconds(250));
  log_.Add(record);
  const std::vector<nlohmann::json> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0]["message"].get<std::string>(), HasSubstr("(4 lines like it left out)"));
}

TEST_F(RequestLogTest, ATracerWritesOfWhatItKeeps) {
  {
    Tracer tracer({}, nullptr, &clock_);
    auto record = tracer.TakeRecord();
    *record = Record(absl::StatusCode::kUnavailable, Keep::kFailed);
    tracer.Add(std::move(record));
  }
  EXPECT_THAT(Lines(), SizeIs(1));
}

}  // namespace
}  // namespace expertmesh::tracing
