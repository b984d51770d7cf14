#include "client/cpp/command/trace_report.h"

#include "common/trace/resource.h"
#include "common/trace/span_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::command {
namespace {

using ::testing::HasSubstr;

class TraceReportTest : public testing::Test {
 protected:
  // From `start_us` to `end_us` in trace {1, 2}; what `more` adds.
  template <typename More>
  void Add(absl::string_view name, uint64_t id, uint64_t parent, int64_t start_us, int64_t end_us,
           const More& more) {
    trace::SpanHead head;
    head.name = name;
    head.context = {{1, 2}, id, 1};
    head.parent = parent;
    head.start = absl::FromUnixMicros(1'700'000'000'000'000 + start_us);
    head.end = absl::FromUnixMicros(1'700'000'000'000'000 + end_us);
    trace::SpanWriter writer(head, &spans_);
    more(&writer);
  }
  void Add(absl::string_view name, uint64_t id, uint64_t parent, int64_t start_us, int64_t end_us) {
    Add(name, id, parent, start_us, end_us, [](trace::SpanWriter*) {});
  }

  std::string Describe() const {
    std::string bytes;
    trace::AppendResourceSpans(
        trace::Resource(trace::TextAttributes{{"service.name", "router"}}).bytes, spans_, &bytes);
    internal::otlp::TracesData data;
    EXPECT_TRUE(data.ParseFromString(bytes));
    return DescribeTrace(data);
  }

  std::string spans_;
};

// The line that names `name`.
std::string LineOf(const std::string& text, const std::string& name) {
  const size_t at = text.find(name);
  const size_t begin = text.rfind('\n', at) + 1;
  return text.substr(begin, text.find('\n', at) - begin);
}

TEST_F(TraceReportTest, ChildrenStandBelowTheirParentsByTheirStart) {
  Add("last", 5, 2, 300, 400);
  Add("root", 2, 99, 0, 1000);
  Add("first", 3, 2, 100, 200);
  Add("inner", 4, 3, 150, 160);
  const std::string text = Describe();
  EXPECT_THAT(text, HasSubstr("trace 00000000000000010000000000000002: 4 spans, 1.000 ms\n"));
  const size_t root = text.find("| root");
  const size_t first = text.find("|   first");
  const size_t inner = text.find("|     inner");
  const size_t last = text.find("|   last");
  EXPECT_LT(root, first);
  EXPECT_LT(first, inner);
  EXPECT_LT(inner, last);
  EXPECT_NE(last, std::string::npos);
}

TEST_F(TraceReportTest, BarsLieWhereTheSpansLieInTime) {
  Add("root", 2, 0, 0, 1000);
  Add("half", 3, 2, 500, 1000);
  Add("short", 4, 2, 0, 1);
  const auto bar = [text = Describe()](const std::string& name) {
    const std::string line = LineOf(text, name);
    const size_t begin = line.find('|') + 1;
    return line.substr(begin, line.rfind('|') - begin);
  };
  const auto blocks = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += "█";
    }
    return text;
  };
  EXPECT_EQ(bar("root"), blocks(40));
  EXPECT_EQ(bar("half"), std::string(20, ' ') + blocks(20));
  EXPECT_EQ(bar("short"), blocks(1) + std::string(39, ' '));
}

TEST_F(TraceReportTest, LinesSayWhatIsWorthKnowing) {
  Add("call", 2, 0, 0, 2500, [](trace::SpanWriter* span) {
    span->Number("expertmesh.attempt", 2).Text("error.type", "UNAVAILABLE");
    span->Event("expertmesh.retry", absl::FromUnixMicros(1'700'000'000'001'250))
        .Text("expertmesh.node", "b:1");
    span->Error("it is gone");
  });
  const std::string text = Describe();
  EXPECT_THAT(LineOf(text, "call"), HasSubstr("    0.000     2.500 |"));
  EXPECT_THAT(LineOf(text, "call"), HasSubstr("router: UNAVAILABLE: it is gone, attempt 2"));
  EXPECT_THAT(LineOf(text, "expertmesh.retry"), HasSubstr("    1.250"));
  EXPECT_THAT(LineOf(text, "expertmesh.retry"), HasSubstr("expertmesh.node b:1"));
}

TEST_F(TraceReportTest, LinkedTracesAreNamedOnce) {
  Add("dispatch", 2, 0, 0, 10, [](trace::SpanWriter* span) {
    span->Link({{3, 4}, 5, 1});
    span->Link({{3, 4}, 6, 1});
    span->Link({{1, 2}, 7, 1});  // The same trace.
    span->DroppedLinks(72);
  });
  EXPECT_THAT(Describe(),
              testing::EndsWith("linked: expertmesh trace 00000000000000030000000000000004\n"
                                "72 more links are left out\n"));
}

TEST_F(TraceReportTest, NothingIsNothing) {
  EXPECT_EQ(DescribeTrace(internal::otlp::TracesData()), "");
}

TEST(TraceListTest, ALineForEach) {
  client::TraceSummary trace;
  trace.trace_id = "00000000000000010000000000000002";
  trace.name = "expertmesh.v1.Router/Forward";
  trace.start = absl::FromUnixMillis(1'700'000'000'250);
  trace.duration = absl::Microseconds(1250);
  trace.layer = 3;
  trace.tokens = 17;
  trace.code = absl::StatusCode::kUnavailable;
  trace.kept = "failed";
  trace.spans = 9;
  const std::string text = DescribeTraces({trace});
  for (const char* part : {"22:13:20.250", "1.250", "UNAVAILABLE", "failed", "17", " 9 "}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

}  // namespace
}  // namespace expertmesh::command
