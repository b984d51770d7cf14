// Every knob of gRPC that Expertmesh turns, for both sides, in one place.
#ifndef EXPERTMESH_COMMON_NET_GRPC_OPTIONS_H_
#define EXPERTMESH_COMMON_NET_GRPC_OPTIONS_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/net/tls_options.h"

namespace expertmesh::net {

// Defaults fit a mesh inside one data centre. Times are rounded to milliseconds.
struct GrpcOptions {
  // Largest message accepted and sent, in bytes. A larger one fails its own RPC.
  size_t max_message_bytes = size_t{64} << 20;
  // Server: most metadata of one call, in bytes: names, values, and 32 for each pair. More fails
  // the call that has it. More than kMetadataLimitFactor times as much ends the connection: gRPC
  // 1.51 can refuse metadata in no other way.
  size_t max_metadata_bytes = size_t{64} << 10;
  // HTTP/2 pings, so that a peer that vanished without a word is noticed, also without calls.
  absl::Duration keepalive_time = absl::Seconds(10);
  absl::Duration keepalive_timeout = absl::Seconds(5);
  // Server: pings that come faster are answered by closing the connection; must be less than the
  // clients' keepalive_time.
  absl::Duration min_ping_interval = absl::Seconds(5);
  // Server: how old a connection may get, about (a tenth more or less), so that clients spread over
  // servers that were added. Then it takes no more calls and ends after the last one; a stream of
  // this age ends once what it was asked is answered, with STREAM_AGED. Infinite: any age.
  absl::Duration max_connection_age = absl::InfiniteDuration();
  // Server: connections open at once; more are closed as they come.
  size_t max_connections = 4096;
  // Client: pauses between attempts to connect grow from the first to the last.
  absl::Duration reconnect_initial = absl::Milliseconds(100);
  absl::Duration reconnect_max = absl::Seconds(1);
  // Client: longest time one attempt to connect may take.
  absl::Duration connect_timeout = absl::Seconds(2);
  // Client: whether http_proxy and the like in the environment count.
  bool use_proxy = false;
  // Client: stands before what gRPC says of itself in "user-agent"; empty: nothing does.
  std::string user_agent{};
  // Client: unset: no encryption. CheckTlsOptions() must have passed.
  std::optional<TlsOptions> tls;
};

// How much more metadata gRPC itself accepts than GrpcOptions::max_metadata_bytes.
inline constexpr size_t kMetadataLimitFactor = 16;

// A channel of its own: never shares a connection with another channel, so that large frames on one
// do not hold up the other. Connects on first use. `target` is what gRPC takes: host:port,
// dns:///name:port or unix:/path.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target, const GrpcOptions& options);

// Sets the server's share of `options`, but for what its listener does (listener.h). gRPC
// does not end calls at their deadline, which is left to the server: in gRPC 1.51 it would end each
// with two sets of trailers, for which a strict client closes the connection.
void ApplyOptions(const GrpcOptions& options, grpc::ServerBuilder* builder);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_OPTIONS_H_
