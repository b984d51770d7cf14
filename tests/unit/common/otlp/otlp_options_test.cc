// What environment variables of OpenTelemetry mean here.
#include "common/otlp/otlp_options.h"

#include <cstdlib>
#include <fstream>
#include <map>

#include "absl/strings/str_join.h"
#include "common/base/environment.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::otlp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

using Variables = std::map<std::string, std::string>;

constexpr char kEndpoint[] = "OTEL_EXPORTER_OTLP_ENDPOINT";

class OtlpOptionsTest : public testing::Test {
 protected:
  absl::StatusOr<TracingSettings> Read(const Variables& variables) {
    warnings_.clear();
    return ReadTracingSettings(
        [&variables](const std::string& name) {
          const auto found = variables.find(name);
          return found == variables.end() ? std::string() : found->second;
        },
        &warnings_);
  }
  // With an endpoint; ADD_FAILURE where it is no use.
  OtlpOptions Exporter(Variables variables) {
    variables.emplace(kEndpoint, "http://collector:4317");
    const absl::StatusOr<TracingSettings> settings = Read(variables);
    if (!settings.ok() || !settings->exporter.has_value()) {
      ADD_FAILURE() << settings.status();
      return {};
    }
    return *settings->exporter;
  }
  SamplerOptions Sampler(const std::string& name, const std::string& argument = "") {
    const auto settings =
        Read({{"OTEL_TRACES_SAMPLER", name}, {"OTEL_TRACES_SAMPLER_ARG", argument}});
    EXPECT_TRUE(settings.ok() && settings->sampler.has_value()) << name;
    return settings.ok() ? settings->sampler.value_or(SamplerOptions{-1, false}) : SamplerOptions();
  }
  std::string Refusal(const Variables& variables) {
    const absl::StatusOr<TracingSettings> settings = Read(variables);
    EXPECT_EQ(settings.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(settings.status().message());
  }

  std::vector<std::string> warnings_;
};

TEST_F(OtlpOptionsTest, NothingRunsWithoutAnEndpoint) {
  for (const Variables& variables :
       {Variables{}, Variables{{kEndpoint, ""}}, Variables{{kEndpoint, "  "}}}) {
    const auto settings = Read(variables);
    ASSERT_TRUE(settings.ok());
    EXPECT_FALSE(settings->exporter.has_value());
    EXPECT_FALSE(settings->sampler.has_value());
    EXPECT_FALSE(settings->disabled);
    EXPECT_THAT(warnings_, IsEmpty());
  }
  const auto asked_for = Read({{"OTEL_TRACES_EXPORTER", "otlp"}});
  ASSERT_TRUE(asked_for.ok());
  EXPECT_FALSE(asked_for->exporter.has_value());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr(kEndpoint)));
}

TEST_F(OtlpOptionsTest, DefaultsWithAnEndpointAlone) {
  const OtlpOptions options = Exporter({});
  EXPECT_EQ(options.target, "collector:4317");
  EXPECT_FALSE(options.tls.has_value());
  EXPECT_THAT(options.headers, IsEmpty());
  EXPECT_FALSE(options.gzip);
  EXPECT_EQ(options.timeout, absl::Seconds(2));
  EXPECT_EQ(options.export_timeout, absl::Seconds(30));
  EXPECT_EQ(options.schedule_delay, absl::Seconds(5));
  EXPECT_EQ(options.max_batch_spans, 512u);
  EXPECT_LE(options.max_queue_bytes + 2 * options.max_batch_bytes, 32u << 20);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(OtlpOptionsTest, SwitchedOff) {
  const auto disabled = Read({{kEndpoint, "nonsense://"},
                              {"OTEL_SDK_DISABLED", "TRUE"},
                              {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"}});
  ASSERT_TRUE(disabled.ok()) << disabled.status();
  EXPECT_TRUE(disabled->disabled);
  EXPECT_FALSE(disabled->exporter.has_value());

  const auto none = Read({{kEndpoint, "http://c:1"}, {"OTEL_TRACES_EXPORTER", "none"}});
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->disabled);
  EXPECT_FALSE(none->exporter.has_value());

  const auto on = Read({{kEndpoint, "http://c:1"}, {"OTEL_SDK_DISABLED", "1"}});
  ASSERT_TRUE(on.ok());
  EXPECT_FALSE(on->disabled);
  EXPECT_TRUE(on->exporter.has_value());
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr("OTEL_SDK_DISABLED"), HasSubstr("\"1\""))));
}

TEST_F(OtlpOptionsTest, Endpoints) {
  const struct {
    const char* text;
    const char* target;
    bool tls;
    bool warns;
  } kCases[] = {
      {"http://collector:4317", "collector:4317", false, false},
      {"HTTP://collector:4317/", "collector:4317", false, false},
      {"https://collector:443", "collector:443", true, false},
      {"http://collector", "collector:4317", false, false},
      {"http://[::1]", "[::1]:4317", false, false},
      {"https://[::1]:5", "[::1]:5", true, false},
      {"http://collector:4317/v1/traces", "collector:4317", false, true},
      {"collector:4317", "collector:4317", false, true},
      {"unix:/run/otel.sock", "unix:/run/otel.sock", false, false},
      {"dns:///collector:4317", "dns:///collector:4317", false, false},
  };
  for (const auto& one : kCases) {
    const OtlpOptions options = Exporter({{kEndpoint, one.text}});
    EXPECT_EQ(options.target, one.target) << one.text;
    EXPECT_EQ(options.tls.has_value(), one.tls) << one.text;
    EXPECT_EQ(!warnings_.empty(), one.warns) << one.text << absl::StrJoin(warnings_, " ");
    if (one.warns) {
      EXPECT_THAT(warnings_, ElementsAre(HasSubstr(kEndpoint)));
    }
  }
}

TEST_F(OtlpOptionsTest, ThatThereIsNoSchemeCanBeMeant) {
  const Variables bare = {{kEndpoint, "collector:4317"}};
  for (const bool insecure : {false, true}) {
    Variables variables = bare;
    variables["OTEL_EXPORTER_OTLP_INSECURE"] = insecure ? "true" : "false";
    EXPECT_EQ(Exporter(variables).tls.has_value(), !insecure);
    EXPECT_THAT(warnings_, IsEmpty());
  }
}

TEST_F(OtlpOptionsTest, EndpointsThatCannotBeUsedAreErrors) {
  for (const char* text : {"http://", "http://:4317", "http://collector:0", "http://collector:x",
                           "collector:99999", "grpc://collector:4317", "a b:1", "http://a:b:1"}) {
    EXPECT_THAT(Refusal({{kEndpoint, text}}), AllOf(HasSubstr(kEndpoint), HasSubstr("http://HOST")))
        << text;
  }
  EXPECT_THAT(Refusal({{kEndpoint, "http://me:secret@collector:4317"}}),
              AllOf(HasSubstr("OTEL_EXPORTER_OTLP_HEADERS"), Not(HasSubstr("secret"))));
}

TEST_F(OtlpOptionsTest, VariablesOfTracesWin) {
  const OtlpOptions options = Exporter({{kEndpoint, "http://general:1"},
                                        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2"},
                                        {"OTEL_EXPORTER_OTLP_TIMEOUT", "100"},
                                        {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "200"},
                                        {"OTEL_EXPORTER_OTLP_HEADERS", "a=1"},
                                        {"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"},
                                        {"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"},
                                        {"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"}});
  EXPECT_EQ(options.target, "traces:2");
  EXPECT_EQ(options.timeout, absl::Milliseconds(200));
  EXPECT_THAT(options.headers, ElementsAre(Pair("b", "2")));
  EXPECT_FALSE(options.gzip);
}

TEST_F(OtlpOptionsTest, HeadersArePercentDecodedAndNeverShown) {
  EXPECT_THAT(
      Exporter({{"OTEL_EXPORTER_OTLP_HEADERS", " Authorization = Bearer%20a%2Cb= ,x=,,y=2"}})
          .headers,
      ElementsAre(Pair("authorization", "Bearer a,b="), Pair("x", ""), Pair("y", "2")));
  EXPECT_THAT(warnings_, IsEmpty());
  // What gRPC would refuse, or lose the call for.
  EXPECT_THAT(Exporter({{"OTEL_EXPORTER_OTLP_HEADERS",
                         "good=1,hidden,=hidden,a b=hidden,a=%zz,a-bin=hidden,grpc-x=hidden,"
                         "b=%0ahidden"}})
                  .headers,
              ElementsAre(Pair("good", "1")));
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr("OTEL_EXPORTER_OTLP_HEADERS: 7 pairs"),
                                           Not(HasSubstr("hidden")))));
}

TEST_F(OtlpOptionsTest, TimesAreInMillisecondsAndSizesInSpans) {
  const OtlpOptions options = Exporter({{"OTEL_EXPORTER_OTLP_TIMEOUT", "2500"},
                                        {"OTEL_BSP_SCHEDULE_DELAY", "0"},
                                        {"OTEL_BSP_EXPORT_TIMEOUT", "7000"},
                                        {"OTEL_BSP_MAX_QUEUE_SIZE", "100"},
                                        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50"},
                                        {"OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"}});
  EXPECT_EQ(options.timeout, absl::Milliseconds(2500));
  EXPECT_EQ(options.schedule_delay, absl::ZeroDuration());
  EXPECT_EQ(options.export_timeout, absl::Seconds(7));
  EXPECT_EQ(options.max_queue_spans, 100u);
  EXPECT_EQ(options.max_batch_spans, 50u);
  EXPECT_TRUE(options.gzip);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(OtlpOptionsTest, WhatCannotBeReadIsTheDefaultAndOneWarning) {
  const OtlpOptions defaults = Exporter({});
  for (const char* name :
       {"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT",
        "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_TRACES_EXPORTER"}) {
    for (const char* value : {"-1", "10s", "1e3", "99999999999999999999", "deflate", "\x1b[1m"}) {
      const OtlpOptions options = Exporter({{name, value}});
      EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(name), Not(HasSubstr("\x1b"))))) << value;
      EXPECT_EQ(options.timeout, defaults.timeout);
      EXPECT_EQ(options.schedule_delay, defaults.schedule_delay);
      EXPECT_EQ(options.export_timeout, defaults.export_timeout);
      EXPECT_EQ(options.max_queue_spans, defaults.max_queue_spans);
      EXPECT_EQ(options.max_batch_spans, defaults.max_batch_spans);
      EXPECT_FALSE(options.gzip);
    }
  }
  for (const char* name : {"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT",
                           "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"}) {
    Exporter({{name, "0"}});
    EXPECT_THAT(warnings_, ElementsAre(HasSubstr(name)));
  }
}

TEST_F(OtlpOptionsTest, ABatchIsNoLargerThanTheQueue) {
  EXPECT_EQ(Exporter({{"OTEL_BSP_MAX_QUEUE_SIZE", "100"}}).max_batch_spans, 100u);
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_EQ(
      Exporter({{"OTEL_BSP_MAX_QUEUE_SIZE", "100"}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "200"}})
          .max_batch_spans,
      100u);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")));
}

TEST_F(OtlpOptionsTest, OtherProtocolsAreErrors) {
  EXPECT_EQ(Exporter({{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}}).target, "collector:4317");
  EXPECT_THAT(
      Refusal({{kEndpoint, "http://c:1"}, {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}}),
      AllOf(HasSubstr("OTEL_EXPORTER_OTLP_PROTOCOL"), HasSubstr("http/protobuf"),
            HasSubstr("set it to grpc")));
  EXPECT_THAT(Refusal({{kEndpoint, "http://c:1"},
                       {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
                       {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"}}),
              HasSubstr("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"));
}

TEST_F(OtlpOptionsTest, FilesThatCannotBeUsedAreErrors) {
  const Variables tls = {{kEndpoint, "https://c:1"}};
  for (const char* suffix : {"CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"}) {
    const std::string name = std::string("OTEL_EXPORTER_OTLP_") + suffix;
    Variables variables = tls;
    variables[name] = "/nowhere/at/all";
    EXPECT_THAT(Refusal(variables), AllOf(HasSubstr(name), HasSubstr("/nowhere/at/all")));
    const std::string file = testing::TempDir() + "/otlp_options_test_no_pem";
    std::ofstream(file) << "no PEM";
    variables[name] = file;
    EXPECT_THAT(Refusal(variables), HasSubstr("cannot be used"));
    // Without encryption they are not even read.
    variables[name] = "/nowhere/at/all";
    variables[kEndpoint] = "http://c:1";
    EXPECT_TRUE(Read(variables).ok());
    EXPECT_THAT(warnings_, ElementsAre(HasSubstr(name)));
  }
}

TEST_F(OtlpOptionsTest, Samplers) {
  const struct {
    const char* name;
    const char* argument;
    double ratio;
    bool parent_based;
  } kCases[] = {
      {"always_on", "0.5", 1, false},
      {"always_off", "", 0, false},
      {"traceidratio", "0.25", 0.25, false},
      {"traceidratio", "", 1, false},
      {"parentbased_always_on", "", 1, true},
      {"parentbased_always_off", "", 0, true},
      {"parentbased_traceidratio", "0.01", 0.01, true},
      {"parentbased_traceidratio", "0", 0, true},
      {"PARENTBASED_TRACEIDRATIO", "1", 1, true},
  };
  for (const auto& one : kCases) {
    const SamplerOptions sampler = Sampler(one.name, one.argument);
    EXPECT_EQ(sampler.ratio, one.ratio) << one.name << one.argument;
    EXPECT_EQ(sampler.parent_based, one.parent_based) << one.name;
    EXPECT_THAT(warnings_, IsEmpty());
  }
}

TEST_F(OtlpOptionsTest, SamplersThatCannotBeReadKeepAll) {
  const SamplerOptions unknown = Sampler("jaeger_remote", "0.1");
  EXPECT_EQ(unknown.ratio, 1);
  EXPECT_TRUE(unknown.parent_based);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("OTEL_TRACES_SAMPLER: \"jaeger_remote\"")));
  for (const char* argument : {"1.5", "-0.1", "nan", "half"}) {
    EXPECT_EQ(Sampler("traceidratio", argument).ratio, 1);
    EXPECT_THAT(warnings_, ElementsAre(HasSubstr("OTEL_TRACES_SAMPLER_ARG"))) << argument;
  }
}

TEST(EnvironmentVariableTest, ReadsTheProcess) {
  ASSERT_EQ(setenv("EXPERTMESH_OTLP_OPTIONS_TEST", "value", 1), 0);
  EXPECT_EQ(EnvironmentVariable("EXPERTMESH_OTLP_OPTIONS_TEST"), "value");
  EXPECT_EQ(EnvironmentVariable("EXPERTMESH_OTLP_OPTIONS_TEST_UNSET"), "");
}

}  // namespace
}  // namespace expertmesh::otlp
