#include "router_service/console/jaeger_query.h"

#include <google/protobuf/text_format.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::console {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<JaegerQuery> Parse(const std::string& query) {
  telemetry::HttpRequest request;
  request.query = query;
  return ParseJaegerQuery(request);
}

// A span "serve" of "node" from 1 s on, for 5 ms, with rows=3 and a process of host "a"; its parent
// is a span "call" of "router" from 1 s on, for 8 ms.
internal::otlp::TracesData Trace() {
  internal::otlp::TracesData data;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    resource_spans {
      resource { attributes { key: "service.name" value { string_value: "router" } } }
      scope_spans { spans { name: "call" kind: SPAN_KIND_CLIENT
        start_time_unix_nano: 1000000000 end_time_unix_nano: 1008000000
        status { code: STATUS_CODE_ERROR } } }
    }
    resource_spans {
      resource { attributes { key: "service.name" value { string_value: "node" } }
                 attributes { key: "host.name" value { string_value: "a" } } }
      scope_spans { spans { name: "serve" kind: SPAN_KIND_SERVER
        start_time_unix_nano: 1000000000 end_time_unix_nano: 1005000000
        attributes { key: "rows" value { int_value: 3 } } } }
    })",
                                                            &data));
  return data;
}

bool Finds(const std::string& query) {
  const absl::StatusOr<JaegerQuery> parsed = Parse(query);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() && Matches(*parsed, Trace());
}

TEST(JaegerQueryTest, ASpanMustHaveAllThatIsAskedFor) {
  EXPECT_TRUE(Finds("service=node"));
  EXPECT_FALSE(Finds("service=client"));
  EXPECT_TRUE(Finds("service=node&operation=serve"));
  EXPECT_FALSE(Finds("service=node&operation=call")) << "which is a span of another service";
  EXPECT_TRUE(Finds("service=node&tags=%7B%22rows%22%3A%223%22%2C%22host.name%22%3A%22a%22%7D"));
  EXPECT_TRUE(Finds("service=node&tags={\"rows\":3}"));
  EXPECT_FALSE(Finds("service=node&tags={\"rows\":\"4\"}"));
  EXPECT_FALSE(Finds("service=router&tags={\"rows\":\"3\"}"));
  EXPECT_TRUE(Finds("service=router&tags={\"error\":\"true\",\"span.kind\":\"client\"}"));
  EXPECT_FALSE(Finds("service=node&tags={\"error\":\"true\"}"));
}

TEST(JaegerQueryTest, TimesAndDurations) {
  EXPECT_TRUE(Finds("service=node&start=1000000&end=1000000"));
  EXPECT_FALSE(Finds("service=node&start=1000001"));
  EXPECT_FALSE(Finds("service=node&end=999999"));
  EXPECT_TRUE(Finds("service=node&minDuration=5ms&maxDuration=5000us"));
  EXPECT_FALSE(Finds("service=node&minDuration=5.1ms"));
  EXPECT_FALSE(Finds("service=node&maxDuration=4.9ms"));
}

TEST(JaegerQueryTest, WhatIsEmptyIsNotAskedFor) {
  EXPECT_TRUE(Finds("service=node&operation=&tags=&start=&end=&minDuration=&maxDuration=&limit="));
  EXPECT_EQ(Parse("service=node")->limit, 20);
  EXPECT_EQ(Parse("service=node&limit=7")->limit, 7);
  EXPECT_EQ(Parse("service=node&limit=100000000")->limit, 1000);
}

TEST(JaegerQueryTest, ErrorsNameTheParameter) {
  const std::pair<const char*, const char*> cases[] = {
      {"operation=serve", "service"},
      {"service=node&tags=rows", "tags"},
      {"service=node&tags=[1]", "tags"},
      {"service=node&tag=rows:3", "tag:"},
      {"service=node&start=now", "start"},
      {"service=node&end=1s", "end"},
      {"service=node&minDuration=5", "minDuration"},
      {"service=node&maxDuration=long", "maxDuration"},
      {"service=node&limit=-1", "limit"},
  };
  for (const auto& [query, named] : cases) {
    const absl::Status status = Parse(query).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << query;
    EXPECT_THAT(std::string(status.message()), HasSubstr(named)) << query;
  }
}

}  // namespace
}  // namespace expertmesh::console
