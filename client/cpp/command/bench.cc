#include <sys/resource.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cpp/command/bench_layer.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/routed_hidden.h"
#include "client/cpp/command/statistics.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

absl::StatusOr<std::vector<pid_t>> ReadPids(const Options& options) {
  std::vector<pid_t> pids;
  if (options.Has("pids")) {
    for (const absl::string_view text : absl::StrSplit(options.Text("pids"), ',')) {
      pid_t pid = 0;
      if (!absl::SimpleAtoi(text, &pid) || pid <= 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("--pids: '", text, "' is no process id; give a list such as 17,18"));
      }
      pids.push_back(pid);
    }
  }
  return pids;
}

absl::StatusOr<BenchOptions> ReadBenchOptions(const Options& options) {
  BenchOptions bench;
  bench.tokens = options.Whole("tokens");
  bench.traffic.callers = options.Whole("callers");
  bench.traffic.requests = options.Whole("requests");
  if (options.Has("duration")) {
    bench.traffic.duration = options.Duration("duration");
  }
  if (options.Has("rate")) {
    bench.traffic.rate = options.Number("rate");
    if (bench.traffic.rate == 0) {
      return absl::InvalidArgumentError("--rate is 0; it must be more, or left out");
    }
  }
  bench.forward.timeout = options.Duration("timeout");
  bench.forward.int8_hidden_states = options.Has("int8");
  bench.forward.int8_output = options.Has("int8");
  ASSIGN_OR_RETURN(bench.pids, ReadPids(options));
  return bench;
}

// The checkpoint that `kind` needs; null when it needs none.
absl::StatusOr<std::shared_ptr<const checkpoint::MoeCheckpoint>> OpenForRouting(
    const Mesh& mesh, const Options& options, RoutingKind kind) {
  if (kind == RoutingKind::kRandom) {
    return nullptr;
  }
  if (!options.Has("model")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--routing ", options.Text("routing"), " needs the gates: give --model, the checkpoint"));
  }
  return OpenSameModel(mesh, options.Text("model"));
}

absl::StatusOr<LayerResult> RunLayer(const Mesh& mesh, client::ForwardStream* stream,
                                     const client::LayerInfo& layer, RoutingKind kind,
                                     const checkpoint::MoeCheckpoint* checkpoint,
                                     const BenchOptions& bench, Progress* progress) {
  HiddenMaker maker(mesh.model.activation_dtype, mesh.model.d_model);
  if (checkpoint != nullptr) {
    ASSIGN_OR_RETURN(
        maker, HiddenMaker::Create(kind, *checkpoint, layer.layer, mesh.model.activation_dtype));
  }
  const bool timed = bench.traffic.duration.has_value();
  absl::StatusOr<LayerResult> result =
      BenchLayer(mesh, stream, layer, maker, bench, [progress, timed] {
        if (!timed) {
          progress->Add(1);
        }
      });
  if (timed) {
    progress->Add(1);
  }
  return result;
}

absl::Status WriteJson(const Options& options, const Mesh& mesh, const BenchOptions& bench,
                       const std::vector<LayerResult>& results) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerResult& result : results) {
    layers.push_back(ToJson(result, bench.tokens, options.Has("latencies")));
  }
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const nlohmann::json json = {{"router", mesh.address},
                               {"family", mesh.model.family},
                               {"d_model", mesh.model.d_model},
                               {"tokens", bench.tokens},
                               {"callers", bench.traffic.callers},
                               {"rate", bench.traffic.rate},
                               {"routing", options.Text("routing")},
                               {"stream", options.Has("stream")},
                               {"caller_peak_bytes", static_cast<uint64_t>(usage.ru_maxrss) * 1024},
                               {"layers", std::move(layers)}};
  return checkpoint::WriteFileAtomically(options.Text("json"), json.dump(2) + "\n",
                                         checkpoint::Durability::kRename);
}

void Print(const Options& options, const BenchOptions& bench,
           const std::vector<LayerResult>& results) {
  std::vector<std::vector<std::string>> table = {{"layer", "requests", "failed", "tokens/s",
                                                  "p50 ms", "p90 ms", "p99 ms", "p999 ms",
                                                  "CPU s/1k tokens", "max load"}};
  for (const LayerResult& result : results) {
    const double tokens = static_cast<double>(result.traffic.latencies_us.size() * bench.tokens);
    table.push_back({absl::StrCat(result.layer), absl::StrCat(result.traffic.latencies_us.size()),
                     absl::StrCat(result.traffic.failed),
                     absl::StrFormat("%.0f", result.TokensPerSecond(bench.tokens)),
                     absl::StrFormat("%.2f", result.Latency(0.5)),
                     absl::StrFormat("%.2f", result.Latency(0.9)),
                     absl::StrFormat("%.2f", result.Latency(0.99)),
                     absl::StrFormat("%.2f", result.Latency(0.999)),
                     absl::StrFormat("%.3f", result.cpu_seconds * 1000 / tokens),
                     absl::StrFormat("%.2fx", result.max_violation + 1)});
  }
  const std::string traffic = bench.traffic.rate > 0
                                  ? absl::StrFormat("%g requests/s", bench.traffic.rate)
                                  : absl::StrCat(bench.traffic.callers, " callers");
  std::printf("%s, %zu tokens a request, %s, %s routing\n%s", traffic.c_str(), bench.tokens,
              options.Has("stream") ? "one stream" : "unary", options.Text("routing").c_str(),
              FormatTable(table).c_str());
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const BenchOptions bench, ReadBenchOptions(options));
  ASSIGN_OR_RETURN(const Mesh mesh, OpenMesh(options));
  const RoutingKind kind = ParseRoutingKind(options.Text("routing"));
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   OpenForRouting(mesh, options, kind));
  std::unique_ptr<client::ForwardStream> stream;
  if (options.Has("stream")) {
    stream = mesh.client->OpenStream();
  }
  std::vector<LayerResult> results;
  {
    const uint64_t requests = bench.traffic.rate > 0
                                  ? bench.traffic.requests
                                  : bench.traffic.callers * bench.traffic.requests;
    const uint64_t steps = bench.traffic.duration.has_value() ? 1 : requests;
    Progress progress("Measuring", mesh.layers.size() * steps);
    for (const client::LayerInfo& layer : mesh.layers) {
      absl::StatusOr<LayerResult> result =
          RunLayer(mesh, stream.get(), layer, kind, checkpoint.get(), bench, &progress);
      if (!result.ok()) {
        return In(absl::StrCat("layer ", layer.layer), In(mesh.address, result.status()));
      }
      results.push_back(*std::move(result));
    }
  }
  Print(options, bench, results);
  return options.Has("json") ? WriteJson(options, mesh, bench, results) : absl::OkStatus();
}

}  // namespace

Command BenchCommand() {
  return {{"bench",
           "Closed loop: every caller sends its next request when the last one is answered.\n"
           "Open loop (--rate): requests are sent at fixed times, and latencies count from these.",
           "",
           WithRouter(
               {LayersOption(),
                CountOption("tokens", "tokens of a request", "64"),
                CountOption("callers", "callers at once, closed loop", "4"),
                CountOption("requests",
                            "requests of each caller and layer (open loop: of each layer)", "100"),
                {.name = "duration",
                 .kind = OptionKind::kDuration,
                 .value = "SECONDS",
                 .help = "time for each layer, instead of a number of requests"},
                {.name = "rate",
                 .kind = OptionKind::kNumber,
                 .value = "R",
                 .help = "open loop: requests per second"},
                {.name = "routing",
                 .kind = OptionKind::kChoice,
                 .value = "KIND",
                 .help = "experts that tokens go to; all but random need --model",
                 .fallback = "random",
                 .choices = RoutingKindNames()},
                {.name = "model", .value = "DIR", .help = "the checkpoint that the mesh serves"},
                {.name = "stream",
                 .kind = OptionKind::kSwitch,
                 .help = "all callers on one ForwardStream instead of unary calls"},
                {.name = "int8",
                 .kind = OptionKind::kSwitch,
                 .help = "hidden states and outputs travel to and from the router as int8"},
                {.name = "pids",
                 .value = "LIST",
                 .help = "processes of this machine whose CPU time counts besides the caller's"},
                TimeoutOption("60"),
                {.name = "json", .value = "FILE", .help = "write the results as JSON, too"},
                {.name = "latencies",
                 .kind = OptionKind::kSwitch,
                 .help = "every single latency in the JSON, too"}})},
          &Run};
}

}  // namespace expertmesh::command
