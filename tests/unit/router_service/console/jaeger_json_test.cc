#include "router_service/console/jaeger_json.h"

#include <google/protobuf/text_format.h>

#include "gtest/gtest.h"

namespace expertmesh::console {
namespace {

using nlohmann::json;

internal::otlp::TracesData Parse(const char* text) {
  internal::otlp::TracesData data;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &data));
  return data;
}

constexpr char kTrace[] = R"(
  resource_spans {
    resource {
      attributes { key: "service.name" value { string_value: "router" } }
      attributes { key: "host.name" value { string_value: "a" } }
    }
    scope_spans {
      scope { name: "expertmesh" }
      spans {
        trace_id: "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
        span_id: "\x11\x12\x13\x14\x15\x16\x17\x18"
        trace_state: "k=v"
        name: "call" kind: SPAN_KIND_CLIENT
        start_time_unix_nano: 5000000 end_time_unix_nano: 7000999
        attributes { key: "rows" value { int_value: 9007199254740993 } }
        attributes { key: "share" value { double_value: 0.5 } }
        attributes { key: "retried" value { bool_value: true } }
        events { time_unix_nano: 6000000 name: "retry"
                 attributes { key: "attempt" value { int_value: 2 } } }
        links { trace_id: "\xff\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
                span_id: "\xff\x12\x13\x14\x15\x16\x17\x18" }
        status { code: STATUS_CODE_ERROR message: "lost" }
      }
    }
  }
  resource_spans {
    resource { attributes { key: "service.name" value { string_value: "node" } } }
    scope_spans {
      spans {
        trace_id: "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
        span_id: "\x21\x12\x13\x14\x15\x16\x17\x18"
        parent_span_id: "\x11\x12\x13\x14\x15\x16\x17\x18"
        name: "serve" kind: SPAN_KIND_SERVER
        start_time_unix_nano: 5500000 end_time_unix_nano: 6500000
      }
      spans {
        trace_id: "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
        span_id: "\x31\x12\x13\x14\x15\x16\x17\x18"
        parent_span_id: "\x21\x12\x13\x14\x15\x16\x17\x18"
        name: "compute" kind: SPAN_KIND_INTERNAL
        start_time_unix_nano: 5600000 end_time_unix_nano: 6400000
      }
    }
  })";

// What Jaeger itself answers for such a trace is compared in
// tests/integration/test_observability.py.
TEST(JaegerJsonTest, ATraceHasEverythingThatJaegersFormHas) {
  const json trace = ToJaegerTrace(Parse(kTrace));
  EXPECT_EQ(trace["traceID"], "0102030405060708090a0b0c0d0e0f10");
  EXPECT_EQ(trace["processes"], json::parse(R"({"p1": {"serviceName": "router",
                                   "tags": [{"key": "host.name", "type": "string", "value": "a"}]},
                            "p2": {"serviceName": "node", "tags": []}})"));
  ASSERT_EQ(trace["spans"].size(), 3);
  EXPECT_EQ(trace["spans"][0], json::parse(R"({
    "traceID": "0102030405060708090a0b0c0d0e0f10", "spanID": "1112131415161718",
    "operationName": "call", "startTime": 5000, "duration": 2000, "processID": "p1",
    "references": [{"refType": "FOLLOWS_FROM", "traceID": "ff02030405060708090a0b0c0d0e0f10",
                    "spanID": "ff12131415161718"}],
    "tags": [{"key": "rows", "type": "int64", "value": 9007199254740993},
             {"key": "share", "type": "float64", "value": 0.5},
             {"key": "retried", "type": "bool", "value": true},
             {"key": "span.kind", "type": "string", "value": "client"},
             {"key": "otel.status_code", "type": "string", "value": "ERROR"},
             {"key": "error", "type": "bool", "value": true},
             {"key": "otel.status_description", "type": "string", "value": "lost"},
             {"key": "w3c.tracestate", "type": "string", "value": "k=v"},
             {"key": "otel.scope.name", "type": "string", "value": "expertmesh"}],
    "logs": [{"timestamp": 6000,
              "fields": [{"key": "event", "type": "string", "value": "retry"},
                         {"key": "attempt", "type": "int64", "value": 2}]}],
    "warnings": null})"));
  EXPECT_EQ(trace["spans"][1]["references"],
            json::parse(R"([{"refType": "CHILD_OF", "traceID": "0102030405060708090a0b0c0d0e0f10",
                             "spanID": "1112131415161718"}])"));
  EXPECT_EQ(trace["spans"][1]["processID"], "p2");
}

TEST(JaegerJsonTest, DependenciesCountCallsBetweenServices) {
  const json dependencies = ToJaegerDependencies({Parse(kTrace), Parse(kTrace)});
  EXPECT_EQ(dependencies,
            json::parse(R"([{"parent": "router", "child": "node", "callCount": 2}])"));
}

}  // namespace
}  // namespace expertmesh::console
