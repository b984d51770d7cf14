#include "common/base/peer_text.h"
#include "common/wire/error_reason.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/wire/error_details.pb.h"
#include "common/wire/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace expertmesh {
namespace {

namespace details = internal::rpc;

constexpr absl::string_view kDomain = "expertmesh.v1";
constexpr absl::string_view kPrefix = "ERROR_REASON_";
constexpr size_t kLongestValue = 256;
constexpr size_t kLongestDescription = 512;

// The name of google.rpc's message in an Any.
template <typename Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/google.rpc.", Message::descriptor()->name());
}

template <typename Message>
void SetDetail(const Message& message, absl::Status* status) {
  // Fields in order and maps sorted: the same error has the same bytes.
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  status->SetPayload(TypeUrl<Message>(), absl::Cord(std::move(bytes)));
}

// Nothing where there is none, or bytes that are none.
template <typename Message>
std::optional<Message> GetDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> bytes = status.GetPayload(TypeUrl<Message>());
  Message message;
  if (!bytes.has_value() || !message.ParseFromString(std::string(*bytes))) {
    return std::nullopt;
  }
  return message;
}

// Sets what all errors of `reason` have, beside their code.
void SetReason(v1::ErrorReason reason, const ErrorMetadata& metadata, absl::Status* status) {
  details::ErrorInfo info;
  info.set_reason(NameOf(reason));
  info.set_domain(std::string(kDomain));
  for (const auto& [key, value] : metadata) {
    (*info.mutable_metadata())[key] = std::string(CutText(value, kLongestValue));
  }
  SetDetail(info, status);
  if (const uint32_t delay_ms = PolicyOf(reason).delay_ms(); delay_ms > 0) {
    *status = WithRetryDelay(std::move(*status), absl::Milliseconds(delay_ms));
  }
}

// For errors that were made where reasons mean nothing, by a node's backend, say.
v1::ErrorReason ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return v1::ERROR_REASON_INVALID_FIELD;
    case absl::StatusCode::kDeadlineExceeded:
      return v1::ERROR_REASON_DEADLINE_PASSED;
    case absl::StatusCode::kResourceExhausted:
      return v1::ERROR_REASON_QUEUE_FULL;
    case absl::StatusCode::kUnavailable:
      return v1::ERROR_REASON_NODES_LOST;
    default:
      return v1::ERROR_REASON_DEFECT;
  }
}

}  // namespace

std::string NameOf(v1::ErrorReason reason) {
  return std::string(absl::StripPrefix(v1::ErrorReason_Name(reason), kPrefix));
}

const v1::ErrorPolicy& PolicyOf(v1::ErrorReason reason) {
  const google::protobuf::EnumValueDescriptor* value =
      v1::ErrorReason_descriptor()->FindValueByNumber(reason);
  return value == nullptr ? v1::ErrorPolicy::default_instance()
                          : value->options().GetExtension(v1::policy);
}

absl::Status ErrorOf(v1::ErrorReason reason, absl::string_view message,
                     const ErrorMetadata& metadata) {
  absl::Status status(static_cast<absl::StatusCode>(PolicyOf(reason).code()), message);
  SetReason(reason, metadata, &status);
  return status;
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  details::RetryInfo retry;
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  SetDetail(retry, &status);
  return status;
}

absl::Status AnswerTooLarge(uint64_t bytes, uint64_t limit) {
  return ErrorOf(v1::ERROR_REASON_ANSWER_TOO_LARGE,
                 absl::StrCat("the answer has ", bytes, " bytes, the limit is ", limit,
                              "; send fewer tokens, or raise the limit"),
                 {{"bytes", absl::StrCat(bytes)}, {"limit", absl::StrCat(limit)}});
}

absl::Status WithReason(absl::Status status) {
  if (!status.ok() && !GetDetail<details::ErrorInfo>(status).has_value()) {
    SetReason(ReasonOfCode(status.code()), {}, &status);
  }
  return status;
}

absl::Status WithFieldViolation(const absl::Status& status) {
  absl::string_view path = status.message();
  path = path.substr(0, path.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_."));
  absl::Status result = status;
  SetReason(v1::ERROR_REASON_INVALID_FIELD, {}, &result);
  details::BadRequest bad;
  details::BadRequest::FieldViolation& violation = *bad.add_field_violations();
  violation.set_field(std::string(path));
  violation.set_description(std::string(CutText(status.message(), kLongestDescription)));
  SetDetail(bad, &result);
  return result;
}

v1::ErrorReason ReasonOf(const absl::Status& status) {
  const std::optional<details::ErrorInfo> info = GetDetail<details::ErrorInfo>(status);
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  if (info.has_value() && info->domain() == kDomain) {
    v1::ErrorReason_Parse(absl::StrCat(kPrefix, info->reason()), &reason);
  }
  return reason;
}

ErrorDetails DetailsOf(const absl::Status& status) {
  ErrorDetails result;
  if (const auto info = GetDetail<details::ErrorInfo>(status)) {
    result.reason = info->reason();
    result.metadata.insert(info->metadata().begin(), info->metadata().end());
  }
  if (const auto retry = GetDetail<details::RetryInfo>(status)) {
    result.retry_delay = absl::Seconds(retry->retry_delay().seconds()) +
                         absl::Nanoseconds(retry->retry_delay().nanos());
  }
  if (const auto bad = GetDetail<details::BadRequest>(status)) {
    for (const auto& violation : bad->field_violations()) {
      result.field_violations.emplace_back(violation.field(), violation.description());
    }
  }
  return result;
}

}  // namespace expertmesh
