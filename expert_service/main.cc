// expertmesh-expert: holds experts of a checkpoint and computes them for routers.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/idle_memory.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/base/usage.h"
#include "common/base/version.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/compute_dtype.h"
#include "common/experts/device.h"
#include "common/experts/weight_storage.h"
#include "common/net/grpc_logging.h"
#include "common/telemetry/expert_series.h"
#include "common/telemetry/grpc_server_metrics.h"
#include "common/telemetry/logging.h"
#include "common/telemetry/metrics.h"
#include "expert_service/device_loss.h"
#include "expert_service/device_metrics.h"
#include "expert_service/expert_selection.h"
#include "expert_service/node.h"
#include "expert_service/node_server.h"

ABSL_FLAG(std::string, model, "", "Checkpoint folder in Hugging Face layout (required)");
ABSL_FLAG(std::string, listen, "0.0.0.0:50061", "Address to serve on; port 0 picks one");
ABSL_FLAG(std::string, node_id, "", "Stable name of this node; empty: its host name and port");
ABSL_FLAG(std::string, zone, "",
          "Where the node is: copies of an expert are placed in different zones; empty: not told");
ABSL_FLAG(std::string, layers, "", "MoE layers to hold, like 3-10,12; empty: all");
ABSL_FLAG(std::string, experts, "", "Experts of these layers to hold, like 0-31,40; empty: all");
ABSL_FLAG(std::string, shard, "",
          "i/n: hold the i-th (from 0) of n even runs of each layer's experts");
ABSL_FLAG(uint32_t, replicas, 1, "With --shard: how many shards hold each run");
ABSL_FLAG(bool, shared_experts, false,
          "Hold the shared experts of these layers, too, and whole whatever --slice says: for "
          "routers with --shared-experts=nodes");
ABSL_FLAG(std::string, slice, "", "i/n: hold the i-th of n parts of the intermediate dimension");
ABSL_FLAG(std::string, compute_dtype, "auto",
          "f32, bf16, or auto: bf16 for a BF16 checkpoint, else f32");
// Not auto by default: nodes that share a machine would meet on its first GPU.
ABSL_FLAG(
    std::string, device, "cpu",
    "What computes: cpu; cuda:N, the N-th GPU (from 0) that this process can see; or auto, the "
    "first GPU where there is one, else the CPU");
ABSL_FLAG(
    uint64_t, device_memory, 0,
    "Most bytes of a GPU's memory that weights may take, at least those of the largest layer: "
    "experts beyond are uploaded when they are needed, as with --memory; 0: all are there");
ABSL_FLAG(
    std::string, device_product, "fixed-order",
    "Who multiplies on a GPU: fixed-order, kernels with which a row's bits do not depend on its "
    "batch; or cublas, with which the last bits may");
ABSL_FLAG(int, threads, 0,
          "Threads that compute and load; 0: one per core that affinity and CPU quota allow");
ABSL_FLAG(std::string, weights, "expanded",
          "expanded: weights are unpacked to the compute type at load; compressed: kept as in the "
          "checkpoint and expanded for each use, slower but smaller where that is quantised");
ABSL_FLAG(uint64_t, memory_limit_bytes, 0, "Most bytes of weights held; 0: no limit");
ABSL_FLAG(
    uint64_t, memory, 0,
    "Most bytes of weights in memory, at least those of the largest layer: experts beyond are "
    "read again from the checkpoint when they are needed; 0: all are in memory");
ABSL_FLAG(std::string, memory_policy, "frequency",
          "With --memory: which experts stay in it: lru, frequency or predictive (`expertmesh "
          "replay --cache` compares them on recorded traffic)");
ABSL_FLAG(uint32_t, max_batch_rows, 8192, "Largest batch, and most rows computed together");
ABSL_FLAG(uint64_t, inline_parameters, 1 << 20,
          "A batch whose assignments have at most so many parameters in all is computed on the "
          "network thread when the node is idle: quicker for it, and nothing else is read "
          "meanwhile; 0: none");
ABSL_FLAG(uint64_t, max_queue_rows, 65536, "Rows that may wait; more are refused");
ABSL_FLAG(uint64_t, max_message_bytes, uint64_t{8} << 20, "Largest frame accepted");
ABSL_FLAG(uint64_t, max_metadata_bytes, 64 << 10,
          "Most metadata of one call; more fails that call");
ABSL_FLAG(uint64_t, max_connections, 4096,
          "Connections of callers open at once; more are closed as they come");
ABSL_FLAG(std::string, metrics_listen, "0.0.0.0:9464",
          "Address of GET /metrics; port 0 picks one, empty turns it off");
ABSL_FLAG(std::string, expert_metrics, "top",
          "Experts with a series of their own at GET /metrics: full (all that the node holds), top "
          "(the busiest of each layer, of late) or off");
ABSL_FLAG(uint64_t, expert_metrics_top, 8, "How many of each layer with --expert-metrics=top");
ABSL_FLAG(std::string, port_file, "",
          "File to write \"grpc_port metrics_port\" to once both are bound");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(20),
          "Time for batches in flight to finish after SIGTERM");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warning, error or off");
ABSL_FLAG(std::string, log_format, "text",
          "text, or json: one object in each line, with ts, level, process, message, and trace_id "
          "and span_id where there is a trace");

namespace expertmesh::node {
namespace {

// So long a draining node still accepts what routers sent before they heard of it.
constexpr absl::Duration kDrainLinger = absl::Milliseconds(200);
// For answers that are queued when everything is computed.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
// So long a node that has lost its device may take to answer, with errors, what is under way, and
// to end.
constexpr absl::Duration kLostDrain = absl::Seconds(1);
constexpr absl::Duration kLostEnd = absl::Seconds(5);

absl::Status CheckFlags(const std::vector<char*>& rest) {
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument '", rest[1], "'; see --help"));
  }
  if (absl::GetFlag(FLAGS_model).empty()) {
    return absl::InvalidArgumentError("--model is empty; give a checkpoint folder");
  }
  if (absl::GetFlag(FLAGS_listen).empty()) {
    return absl::InvalidArgumentError("--listen is empty; give host:port");
  }
  if (absl::GetFlag(FLAGS_threads) < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--threads=", absl::GetFlag(FLAGS_threads),
                                                   ": must be 0 (all cores) or more"));
  }
  if (absl::GetFlag(FLAGS_drain_timeout) < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--drain-timeout=", absl::FormatDuration(absl::GetFlag(FLAGS_drain_timeout)),
                     ": must not be negative"));
  }
  return absl::OkStatus();
}

absl::StatusOr<NodeOptions> OptionsFromFlags(const ModelDescription& model, int threads) {
  NodeOptions options;
  options.node_id = absl::GetFlag(FLAGS_node_id);
  if (options.node_id.empty()) {
    char host[256] = "localhost";
    (void)gethostname(host, sizeof(host) - 1);
    const std::string listen = absl::GetFlag(FLAGS_listen);
    const std::string port = listen.substr(listen.rfind(':') + 1);
    // A port that is not chosen yet tells nodes of one host apart as little as none.
    options.node_id = absl::StrCat(host, ":", port == "0" ? absl::StrCat("pid", getpid()) : port);
  }
  options.version = ProgramVersion().Text();
  options.zone = absl::GetFlag(FLAGS_zone);
  options.resource_attributes = trace::ResourceAttributesFromEnvironment();
  options.max_batch_rows = absl::GetFlag(FLAGS_max_batch_rows);
  options.max_queue_rows = absl::GetFlag(FLAGS_max_queue_rows);
  options.max_frame_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  const uint64_t needed = uint64_t{model.d_model} * sizeof(float) + 4096;
  if (options.max_frame_bytes < needed) {
    return absl::InvalidArgumentError(absl::StrCat("--max-message-bytes=", options.max_frame_bytes,
                                                   ": one row of this model ", "needs ", needed));
  }
  options.reply_frame_bytes = std::min(options.reply_frame_bytes, options.max_frame_bytes);
  options.inline_parameters = absl::GetFlag(FLAGS_inline_parameters);
  options.memory_limit_bytes = absl::GetFlag(FLAGS_memory_limit_bytes);
  options.memory_policy = absl::GetFlag(FLAGS_memory_policy);
  options.load_threads = threads;
  ASSIGN_OR_RETURN(options.expert_metrics,
                   telemetry::ParseExpertMetrics(absl::GetFlag(FLAGS_expert_metrics),
                                                 absl::GetFlag(FLAGS_expert_metrics_top)));
  return options;
}

uint64_t CountExperts(const std::vector<LayerExperts>& selection) {
  uint64_t count = 0;
  for (const LayerExperts& layer : selection) {
    count += layer.experts.size();
  }
  return count;
}

// A layer of which some experts are sliced and some are not has two entries, one after the other.
size_t CountLayers(const std::vector<LayerExperts>& selection) {
  size_t count = 0;
  for (size_t i = 0; i < selection.size(); ++i) {
    count += i == 0 || selection[i - 1].layer != selection[i].layer ? 1 : 0;
  }
  return count;
}

absl::Status LoadAndLog(Node* node, const std::vector<LayerExperts>& selection) {
  spdlog::info("loading {} experts of {} layers", CountExperts(selection), CountLayers(selection));
  const absl::Time start = Clock::Real()->Now();
  uint64_t last_tenth = 0;
  const absl::Status status = node->Load(selection, [&last_tenth](uint64_t done, uint64_t total) {
    if (const uint64_t tenth = done * 10 / total; tenth > last_tenth) {
      last_tenth = tenth;
      spdlog::info("loaded {} of {} experts", done, total);
    }
  });
  if (status.ok()) {
    const v1::MemoryUsage memory = node->Describe().memory();
    spdlog::info("ready after {:.1f} s, {} bytes of weights ({}), {} in the checkpoint",
                 absl::ToDoubleSeconds(Clock::Real()->Now() - start), memory.weights_bytes(),
                 absl::GetFlag(FLAGS_weights), memory.checkpoint_bytes());
  } else if (absl::IsCancelled(status)) {
    spdlog::info("loading was stopped");
  } else {
    spdlog::error("{}; the node stays up to say so, and serves what it has",
                  std::string(status.message()));
  }
  return status;
}

// Serves until a signal comes or the device is lost, then finishes what is in flight.
absl::Status ServeUntilSignal(Node* node, NodeServer* server, const DeviceLoss& device_loss,
                              const std::vector<LayerExperts>& selection) {
  absl::Status loaded;
  std::thread loading([&] { loaded = LoadAndLog(node, selection); });
  const int signal = WaitForStopSignal();
  const absl::Status lost = device_loss.status();
  absl::Duration timeout = absl::GetFlag(FLAGS_drain_timeout);
  if (lost.ok()) {
    spdlog::info("signal {}: finishing what is in flight, at most {}", signal,
                 absl::FormatDuration(timeout));
  } else {
    EndProcessAfter(kLostEnd);
    timeout = std::min(timeout, kLostDrain);
  }
  if (!node->Drain(kDrainLinger, Clock::Real()->Now() + timeout)) {
    spdlog::warn("batches were left unanswered after {}", absl::FormatDuration(timeout));
  }
  server->Shutdown(kShutdownGrace);
  loading.join();
  RETURN_IF_ERROR(lost);
  return absl::IsCancelled(loaded) ? absl::OkStatus() : loaded;
}

absl::StatusOr<experts::Device> DeviceFromFlags(Dtype checkpoint_dtype, int threads,
                                                DeviceLoss* device_loss) {
  experts::DeviceOptions options;
  ASSIGN_OR_RETURN(
      options.backend.compute_dtype,
      experts::ChooseComputeDtype(absl::GetFlag(FLAGS_compute_dtype), checkpoint_dtype));
  options.backend.threads = threads;
  ASSIGN_OR_RETURN(options.backend.weights,
                   experts::ParseWeightStorage(absl::GetFlag(FLAGS_weights)));
  ASSIGN_OR_RETURN(options.product,
                   experts::ParseDeviceProduct(absl::GetFlag(FLAGS_device_product)));
  options.memory_bytes = absl::GetFlag(FLAGS_device_memory);
  options.on_lost = [device_loss](const absl::Status& why) { device_loss->Lost(why); };
  ASSIGN_OR_RETURN(experts::Device device, experts::OpenDevice(absl::GetFlag(FLAGS_device),
                                                               ProgramVersion().Text(), options));
  if (!device.note.empty()) {
    spdlog::warn("computing on the CPU: {}", device.note);
  }
  return device;
}

// Most bytes of packed weights where `backend` has them.
absl::StatusOr<uint64_t> MemoryFromFlags(const experts::Backend& backend) {
  const bool cpu = backend.name() == "cpu";
  const uint64_t memory = absl::GetFlag(FLAGS_memory);
  if (!cpu && memory > 0 && absl::GetFlag(FLAGS_device) != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("--memory=", memory, " is for --device=cpu; use --device-memory"));
  }
  return cpu ? memory : absl::GetFlag(FLAGS_device_memory);
}

absl::Status Run(const std::vector<char*>& rest) {
  RETURN_IF_ERROR(CheckFlags(rest));
  RETURN_IF_ERROR(telemetry::InitLogging("expertmesh-expert", absl::GetFlag(FLAGS_log_level),
                                         absl::GetFlag(FLAGS_log_format)));
  if (const std::string note = ReadCoreLimits().Note(); !note.empty()) {
    spdlog::info("{}", note);
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   checkpoint::MoeCheckpoint::Open(absl::GetFlag(FLAGS_model)));
  for (const std::string& warning : checkpoint->warnings()) {
    spdlog::warn("{}", warning);
  }
  const SelectionFlags selection_flags = {
      absl::GetFlag(FLAGS_layers),         absl::GetFlag(FLAGS_experts),
      absl::GetFlag(FLAGS_shard),          absl::GetFlag(FLAGS_replicas),
      absl::GetFlag(FLAGS_shared_experts), absl::GetFlag(FLAGS_slice)};
  ASSIGN_OR_RETURN(const std::vector<LayerExperts> selection,
                   SelectExperts(selection_flags, checkpoint->model()));
  const int threads =
      absl::GetFlag(FLAGS_threads) > 0 ? absl::GetFlag(FLAGS_threads) : AvailableCores();
  DeviceLoss device_loss(RequestStop);
  ASSIGN_OR_RETURN(const experts::Device device,
                   DeviceFromFlags(checkpoint->model().dtype, threads, &device_loss));

  const auto registry = std::make_shared<prometheus::Registry>();
  telemetry::RegisterProcessMetrics("expertmesh-expert", ProgramVersion(), *registry);
  ASSIGN_OR_RETURN(NodeOptions options, OptionsFromFlags(checkpoint->model(), threads));
  ASSIGN_OR_RETURN(options.memory_bytes, MemoryFromFlags(*device.backend));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Node> node,
      Node::Create(options, checkpoint, device.backend.get(), Clock::Real(), registry));
  RETURN_IF_ERROR(node->CheckLoad(selection));
  device_loss.Tell(node.get());
  const absl::Cleanup forget_node = [&device_loss] { device_loss.Tell(nullptr); };

  telemetry::GrpcServerMetrics calls(*registry);
  NodeServerOptions server_options;
  server_options.counter = &calls;
  server_options.address = absl::GetFlag(FLAGS_listen);
  server_options.max_frame_bytes = options.max_frame_bytes;
  server_options.grpc.max_metadata_bytes = absl::GetFlag(FLAGS_max_metadata_bytes);
  server_options.grpc.max_connections = absl::GetFlag(FLAGS_max_connections);
  ASSIGN_OR_RETURN(const std::unique_ptr<NodeServer> server,
                   NodeServer::Start(node.get(), server_options));
  std::unique_ptr<telemetry::MetricsServer> metrics;
  if (const std::string address = absl::GetFlag(FLAGS_metrics_listen); !address.empty()) {
    ASSIGN_OR_RETURN(metrics, telemetry::MetricsServer::Start(address, registry));
    metrics->Add(node->computed());
    metrics->Add(std::make_shared<DeviceMetrics>(device.stats));
  }
  const IdleMemory idle_memory(nullptr, Clock::Real());
  const int metrics_port = metrics == nullptr ? 0 : metrics->port();
  RETURN_IF_ERROR(WritePortFile(absl::GetFlag(FLAGS_port_file), server->port(), metrics_port));
  spdlog::info("{}: {} ({}, {} by {}) on port {}, metrics on port {}", options.node_id,
               absl::GetFlag(FLAGS_model), checkpoint->model().family,
               std::string(NameOf(device.backend->compute_dtype())), device.info.name,
               server->port(), metrics_port);
  return ServeUntilSignal(node.get(), server.get(), device_loss, selection);
}

}  // namespace
}  // namespace expertmesh::node

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  expertmesh::RaiseDescriptorLimit();
  expertmesh::BlockStopSignals();
  expertmesh::net::RouteGrpcLogs();
  const std::vector<char*> rest = expertmesh::ParseFlags(
      "Holds experts of a model and computes them for routers.\n"
      "  expertmesh-expert --model DIR [--shard i/n [--replicas r]]",
      argc, argv);
  const absl::Status status = expertmesh::node::Run(rest);
  if (!status.ok()) {
    expertmesh::telemetry::ReportFailure("expertmesh-expert", status);
    return 1;
  }
  return 0;
}
