// Errors that programs can read: each has a reason of the contract (expertmesh/v1/errors.proto), and
// through it a code and whether to try again. The details are payloads of the absl::Status, under
// the names of google.rpc's messages; status.h and common/net/grpc_status.h carry them over.
#ifndef EXPERTMESH_COMMON_WIRE_ERROR_REASON_H_
#define EXPERTMESH_COMMON_WIRE_ERROR_REASON_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "expertmesh/v1/errors.pb.h"

namespace expertmesh {

// The keys that the reason names. Values are cut to 256 bytes: trailers have little room.
using ErrorMetadata = std::vector<std::pair<std::string, std::string>>;

// An error with the code, ErrorInfo and RetryInfo that `reason` has.
absl::Status ErrorOf(v1::ErrorReason reason, absl::string_view message,
                     const ErrorMetadata& metadata = {});

// `status`, with this RetryInfo in place of the one that its reason has.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// ANSWER_TOO_LARGE, of `bytes` where `limit` are accepted.
absl::Status AnswerTooLarge(uint64_t bytes, uint64_t limit);

// `status`, an error, with a reason: its own if it has one, else the one that its code suggests. For
// the door: what leaves a router always has one.
absl::Status WithReason(absl::Status status);

// `status`, of INVALID_ARGUMENT, whose message begins with the path of a field as all of them do:
// INVALID_FIELD, with a BadRequest that names the field.
absl::Status WithFieldViolation(const absl::Status& status);

// UNSPECIFIED where there is none, or one that this program does not know.
v1::ErrorReason ReasonOf(const absl::Status& status);

// The name that a reason has in ErrorInfo: "QUEUE_FULL".
std::string NameOf(v1::ErrorReason reason);

const v1::ErrorPolicy& PolicyOf(v1::ErrorReason reason);

// What an error carries, of this system or of another. Empty where it carries nothing.
struct ErrorDetails {
  std::string reason;
  std::map<std::string, std::string> metadata;
  // Zero: not told.
  absl::Duration retry_delay;
  // Path of the field, and what is wrong with it.
  std::vector<std::pair<std::string, std::string>> field_violations;
};
ErrorDetails DetailsOf(const absl::Status& status);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_ERROR_REASON_H_
