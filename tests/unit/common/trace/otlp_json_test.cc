#include "common/trace/otlp_json.h"

#include "common/trace/resource.h"
#include "common/trace/span_writer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::trace {
namespace {

TEST(OtlpJsonTest, IdsAreHexadecimalEnumsNumbersAndLongIntegersTexts) {
  SpanHead head;
  head.name = "name";
  head.kind = SpanKind::kClient;
  head.context = {{1, 2}, 3, 1};
  head.start = absl::FromUnixNanos(1'700'000'000'123'456'789);
  head.end = head.start + absl::Nanoseconds(1);
  std::string spans;
  {
    SpanWriter writer(head, &spans);
    writer.Text("text", "a").Number("number", 9'007'199'254'740'993).Flag("flag", true);
    writer.Link({{4, 5}, 6, 1}).Number("rows", 1);
    writer.Event("event", head.start);
    writer.Error("why");
  }
  std::string bytes;
  AppendResourceSpans(Resource(TextAttributes{{"service.name", "router"}}).bytes, spans, &bytes);
  internal::otlp::TracesData data;
  ASSERT_TRUE(data.ParseFromString(bytes));

  const auto process = nlohmann::json::parse(ToOtlpJson(data))["resourceSpans"][0];
  EXPECT_EQ(process["resource"]["attributes"][0]["value"]["stringValue"], "router");
  const auto span = process["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(span["traceId"], "00000000000000010000000000000002");
  EXPECT_EQ(span["spanId"], "0000000000000003");
  EXPECT_EQ(span["parentSpanId"], "");
  EXPECT_EQ(span["kind"], 3);
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000123456789");
  EXPECT_EQ(span["attributes"][1]["value"]["intValue"], "9007199254740993");
  EXPECT_EQ(span["attributes"][2]["value"]["boolValue"], true);
  EXPECT_EQ(span["links"][0]["spanId"], "0000000000000006");
  EXPECT_EQ(span["links"][0]["attributes"][0]["key"], "rows");
  EXPECT_EQ(span["events"][0]["name"], "event");
  EXPECT_EQ(span["status"]["code"], 2);
  EXPECT_EQ(span["status"]["message"], "why");
}

}  // namespace
}  // namespace expertmesh::trace
