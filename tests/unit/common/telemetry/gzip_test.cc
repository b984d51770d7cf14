#include "common/telemetry/gzip.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/unit/common/telemetry/gunzip.h"

namespace expertmesh::telemetry {
namespace {

TEST(GzipTest, WhatIsReadIsWhatWasWritten) {
  std::mt19937 random(7);
  std::string noise(300'000, '\0');
  for (char& c : noise) {
    c = static_cast<char>(random());
  }
  std::string metrics;
  for (int i = 0; i < 2000; ++i) {
    metrics += "expertmesh_router_requests_total{code=\"OK\"} " + std::to_string(i) + "\n";
  }
  for (const std::string& text : {std::string(), std::string("a"), noise, metrics}) {
    const std::optional<std::string> bytes = Gzip(text);
    ASSERT_TRUE(bytes.has_value());
    EXPECT_EQ(Gunzip(*bytes), text);
  }
  EXPECT_LT(Gzip(metrics)->size(), metrics.size() / 5);
}

TEST(GzipTest, IsSentToThoseWhoSayThatTheyReadIt) {
  for (const char* accepts :
       {"gzip", "GZIP", "x-gzip", "deflate, gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1",
        "gzip ; Q=0.001", "*", "identity, *;q=0.5", "gzip;q=1;x=0"}) {
    EXPECT_TRUE(AcceptsGzip(accepts)) << accepts;
  }
  for (const char* refuses : {"", "identity", "gzip;q=0", "gzip; q=0.000", "deflate, gzip;q=0, *",
                              "*;q=0", "gzipped", "br", "gzip;q=", "gzip;q=x", ","}) {
    EXPECT_FALSE(AcceptsGzip(refuses)) << refuses;
  }
}

}  // namespace
}  // namespace expertmesh::telemetry
