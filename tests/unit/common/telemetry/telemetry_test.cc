#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <string>

#include "common/telemetry/exposition.h"
#include "common/telemetry/grpc_server_metrics.h"
#include "common/telemetry/logging.h"
#include "common/telemetry/metrics.h"
#include "tests/unit/common/telemetry/http_get.h"

namespace expertmesh::telemetry {
namespace {

using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

TEST(MetricsServerTest, ServesTheRegistryAndTheProcess) {
  auto registry = std::make_shared<prometheus::Registry>();
  RegisterProcessMetrics("test", {"1.2.3", "0123abcd", "Release"}, *registry);
  const auto server = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string answer = Get((*server)->port(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("expertmesh_build_info{build_type=\"Release\",commit=\"0123abcd\","
                                "process=\"test\",version=\"1.2.3\"} 1"));
  EXPECT_THAT(answer, HasSubstr("expertmesh_process_resident_bytes "));
}

TEST(MetricsServerTest, SpeaksTheFormatThatIsAskedFor) {
  const auto server = MetricsServer::Start("127.0.0.1:0", std::make_shared<prometheus::Registry>());
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string text = Get((*server)->port(), "/metrics");
  EXPECT_THAT(text, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(text, HasSubstr("Vary: Accept\r\n"));
  EXPECT_THAT(text, Not(HasSubstr("# EOF")));
  const std::string open_metrics =
      Get((*server)->port(), "/metrics", "Accept: application/openmetrics-text\r\n");
  EXPECT_THAT(
      open_metrics,
      HasSubstr("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
  EXPECT_THAT(open_metrics, EndsWith("# EOF\n"));
}

TEST(MetricsServerTest, ServesWhatWasAddedWithItsExemplars) {
  constexpr HistogramInfo kWait = {"expertmesh_test_wait_seconds", "", "Waits"};
  const auto more = std::make_shared<prometheus::Registry>();
  Exemplars exemplars;
  RegisterTracedHistogram(*more, &exemplars, kWait, {1})
      .Observe(absl::Seconds(2), {{1, 2}, 3}, absl::FromUnixSeconds(4));
  const auto server = MetricsServer::Start("127.0.0.1:0", std::make_shared<prometheus::Registry>());
  ASSERT_TRUE(server.ok()) << server.status();
  (*server)->Add(more);
  (*server)->AddExemplars(&exemplars);
  EXPECT_THAT(Get((*server)->port(), "/metrics", "Accept: application/openmetrics-text\r\n"),
              HasSubstr("_bucket{le=\"+Inf\"} 1 # {trace_id="));
}

TEST(MetricsServerTest, APortInUseIsAnErrorThatNamesTheAddress) {
  auto registry = std::make_shared<prometheus::Registry>();
  const auto first = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(first.ok());
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = MetricsServer::Start(address, registry);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

TEST(MetricsServerTest, AnAddressThatMakesNoSenseIsRefused) {
  for (const char* address :
       {"", "9464", ":9464", "localhost:", "localhost:x", "localhost:70000"}) {
    EXPECT_EQ(
        MetricsServer::Start(address, std::make_shared<prometheus::Registry>()).status().code(),
        absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(LoggingTest, KnowsItsLevels) {
  EXPECT_TRUE(InitLogging("test", "warning").ok());
  EXPECT_TRUE(InitLogging("test", "off").ok());
  const absl::Status status = InitLogging("test", "loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("loud"));
}

TEST(LoggingTest, JsonIsOneObjectInEachLine) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(InitLogging("test", "info", "json").ok());
  {
    const LogTrace trace({{0x0123456789abcdef, 0xfedcba9876543210}, 0xab});
    spdlog::warn("a \"quote\",\na \\ and \x01\xff");
  }
  ReportFailure("test", absl::UnavailableError("no port"));
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, ContainsRegex("\"ts\":\"20..-..-..T..:..:..\\....Z\",\"level\":\"warning\","));
  EXPECT_THAT(lines,
              HasSubstr("\"process\":\"test\",\"message\":\"a \\\"quote\\\",\\na \\\\ and "
                        "\\u0001\xef\xbf\xbd\",\"trace_id\":\"0123456789abcdeffedcba9876543210\","
                        "\"span_id\":\"00000000000000ab\"}\n"));
  // After the trace.
  EXPECT_THAT(lines, EndsWith("\"level\":\"critical\",\"process\":\"test\","
                              "\"message\":\"no port\"}\n"));
  EXPECT_EQ(InitLogging("test", "info", "xml").code(), absl::StatusCode::kInvalidArgument);
}

TEST(LoggingTest, TextNamesTheTraceAtTheEndOfItsLines) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(InitLogging("test", "info").ok());
  {
    const LogTrace trace({{0x0123456789abcdef, 0xfedcba9876543210}, 0xab});
    spdlog::warn("inside");
  }
  spdlog::warn("outside");
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, ContainsRegex("\n20..-..-..T..:..:..\\....Z warning test: inside "
                                   "trace=0123456789abcdeffedcba9876543210\n"));
  EXPECT_THAT(lines, EndsWith(" warning test: outside\n"));
}

TEST(GrpcServerMetricsTest, CountsByMethodAndCode) {
  prometheus::Registry registry;
  GrpcServerMetrics calls(registry);
  MethodCounter* const forward = calls.Method("/a.v1.Router/Forward", /*streams=*/false);
  EXPECT_EQ(calls.Method("/a.v1.Router/Forward", false), forward);
  forward->Started();
  forward->Started();
  forward->Handled(absl::StatusCode::kOk, absl::Milliseconds(3));
  forward->Handled(absl::StatusCode::kCancelled, absl::Seconds(1));
  forward->Handled(static_cast<absl::StatusCode>(99), absl::Seconds(1));
  const std::string text = Expose(registry.Collect(), Exposition::kText);
  const std::string method =
      "grpc_method=\"Forward\",grpc_service=\"a.v1.Router\",grpc_type=\"unary\"";
  EXPECT_THAT(text, HasSubstr("grpc_server_started_total{" + method + "} 2\n"));
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\"," + method + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("{grpc_code=\"Canceled\"," + method + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("{grpc_code=\"Unknown\"," + method + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("grpc_server_handling_seconds_count{" + method + "} 3\n"));
}

TEST(BucketsTest, AreAscending) {
  for (const auto& buckets :
       {DurationBuckets(), RowBuckets(), LoadBuckets(), RelativeErrorBuckets()}) {
    EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
  }
}

}  // namespace
}  // namespace expertmesh::telemetry
