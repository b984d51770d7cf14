// expertmesh-router: scores hidden states, sends them to the experts, answers with the weighted
// sum.

#include <spdlog/spdlog.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/balance/bias_policy.h"
#include "common/base/clock.h"
#include "common/base/idle_memory.h"
#include "common/base/process.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/base/usage.h"
#include "common/base/version.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend_factory.h"
#include "common/experts/compute_dtype.h"
#include "common/net/grpc_logging.h"
#include "common/net/grpc_runtime.h"
#include "common/net/grpc_transport.h"
#include "common/telemetry/grpc_server_metrics.h"
#include "common/telemetry/logging.h"
#include "common/telemetry/metrics.h"
#include "common/wire/wire_dtype.h"
#include "router_service/mesh/node_source.h"
#include "router_service/metrics_flags.h"
#include "router_service/router.h"
#include "router_service/serve/grpc_authority_links.h"
#include "router_service/serve/router_server.h"
#include "router_service/trace_flags.h"

ABSL_FLAG(std::string, model, "", "Checkpoint folder in Hugging Face layout (required)");
ABSL_FLAG(std::string, nodes, "", "Nodes: host:port,host:port or dns:///name:port (required)");
ABSL_FLAG(std::string, listen, "0.0.0.0:50050", "Address to serve on; port 0 picks one");
ABSL_FLAG(std::string, port_file, "",
          "File to write \"grpc_port metrics_port\" to once both are bound");
ABSL_FLAG(
    std::string, compute_dtype, "auto",
    "Type of activations: f32, bf16, or auto: bf16 for a BF16 checkpoint, else f32. Shared "
    "experts are computed in it, and gates round to it where the family rounds, whatever type "
    "the weights are stored in");
ABSL_FLAG(std::string, tie_order, "lowest-index",
          "Which of several equal scores wins: lowest-index or torch-cpu");
ABSL_FLAG(std::string, routing, "",
          "Routing options that replace the checkpoint's in every layer, one JSON object, such as "
          "'{\"capacity_factor\": 1.25}'; see router_service/README.md, Routers");
ABSL_FLAG(std::string, wire_hidden_states, "auto",
          absl::StrCat("Type of hidden states on the way to nodes: auto (as --compute-dtype), ",
                       expertmesh::WireNames(),
                       "; exceptions by address, such as auto,10.0.0.7:50061=int8"));
ABSL_FLAG(std::string, wire_partials, "auto", "The same for partials on the way back");
ABSL_FLAG(int, threads, 0, "Threads for routing and for shared experts; 0: one per core");
ABSL_FLAG(uint64_t, inline_tokens, 8,
          "Batches of at most so many tokens are routed and summed on the network thread: quicker "
          "for them, and nothing else is read meanwhile; 0: none");
ABSL_FLAG(uint64_t, max_batch_tokens, 4096, "Tokens of one batch of one layer");
ABSL_FLAG(int64_t, max_queue_delay_us, 0,
          "Longest wait of a request for company while its layer is idle, in microseconds");
ABSL_FLAG(double, max_linger_percent, 5,
          "Longest wait of a batch for callers that ask again as soon as they are answered, in "
          "percent of the time that a batch of its layer takes; only where most do; 0: none");
ABSL_FLAG(uint64_t, max_queue_tokens, 65536, "Tokens that may wait per layer; more are refused");
ABSL_FLAG(uint64_t, max_tokens_in_flight, 262144, "Tokens accepted and not answered, all layers");
ABSL_FLAG(
    absl::Duration, max_queue_time, absl::Milliseconds(500),
    "Beyond a few full batches no more is accepted than is answered within this time, at the "
    "rate that is measured; what would be answered after its deadline is refused in any case");
ABSL_FLAG(uint64_t, max_message_bytes, 256ull << 20, "Largest request or answer");
ABSL_FLAG(uint64_t, max_buffered_bytes, 512 << 20,
          "Requests not yet answered and answers not yet read, all callers together; the less is "
          "left of it, the less of one stream is read ahead");
ABSL_FLAG(uint64_t, max_metadata_bytes, 64 << 10,
          "Most metadata of one call; more fails that call");
ABSL_FLAG(uint64_t, max_connections, 4096,
          "Connections of callers open at once; more are closed as they come");
// Not by default: gRPC's filter for it takes 2 % of the time of a small request.
ABSL_FLAG(
    absl::Duration, max_connection_age, absl::InfiniteDuration(),
    "Age, about, at which connections and streams of callers end, after what they were asked is "
    "answered, so that callers spread over routers that were added; inf: any age");
ABSL_FLAG(uint64_t, max_frame_bytes, 1 << 20, "Size that batches to nodes are cut to");
ABSL_FLAG(uint32_t, max_attempts, 3, "Nodes tried for one assignment, the first included");
ABSL_FLAG(absl::Duration, attempt_timeout, absl::Milliseconds(250),
          "Time that a node always has for an answer; after it, and after 4 times what the mesh "
          "usually takes for as much work, another node is asked where one can serve; inf: nodes "
          "are not judged by time");
ABSL_FLAG(bool, strict, false,
          "Output bits independent of which nodes serve a token, for top-k times the bytes of "
          "answers; see router_service/README.md, Strict");
ABSL_FLAG(std::string, shared_experts, "router",
          "Who computes shared experts: router; nodes (those started with --shared-experts, where "
          "the batch has the least work; the router where there are none); or auto (both, by what "
          "they have to do)");
ABSL_FLAG(bool, frame_checksums, false,
          "A checksum in every frame to a node and in every answer: what a flipped bit touches is "
          "asked for again");
ABSL_FLAG(uint64_t, verify_bytes_per_second, uint64_t{64} << 20,
          "Bytes of the checkpoint read per second, once, to verify the weights that nodes hold; "
          "those of experts that nodes disagree about are read at once; 0: only these");
ABSL_FLAG(absl::Duration, cross_check_interval, absl::Seconds(10),
          "How often, for each layer that is used, one row is computed by two nodes that hold the "
          "same expert, and what they make of it compared; no request waits for it; 0: never");
ABSL_FLAG(std::string, balance, "frozen",
          "How the selection bias of every layer follows its load until Control.SetBalance says "
          "otherwise: frozen (as in the checkpoint), sign or proportional");
ABSL_FLAG(double, balance_rate, 1e-3, "What a step of --balance adds, in units of scores");
ABSL_FLAG(double, quality_budget, 0.02,
          "Share of tokens that --balance may send to other experts than the checkpoint alone "
          "would choose, 0 to 1; 1: no bound");
ABSL_FLAG(absl::Duration, balance_interval, absl::Seconds(1),
          "How often load is looked at, and reported to the router that is followed");
ABSL_FLAG(std::string, follow, "",
          "host:port of the router that decides on bias and placement; empty: this one does");
ABSL_FLAG(std::string, state_dir, "",
          "Folder that keeps what is decided and counted over a restart, one for each router; "
          "empty: nothing is kept");
ABSL_FLAG(std::string, record_routing, "",
          "File in which the experts of every token are recorded, for expertmesh replay; what is "
          "older is kept in FILE.1; empty: none");
ABSL_FLAG(uint64_t, max_record_bytes, uint64_t{1} << 30, "Most bytes of both files");
ABSL_FLAG(uint64_t, move_bytes_per_second, uint64_t{256} << 20,
          "Most bytes of weights that nodes load together in a second when copies are moved");
ABSL_FLAG(absl::Duration, max_request_time, absl::Seconds(60),
          "Longest time any request may take, also one that came without a deadline");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(20),
          "Time for requests in flight to finish after SIGTERM");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warning, error or off");
ABSL_FLAG(std::string, log_format, "text",
          "text, or json: one object in each line, with ts, level, process, message, and trace_id "
          "and span_id where there is a trace");

namespace expertmesh::router {
namespace {

absl::Status CheckFlags(const std::vector<char*>& rest) {
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument '", rest[1], "'; see --help"));
  }
  for (const auto& [name, value] : {std::make_pair("--model", absl::GetFlag(FLAGS_model)),
                                    std::make_pair("--nodes", absl::GetFlag(FLAGS_nodes)),
                                    std::make_pair("--listen", absl::GetFlag(FLAGS_listen))}) {
    if (value.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is empty; it is required"));
    }
  }
  if (absl::GetFlag(FLAGS_max_queue_delay_us) < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-queue-delay-us is ", absl::GetFlag(FLAGS_max_queue_delay_us), "; use 0 or more"));
  }
  if (const double percent = absl::GetFlag(FLAGS_max_linger_percent);
      !(percent >= 0 && percent <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-linger-percent is ", percent, "; use 0 to 100"));
  }
  if (absl::GetFlag(FLAGS_max_connection_age) < absl::Seconds(1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-connection-age is ", absl::FormatDuration(absl::GetFlag(FLAGS_max_connection_age)),
        "; use 1s or more, or inf"));
  }
  if (absl::GetFlag(FLAGS_max_queue_time) <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-queue-time is ", absl::FormatDuration(absl::GetFlag(FLAGS_max_queue_time)),
        "; use more than 0"));
  }
  if (absl::GetFlag(FLAGS_attempt_timeout) < absl::Milliseconds(1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--attempt-timeout is ", absl::FormatDuration(absl::GetFlag(FLAGS_attempt_timeout)),
        "; use 1ms or more, or inf"));
  }
  if (absl::GetFlag(FLAGS_cross_check_interval) < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cross-check-interval is ",
                     absl::FormatDuration(absl::GetFlag(FLAGS_cross_check_interval)),
                     "; use 0 (never) or more"));
  }
  return absl::OkStatus();
}

absl::StatusOr<balance_control::ControllerOptions> BalanceFlags() {
  balance_control::ControllerOptions options;
  options.router_id =
      absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(absl::BitGen()), absl::kZeroPad16));
  absl::StatusOr<balance::BiasRule> rule = balance::ParseBiasRule(absl::GetFlag(FLAGS_balance));
  if (!rule.ok()) {
    return WithContext("--balance", rule.status());
  }
  options.policy.rule = *rule;
  options.policy.rate = static_cast<float>(absl::GetFlag(FLAGS_balance_rate));
  options.policy.quality_budget = static_cast<float>(absl::GetFlag(FLAGS_quality_budget));
  if (const absl::Status status = balance::ValidateBiasPolicy(options.policy); !status.ok()) {
    return WithContext("--balance-rate or --quality-budget", status);
  }
  options.interval = absl::GetFlag(FLAGS_balance_interval);
  if (options.interval < absl::Milliseconds(10)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--balance-interval is ", absl::FormatDuration(options.interval), "; use 10ms or more"));
  }
  options.state_dir = absl::GetFlag(FLAGS_state_dir);
  options.mover.bytes_per_second = absl::GetFlag(FLAGS_move_bytes_per_second);
  options.least_term =
      static_cast<uint64_t>(std::max<int64_t>(absl::ToUnixSeconds(absl::Now()), 1));
  return options;
}

absl::StatusOr<gate::TieOrder> TieOrderFlag() {
  const std::string name = absl::GetFlag(FLAGS_tie_order);
  if (name == "lowest-index") {
    return gate::TieOrder::kLowestIndex;
  }
  if (name == "torch-cpu") {
    return gate::TieOrder::kTorchCpu;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--tie-order is '", name, "'; use lowest-index or torch-cpu"));
}

absl::StatusOr<batch::SharedExpertsAt> SharedExpertsFlag() {
  const std::string name = absl::GetFlag(FLAGS_shared_experts);
  if (name == "router") {
    return batch::SharedExpertsAt::kRouter;
  }
  if (name == "nodes") {
    return batch::SharedExpertsAt::kNodes;
  }
  if (name == "auto") {
    return batch::SharedExpertsAt::kBoth;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--shared-experts is '", name, "'; use router, nodes or auto"));
}

absl::StatusOr<RouterOptions> OptionsFromFlags() {
  RouterOptions options;
  ASSIGN_OR_RETURN(options.layer.tie_order, TieOrderFlag());
  ASSIGN_OR_RETURN(options.shared_experts, SharedExpertsFlag());
  options.layer.routing = absl::GetFlag(FLAGS_routing);
  options.batcher.max_batch_tokens = absl::GetFlag(FLAGS_max_batch_tokens);
  options.batcher.max_queue_delay = absl::Microseconds(absl::GetFlag(FLAGS_max_queue_delay_us));
  options.batcher.max_linger_share = absl::GetFlag(FLAGS_max_linger_percent) / 100;
  options.batcher.max_queue_tokens = absl::GetFlag(FLAGS_max_queue_tokens);
  options.max_tokens_in_flight = absl::GetFlag(FLAGS_max_tokens_in_flight);
  options.max_queue_time = absl::GetFlag(FLAGS_max_queue_time);
  options.max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  options.version = ProgramVersion().Text();
  options.wire_hidden_states = absl::GetFlag(FLAGS_wire_hidden_states);
  options.wire_partials = absl::GetFlag(FLAGS_wire_partials);
  options.max_frame_bytes = absl::GetFlag(FLAGS_max_frame_bytes);
  options.max_attempts = absl::GetFlag(FLAGS_max_attempts);
  options.health.shortest_limit = absl::GetFlag(FLAGS_attempt_timeout);
  options.inline_tokens = absl::GetFlag(FLAGS_inline_tokens);
  options.strict = absl::GetFlag(FLAGS_strict);
  options.cross_check_interval = absl::GetFlag(FLAGS_cross_check_interval);
  options.frame_checksums = absl::GetFlag(FLAGS_frame_checksums);
  options.verify_bytes_per_second = absl::GetFlag(FLAGS_verify_bytes_per_second);
  options.max_request_time = absl::GetFlag(FLAGS_max_request_time);
  options.threads = absl::GetFlag(FLAGS_threads);
  ASSIGN_OR_RETURN(options.expert_metrics, ExpertMetricsFromFlags());
  ASSIGN_OR_RETURN(options.balance.controller, BalanceFlags());
  options.balance.follow = absl::GetFlag(FLAGS_follow);
  options.balance.record = absl::GetFlag(FLAGS_record_routing);
  options.balance.max_record_bytes = absl::GetFlag(FLAGS_max_record_bytes);
  return options;
}

serve::RouterServerOptions ServerOptionsFromFlags(net::GrpcRuntime* runtime, CallCounter* counter) {
  serve::RouterServerOptions server_options;
  server_options.address = absl::GetFlag(FLAGS_listen);
  server_options.grpc.max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  server_options.max_buffered_bytes = absl::GetFlag(FLAGS_max_buffered_bytes);
  server_options.grpc.max_metadata_bytes = absl::GetFlag(FLAGS_max_metadata_bytes);
  server_options.grpc.max_connections = absl::GetFlag(FLAGS_max_connections);
  server_options.grpc.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  server_options.runtime = runtime;
  server_options.counter = counter;
  return server_options;
}

// `weights`: their type in the checkpoint.
absl::StatusOr<std::unique_ptr<experts::Backend>> BackendFromFlags(Dtype weights) {
  experts::BackendOptions backend_options;
  ASSIGN_OR_RETURN(backend_options.compute_dtype,
                   experts::ChooseComputeDtype(absl::GetFlag(FLAGS_compute_dtype), weights));
  backend_options.threads = absl::GetFlag(FLAGS_threads);
  return experts::MakeBackend("cpu", backend_options);
}

absl::Status StartLogging() {
  RETURN_IF_ERROR(telemetry::InitLogging("expertmesh-router", absl::GetFlag(FLAGS_log_level),
                                         absl::GetFlag(FLAGS_log_format)));
  if (const std::string note = ReadCoreLimits().Note(); !note.empty()) {
    spdlog::info("{}", note);
  }
  return absl::OkStatus();
}

absl::Status Run(const std::vector<char*>& rest) {
  RETURN_IF_ERROR(CheckFlags(rest));
  RETURN_IF_ERROR(StartLogging());
  ASSIGN_OR_RETURN(RouterOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   checkpoint::MoeCheckpoint::Open(absl::GetFlag(FLAGS_model)));
  for (const std::string& warning : checkpoint->warnings()) {
    spdlog::warn("{}", warning);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<experts::Backend> backend,
                   BackendFromFlags(checkpoint->model().dtype));

  auto registry = std::make_shared<prometheus::Registry>();
  telemetry::RegisterProcessMetrics("expertmesh-router", ProgramVersion(), *registry);
  net::GrpcRuntime runtime;
  net::GrpcTransport transport(&runtime, Clock::Real(), net::GrpcTransportOptions());
  serve::GrpcAuthorityLinks links(&runtime, Clock::Real());
  options.balance.links = &links;
  ASSIGN_OR_RETURN(const Tracing tracing, TracingFromFlags(&runtime));
  options.tracer = tracing.tracer();
  ASSIGN_OR_RETURN(std::unique_ptr<Router> router,
                   Router::Create(options, checkpoint, std::move(backend), &transport,
                                  Clock::Real(), registry.get()));
  const absl::StatusOr<std::unique_ptr<mesh::NodeSource>> nodes = mesh::MakeNodeSource(
      absl::GetFlag(FLAGS_nodes), mesh::NodeSourceOptions(),
      [&router](const std::vector<std::string>& addresses) {
        router->fleet().SetAddresses(addresses);
      },
      [&router](const absl::Status& status) { router->fleet().SetLookupStatus(status); });
  if (!nodes.ok()) {
    return WithContext("--nodes", nodes.status());
  }
  telemetry::GrpcServerMetrics calls(*registry);
  ASSIGN_OR_RETURN(
      std::unique_ptr<serve::RouterServer> server,
      serve::RouterServer::Start(router->served(), ServerOptionsFromFlags(&runtime, &calls)));
  const console::Console console(router->served());
  ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::MetricsServer> metrics,
                   StartMetrics(registry, &tracing, router.get(), &console));
  const IdleMemory idle_memory(
      [&router, &server, &runtime] {
        router->ShedMemory();
        server->TrimThreads();
        runtime.Flush(TrimThread);
      },
      Clock::Real());
  const int metrics_port = metrics == nullptr ? 0 : metrics->port();
  RETURN_IF_ERROR(WritePortFile(absl::GetFlag(FLAGS_port_file), server->port(), metrics_port));
  spdlog::info("serving {} ({}) on port {}, metrics on port {}", absl::GetFlag(FLAGS_model),
               checkpoint->model().family, server->port(), metrics_port);

  const int signal = WaitForStopSignal();
  const absl::Duration drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  spdlog::info("signal {}: finishing what is in flight, at most {}", signal,
               absl::FormatDuration(drain_timeout));
  server->Shutdown(drain_timeout);
  return absl::OkStatus();
}

}  // namespace
}  // namespace expertmesh::router

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  expertmesh::RaiseDescriptorLimit();
  expertmesh::BlockStopSignals();
  expertmesh::net::RouteGrpcLogs();
  const std::vector<char*> rest = expertmesh::ParseFlags(
      "Routes hidden states to expert services.\n"
      "  expertmesh-router --model DIR --nodes host:port,host:port",
      argc, argv);
  const absl::Status status = expertmesh::router::Run(rest);
  if (!status.ok()) {
    expertmesh::telemetry::ReportFailure("expertmesh-router", status);
    return 1;
  }
  return 0;
}
