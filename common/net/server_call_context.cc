#include <grpc/grpc.h>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/net/grpc_status.h"
#include "common/net/server_calls.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

absl::Time DeadlineOf(const grpc::ServerContext& rpc) {
  const gpr_timespec deadline = gpr_convert_clock_type(rpc.raw_deadline(), GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) {
    return absl::InfiniteFuture();
  }
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  return Clock::Real()->Now() + absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

// All values of `key`, joined as HTTP joins headers.
std::string MetadataOf(const grpc::ServerContext& rpc, const char* key) {
  const auto& metadata = rpc.client_metadata();
  std::string joined;
  const auto [begin, end] = metadata.equal_range(key);
  for (auto it = begin; it != end; ++it) {
    joined.append(it == begin ? "" : ",").append(it->second.data(), it->second.size());
  }
  return joined;
}

}  // namespace

std::shared_ptr<CallContext> MakeCallContext(const grpc::ServerContext& rpc, bool streamed) {
  return std::make_shared<CallContext>(CallContext::Caller{
      .deadline = DeadlineOf(rpc),
      .peer = rpc.peer(),
      .traceparent = MetadataOf(rpc, "traceparent"),
      .tracestate = MetadataOf(rpc, "tracestate"),
      .streamed = streamed,
  });
}

absl::Status CheckMetadata(const grpc::ServerContext& rpc, size_t max_bytes) {
  constexpr size_t kPerField = 32;  // As HTTP/2 counts (RFC 9113, 6.5.2).
  size_t bytes = 0;
  for (const auto& [name, value] : rpc.client_metadata()) {
    bytes += name.size() + value.size() + kPerField;
  }
  if (bytes > max_bytes) {
    return ErrorOf(
        v1::ERROR_REASON_METADATA_TOO_LARGE,
        absl::StrCat("the call has ", bytes, " bytes of metadata, the limit is ", max_bytes,
                     "; send less, or start the server with a larger --max-metadata-bytes"),
        {{"bytes", absl::StrCat(bytes)}, {"limit", absl::StrCat(max_bytes)}});
  }
  return absl::OkStatus();
}

void NoteReset(const CallContext& context, ResetGuard* resets) {
  constexpr absl::Duration kAbout = absl::Milliseconds(20);
  if (context.deadline() - Clock::Real()->Now() > kAbout) {
    resets->OnReset(context.peer());
  }
}

absl::Status DeadlinePassed() {
  return ErrorOf(
      v1::ERROR_REASON_DEADLINE_PASSED,
      "the deadline of the call passed before it was answered; allow more time, or ask for less");
}

absl::Status StreamAged() {
  return ErrorOf(
      v1::ERROR_REASON_STREAM_AGED,
      "the stream is as old as --max-connection-age allows; open another, and send there "
      "what has no answer");
}

absl::Status AnswersUnread(size_t bytes, size_t limit) {
  return ErrorOf(v1::ERROR_REASON_ANSWERS_UNREAD,
                 absl::StrCat("the client has left ", bytes,
                              " bytes of answers unread; read faster or have fewer requests in "
                              "flight"),
                 {{"limit", absl::StrCat(limit)}});
}

absl::Status FrameTooLarge(size_t bytes, size_t limit) {
  return absl::InvalidArgumentError(
      absl::StrCat("the frame has ", bytes, " bytes, the limit is ", limit, "; send less"));
}

void CancelCall(const absl::Status& why, grpc::ServerContext* rpc) {
  const grpc::Status status = ToGrpc(why);
  grpc_call_cancel_with_status(rpc->c_call(), static_cast<grpc_status_code>(status.error_code()),
                               status.error_message().c_str(), nullptr);
}

absl::Status ShuttingDown() {
  return ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING, "the server is shutting down; call another one");
}

}  // namespace expertmesh::net
