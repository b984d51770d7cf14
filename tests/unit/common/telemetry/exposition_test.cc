#include "common/telemetry/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <limits>
#include <string>

#include "common/telemetry/metrics.h"

namespace expertmesh::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr CounterInfo kCalls = {"expertmesh_test_calls_total", "who", "Calls"};
constexpr CounterInfo kBusySeconds = {"expertmesh_test_busy_seconds_total", "", "Busy"};
constexpr GaugeInfo kLevel = {"expertmesh_test_level", "", "Level"};
constexpr HistogramInfo kWaitSeconds = {"expertmesh_test_wait_seconds", "", "Waits"};

std::string Text(const prometheus::Registry& registry) {
  return Expose(registry.Collect(), Exposition::kText);
}
std::string OpenMetrics(const prometheus::Registry& registry,
                        const Exemplars* exemplars = nullptr) {
  return Expose(registry.Collect(), Exposition::kOpenMetrics,
                exemplars == nullptr ? std::vector<const Exemplars*>()
                                     : std::vector<const Exemplars*>{exemplars});
}

TEST(ExpositionTest, WritesBothFormats) {
  prometheus::Registry registry;
  RegisterCounters(registry, kCalls).Add({{"who", "me"}}).Increment(3);
  RegisterCounter(registry, kBusySeconds).Increment(0.25);
  RegisterGauge(registry, kLevel).Set(-0.0001);
  const Histogram waits = RegisterHistogram(registry, kWaitSeconds, {0.00001, 0.0001, 1, 10});
  waits.Observe(0.0001);
  waits.Observe(0.5);
  waits.Observe(20);
  EXPECT_EQ(Text(registry), R"(# HELP expertmesh_test_calls_total Calls
# TYPE expertmesh_test_calls_total counter
expertmesh_test_calls_total{who="me"} 3
# HELP expertmesh_test_busy_seconds_total Busy
# TYPE expertmesh_test_busy_seconds_total counter
expertmesh_test_busy_seconds_total 0.25
# HELP expertmesh_test_level Level
# TYPE expertmesh_test_level gauge
expertmesh_test_level -0.0001
# HELP expertmesh_test_wait_seconds Waits
# TYPE expertmesh_test_wait_seconds histogram
expertmesh_test_wait_seconds_bucket{le="1e-05"} 0
expertmesh_test_wait_seconds_bucket{le="0.0001"} 1
expertmesh_test_wait_seconds_bucket{le="1"} 2
expertmesh_test_wait_seconds_bucket{le="10"} 2
expertmesh_test_wait_seconds_bucket{le="+Inf"} 3
expertmesh_test_wait_seconds_sum 20.5001
expertmesh_test_wait_seconds_count 3
)");
  EXPECT_EQ(OpenMetrics(registry), R"(# HELP expertmesh_test_calls Calls
# TYPE expertmesh_test_calls counter
expertmesh_test_calls_total{who="me"} 3
# HELP expertmesh_test_busy_seconds Busy
# TYPE expertmesh_test_busy_seconds counter
# UNIT expertmesh_test_busy_seconds seconds
expertmesh_test_busy_seconds_total 0.25
# HELP expertmesh_test_level Level
# TYPE expertmesh_test_level gauge
expertmesh_test_level -0.0001
# HELP expertmesh_test_wait_seconds Waits
# TYPE expertmesh_test_wait_seconds histogram
# UNIT expertmesh_test_wait_seconds seconds
expertmesh_test_wait_seconds_bucket{le="1e-05"} 0
expertmesh_test_wait_seconds_bucket{le="0.0001"} 1
expertmesh_test_wait_seconds_bucket{le="1.0"} 2
expertmesh_test_wait_seconds_bucket{le="10.0"} 2
expertmesh_test_wait_seconds_bucket{le="+Inf"} 3
expertmesh_test_wait_seconds_sum 20.5001
expertmesh_test_wait_seconds_count 3
# EOF
)");
}

TEST(ExpositionTest, ATraceStandsAtTheBucketThatItsValueIsIn) {
  prometheus::Registry registry;
  Exemplars exemplars;
  const TracedHistogram waits =
      RegisterTracedHistogram(registry, &exemplars, kWaitSeconds, {0.001, 1});
  const absl::Time now = absl::FromUnixMillis(1520879607789);
  waits.Observe(absl::Milliseconds(500), {{1, 2}, 3}, now - absl::Seconds(1));
  waits.Observe(absl::Milliseconds(670), {{0x0123456789abcdef, 0xfedcba9876543210}, 0xab}, now);
  waits.Observe(absl::Seconds(2));
  const std::string text = OpenMetrics(registry, &exemplars);
  EXPECT_THAT(text, HasSubstr("_bucket{le=\"0.001\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("_bucket{le=\"1.0\"} 2 # {trace_id=\"0123456789abcdeffedcba9876543210\","
                        "span_id=\"00000000000000ab\"} 0.67 1520879607.789\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{le=\"+Inf\"} 3\n"));
  // The older format knows none.
  EXPECT_THAT(Expose(registry.Collect(), Exposition::kText, {&exemplars}),
              Not(HasSubstr("trace_id")));
}

TEST(ExpositionTest, ACounterHasAnExemplar) {
  prometheus::Registry registry;
  Exemplars exemplars;
  auto& family = RegisterCounters(registry, kCalls);
  family.Add({{"who", "me"}}).Increment();
  family.Add({{"who", "you"}}).Increment();
  exemplars.Add(kCalls.name, {{"who", "you"}}, {})->Put({{{1, 2}, 3}, 1, absl::FromUnixSeconds(5)});
  const std::string text = OpenMetrics(registry, &exemplars);
  EXPECT_THAT(text, HasSubstr("{who=\"me\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("{who=\"you\"} 1 # {trace_id=\"00000000000000010000000000000002\","
                              "span_id=\"0000000000000003\"} 1 5.000\n"));
}

TEST(ExpositionTest, WhatLabelsAndHelpHoldCanBeRead) {
  prometheus::Registry registry;
  const CounterInfo info = {"expertmesh_test_calls_total", "who", "Two\nlines, a \\ and a \"\xff"};
  RegisterCounters(registry, info).Add({{"who", "a\\b\"c\nd\xffz\xc3\xa9"}}).Increment();
  const std::string labels = "{who=\"a\\\\b\\\"c\\nd\xef\xbf\xbdz\xc3\xa9\"} 1\n";
  const std::string text = Text(registry);
  EXPECT_THAT(text, HasSubstr("total Two\\nlines, a \\\\ and a \"\xef\xbf\xbd\n"));
  EXPECT_THAT(text, HasSubstr(labels));
  const std::string open_metrics = OpenMetrics(registry);
  EXPECT_THAT(open_metrics, HasSubstr("calls Two\\nlines, a \\\\ and a \\\"\xef\xbf\xbd\n"));
  EXPECT_THAT(open_metrics, HasSubstr(labels));
}

TEST(ExpositionTest, ASeriesIsWrittenOnce) {
  prometheus::Registry one;
  prometheus::Registry other;
  RegisterCounters(one, kCalls).Add({{"who", "me\xff"}}).Increment(1);
  RegisterCounters(one, kCalls).Add({{"who", "me\xfe"}}).Increment(2);  // The same when cleaned.
  RegisterCounters(other, kCalls).Add({{"who", "me\xff"}}).Increment(4);
  RegisterCounters(other, kCalls).Add({{"who", "you"}}).Increment(8);
  RegisterGauge(other, kLevel).Set(16);
  std::vector<prometheus::MetricFamily> families = one.Collect();
  for (prometheus::MetricFamily& family : other.Collect()) {
    families.push_back(std::move(family));
  }
  const std::string text = Expose(families, Exposition::kText);
  const std::string head = "# TYPE expertmesh_test_calls_total counter\n";
  EXPECT_EQ(text.find(head), text.rfind(head)) << text;
  const std::string cleaned = "{who=\"me\xef\xbf\xbd\"}";
  EXPECT_NE(text.find(cleaned), std::string::npos) << text;
  EXPECT_EQ(text.find(cleaned), text.rfind(cleaned)) << text;
  EXPECT_THAT(text, HasSubstr("{who=\"you\"} 8\n# HELP expertmesh_test_level"));
}

TEST(ExpositionTest, NumbersThatAreNone) {
  prometheus::Registry registry;
  prometheus::Gauge& level = RegisterGauge(registry, kLevel);
  level.Set(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(Text(registry), HasSubstr("level NaN\n"));
  level.Set(-std::numeric_limits<double>::infinity());
  EXPECT_THAT(Text(registry), HasSubstr("level -Inf\n"));
  level.Set(12345678901234567890.0);
  EXPECT_THAT(Text(registry), HasSubstr("level 1.2345678901234567e+19\n"));
  level.Set(0.1 + 0.2);
  EXPECT_THAT(Text(registry), HasSubstr("level 0.30000000000000004\n"));
}

TEST(HistogramTest, AValueThatIsNotFiniteIsLeftOut) {
  prometheus::Registry registry;
  Exemplars exemplars;
  const Histogram waits = RegisterHistogram(registry, kWaitSeconds, {1});
  waits.Observe(std::numeric_limits<double>::quiet_NaN());
  waits.Observe(std::numeric_limits<double>::infinity());
  waits.Observe(absl::InfiniteDuration());
  waits.Observe(absl::Seconds(-1));  // A clock that was set back.
  EXPECT_THAT(Text(registry), HasSubstr("_sum 0\nexpertmesh_test_wait_seconds_count 1\n"));
}

TEST(ChooseExpositionTest, TakesWhatIsLikedBetter) {
  const struct {
    const char* accept;
    bool open_metrics;
  } cases[] = {
      {"", false},
      {"*/*", false},
      {"text/plain", false},
      {"application/openmetrics-text", true},
      {"application/openmetrics-text; version=1.0.0; charset=utf-8", true},
      {"Application/OpenMetrics-Text;version=\"1.0.0\"", true},
      {"application/openmetrics-text;version=2.0.0", false},
      {"application/openmetrics-text;version=0.0.1", false},
      {"application/openmetrics-text;q=0", false},
      {"application/openmetrics-text;q=nan", false},
      {"text/plain;version=0.0.4;q=1, application/openmetrics-text;q=0.5", false},
      {"text/plain;version=0.0.4;q=0.5, application/openmetrics-text;q=0.6", true},
      // What Prometheus 2.42 and 3 send.
      {"application/openmetrics-text;version=1.0.0,application/"
       "openmetrics-text;version=0.0.1;q=0.75,"
       "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
       true},
      {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
       "q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
       "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,"
       "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
       true},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(ChooseExposition(each.accept) == Exposition::kOpenMetrics, each.open_metrics)
        << each.accept;
  }
}

}  // namespace
}  // namespace expertmesh::telemetry
