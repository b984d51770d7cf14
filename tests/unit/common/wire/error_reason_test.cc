#include "common/wire/error_reason.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_context.h"
#include "common/wire/status.h"

namespace expertmesh {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

TEST(ErrorReasonTest, EveryReasonHasACodeAndSaysWhetherToTryAgain) {
  const google::protobuf::EnumDescriptor* all = v1::ErrorReason_descriptor();
  for (int i = 0; i < all->value_count(); ++i) {
    const auto reason = static_cast<v1::ErrorReason>(all->value(i)->number());
    const v1::ErrorPolicy& policy = PolicyOf(reason);
    EXPECT_GE(policy.code(), 1) << NameOf(reason);
    EXPECT_LE(policy.code(), 16) << NameOf(reason);
    EXPECT_NE(policy.retry(), v1::RETRY_UNSPECIFIED) << NameOf(reason);
    EXPECT_EQ(policy.delay_ms() > 0, policy.retry() == v1::RETRY_LATER) << NameOf(reason);
  }
}

TEST(ErrorReasonTest, AnErrorCarriesItsReasonOnEveryWay) {
  const absl::Status error = ErrorOf(v1::ERROR_REASON_EXPERTS_MISSING, "experts 3, 5 are nowhere",
                                     {{"layer", "7"}, {"experts", "3,5"}});
  EXPECT_EQ(error.code(), absl::StatusCode::kUnavailable);
  for (const absl::Status& received :
       {error, FromWire(ToWire(error)), WithContext("node 1", error), WithReason(error)}) {
    EXPECT_EQ(ReasonOf(received), v1::ERROR_REASON_EXPERTS_MISSING);
    const ErrorDetails details = DetailsOf(received);
    EXPECT_EQ(details.reason, "EXPERTS_MISSING");
    EXPECT_THAT(details.metadata, UnorderedElementsAre(Pair("layer", "7"), Pair("experts", "3,5")));
    EXPECT_EQ(details.retry_delay, absl::Milliseconds(200));
  }
}

TEST(ErrorReasonTest, TheSameErrorHasTheSameBytes) {
  const auto bytes = [] {
    return ToWire(
               ErrorOf(v1::ERROR_REASON_QUEUE_FULL, "full", {{"a", "1"}, {"b", "2"}, {"c", "3"}}))
        .SerializeAsString();
  };
  const std::string once = bytes();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(bytes(), once);
  }
}

TEST(ErrorReasonTest, DetailsAreNamedAsGooglesLibrariesLookForThem) {
  const v1::RequestStatus status =
      ToWire(WithFieldViolation(absl::InvalidArgumentError("hidden_states.shape is [3]")));
  std::set<std::string> urls;
  for (const auto& detail : status.details()) {
    urls.insert(detail.type_url());
  }
  EXPECT_THAT(urls, UnorderedElementsAre("type.googleapis.com/google.rpc.ErrorInfo",
                                         "type.googleapis.com/google.rpc.BadRequest"));
}

TEST(ErrorReasonTest, ABadRequestNamesTheFieldThatItsMessageBeginsWith) {
  for (const auto& [message, field] : std::vector<std::pair<std::string, std::string>>{
           {"hidden_states.shape is [3]", "hidden_states.shape"},
           {"layer is 9; use 1", "layer"},
           {"group_sizes add up to 3", "group_sizes"},
           {"ForwardRequest: malformed", ""}}) {
    const ErrorDetails details = DetailsOf(WithFieldViolation(absl::InvalidArgumentError(message)));
    EXPECT_EQ(details.reason, "INVALID_FIELD");
    EXPECT_THAT(details.field_violations, ElementsAre(Pair(field, message)));
  }
}

TEST(ErrorReasonTest, AtTheDoorEveryErrorHasAReasonOfItsCode) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status error = WithReason(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_NE(ReasonOf(error), v1::ERROR_REASON_UNSPECIFIED) << error;
    if (ReasonOf(error) != v1::ERROR_REASON_DEFECT) {
      EXPECT_EQ(PolicyOf(ReasonOf(error)).code(), code);
    }
  }
  EXPECT_TRUE(WithReason(absl::OkStatus()).ok());
}

TEST(ErrorReasonTest, WhatIsUnknownOrBrokenHasNoReason) {
  absl::Status foreign = absl::UnavailableError("why");
  EXPECT_EQ(ReasonOf(foreign), v1::ERROR_REASON_UNSPECIFIED);
  foreign.SetPayload("type.googleapis.com/google.rpc.ErrorInfo", absl::Cord("\xff\xff"));
  EXPECT_EQ(ReasonOf(foreign), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(DetailsOf(foreign).reason, "");
  // Another system's reason of the same name.
  foreign.SetPayload("type.googleapis.com/google.rpc.ErrorInfo",
                     absl::Cord("\x0a\x0aQUEUE_FULL\x12\x05other"));
  EXPECT_EQ(DetailsOf(foreign).reason, "QUEUE_FULL");
  EXPECT_EQ(ReasonOf(foreign), v1::ERROR_REASON_UNSPECIFIED);
}

}  // namespace
}  // namespace expertmesh
