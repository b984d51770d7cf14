#include "common/net/grpc_options.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <limits>

namespace expertmesh::net {
namespace {

int Millis(absl::Duration duration) {
  const int64_t millis = absl::ToInt64Milliseconds(duration);
  return static_cast<int>(std::clamp<int64_t>(millis, 1, std::numeric_limits<int>::max()));
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = tls->root_certificates;
  ssl.pem_private_key = tls->private_key;
  ssl.pem_cert_chain = tls->certificate_chain;
  return grpc::SslCredentials(ssl);
}

// Calls of one connection at once. A call waits for its turn before it is sent.
constexpr int kMostStreams = 1024;
// So soon must a new connection speak HTTP/2.
constexpr int kGreetingMillis = 10'000;

// A value of an argument.
int Bytes(size_t bytes) {
  return static_cast<int>(std::min<size_t>(bytes, std::numeric_limits<int>::max()));
}

// What gRPC itself accepts.
int MetadataBytes(const GrpcOptions& options) {
  constexpr size_t kMost = std::numeric_limits<int>::max() / kMetadataLimitFactor;
  return Bytes(std::min(options.max_metadata_bytes, kMost) * kMetadataLimitFactor);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target, const GrpcOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(Bytes(options.max_message_bytes));
  arguments.SetMaxSendMessageSize(Bytes(options.max_message_bytes));
  // The retry filter keeps a copy of what was sent; who sends again is decided by the router.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, Millis(options.reconnect_initial));
  // In gRPC 1.51 the "minimum backoff" is really the timeout of one attempt to connect.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Millis(options.connect_timeout));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Millis(options.reconnect_max));
  // Texts of errors are metadata, and gRPC would close the connection for a long one.
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, MetadataBytes(options));
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, options.use_proxy ? 1 : 0);
  if (!options.user_agent.empty()) {
    arguments.SetUserAgentPrefix(options.user_agent);
  }
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  return grpc::CreateCustomChannel(target, CredentialsOf(options.tls), arguments);
}

void ApplyOptions(const GrpcOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(Bytes(options.max_message_bytes));
  builder->SetMaxSendMessageSize(Bytes(options.max_message_bytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMostStreams);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kGreetingMillis);
  builder->AddChannelArgument(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, MetadataBytes(options));
  if (options.max_connection_age != absl::InfiniteDuration()) {
    // Its grace is for ever: streams end by themselves.
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Millis(options.max_connection_age));
  }
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Millis(options.min_ping_interval));
}

}  // namespace expertmesh::net
