#include "common/base/clock.h"
#include "common/net/server_calls.h"

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

std::string MetadataOf(const grpc::ServerContext& rpc, const char* key) {
  const auto& metadata = rpc.client_metadata();
  const auto it = metadata.find(key);
  return it == metadata.end() ? std::string() : std::string(it->second.data(), it->second.size());
}

}  // namespace

std::shared_ptr<CallContext> MakeCallContext(const grpc::ServerContext& rpc) {
  return std::make_shared<CallContext>(CallContext::Caller{
      .deadline = DeadlineOf(rpc),
      .peer = rpc.peer(),
      .traceparent = MetadataOf(rpc, "traceparent"),
      .tracestate = MetadataOf(rpc, "tracestate"),
  });
}

}  // namespace expertmesh::net
