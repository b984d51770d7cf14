// The protocol's table, code by code.
#include "common/otlp/retry.h"

#include <optional>

#include "common/wire/error_reason.h"
#include "gtest/gtest.h"

namespace expertmesh::otlp {
namespace {

using absl::StatusCode;

TEST(RetryTest, WhatTheProtocolLetsBeSentAgain) {
  for (int code = 1; code <= 16; ++code) {
    const bool again =
        code == 1 || code == 4 || code == 10 || code == 11 || code == 14 || code == 15;
    EXPECT_EQ(RetryDelayOf(absl::Status(static_cast<StatusCode>(code), "")).has_value(), again)
        << code;
  }
}

TEST(RetryTest, TheDelayThatIsAskedFor) {
  for (const StatusCode code : {StatusCode::kResourceExhausted, StatusCode::kUnavailable}) {
    const auto delay = [code](absl::Duration asked) {
      return RetryDelayOf(WithRetryDelay(absl::Status(code, ""), asked));
    };
    EXPECT_EQ(delay(absl::Milliseconds(1500)), absl::Milliseconds(1500));
    EXPECT_EQ(delay(absl::ZeroDuration()), absl::ZeroDuration());
    EXPECT_EQ(delay(absl::Seconds(-3)), absl::ZeroDuration());
    EXPECT_EQ(delay(absl::Hours(100)), kMostRetryDelay);
  }
  EXPECT_EQ(RetryDelayOf(absl::UnavailableError("")), absl::ZeroDuration());
  EXPECT_EQ(RetryDelayOf(WithRetryDelay(absl::InternalError(""), absl::Seconds(1))), std::nullopt);
}

TEST(RetryTest, PausesGrowAndDifferAndEnd) {
  Backoff backoff;
  for (int round = 0; round < 3; ++round) {
    absl::Duration most = Backoff::kFirst;
    for (int i = 0; i < 50; ++i) {
      const absl::Duration pause = backoff.Next();
      EXPECT_GE(pause, most / 2);
      EXPECT_LE(pause, most);
      most = std::min(2 * most, Backoff::kMost);
    }
    EXPECT_EQ(most, Backoff::kMost);
    backoff.Reset();
  }
  Backoff other;
  EXPECT_NE(backoff.Next(), other.Next());
}

}  // namespace
}  // namespace expertmesh::otlp
