#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/statistics.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "nlohmann/json.hpp"

namespace expertmesh {
namespace {

struct Load {
  size_t tokens = 0;
  size_t callers = 0;
  // Of each caller and layer: so many requests, or until so much time has passed.
  uint64_t requests = 0;
  std::optional<absl::Duration> duration;
  client::ForwardOptions forward;
};

struct LayerResult {
  uint32_t layer = 0;
  uint64_t requests = 0;
  double seconds = 0;
  double tokens_per_second = 0;
  double p50_ms = 0;
  double p99_ms = 0;
};

// What the callers of one layer have seen.
class Record {
 public:
  // False when another caller has failed: stop.
  bool Add(absl::Duration took, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) {
      status_.Update(status);
    } else {
      ms_.push_back(absl::ToDoubleMilliseconds(took));
    }
    return status_.ok();
  }

  absl::StatusOr<LayerResult> Summary(uint32_t layer, absl::Duration took, size_t tokens) {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) {
      return status_;
    }
    LayerResult result;
    result.layer = layer;
    result.requests = ms_.size();
    result.seconds = absl::ToDoubleSeconds(took);
    result.tokens_per_second = static_cast<double>(ms_.size() * tokens) / result.seconds;
    result.p50_ms = Percentile(ms_, 0.5);
    result.p99_ms = Percentile(ms_, 0.99);
    return result;
  }

 private:
  absl::Mutex mutex_;
  std::vector<double> ms_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status SendAndWait(client::ForwardStream* stream, uint32_t layer,
                         const client::Matrix& hidden, const client::ForwardOptions& forward) {
  absl::Notification answered;
  absl::Status status;
  stream->Send(layer, hidden, forward, [&](const absl::StatusOr<client::ForwardResult>& result) {
    status = result.status();
    answered.Notify();
  });
  answered.WaitForNotification();
  return status;
}

// One caller: the next request when the last one is answered. `stream` may be null.
void Call(const Mesh& mesh, client::ForwardStream* stream, uint32_t layer, uint64_t seed,
          const Load& load, Record* record, Progress* progress) {
  const client::Matrix hidden =
      RandomHidden(mesh.model.activation_dtype, load.tokens, mesh.model.d_model, seed);
  const absl::Time begin = Clock::Real()->Now();
  for (uint64_t done = 0;; ++done) {
    const absl::Time sent = Clock::Real()->Now();
    if (load.duration.has_value() ? sent - begin >= *load.duration : done == load.requests) {
      return;
    }
    const absl::Status status = stream != nullptr
                                    ? SendAndWait(stream, layer, hidden, load.forward)
                                    : mesh.client->Forward(layer, hidden, load.forward).status();
    if (!record->Add(Clock::Real()->Now() - sent, status)) {
      return;
    }
    if (!load.duration.has_value()) {
      progress->Add(1);
    }
  }
}

absl::StatusOr<LayerResult> RunLayer(const Mesh& mesh, client::ForwardStream* stream,
                                     uint32_t layer, const Load& load, Progress* progress) {
  // Connections and buffers are there before the clock starts.
  Record warmup;
  Load once = load;
  once.requests = 1;
  once.duration.reset();
  Progress silent("", 1);
  Call(mesh, stream, layer, 1, once, &warmup, &silent);
  RETURN_IF_ERROR(warmup.Summary(layer, absl::Seconds(1), load.tokens).status());

  Record record;
  std::vector<std::thread> callers;
  const absl::Time begin = Clock::Real()->Now();
  for (size_t caller = 0; caller < load.callers; ++caller) {
    callers.emplace_back(
        [&, caller] { Call(mesh, stream, layer, caller + 1, load, &record, progress); });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  if (load.duration.has_value()) {
    progress->Add(1);
  }
  return record.Summary(layer, Clock::Real()->Now() - begin, load.tokens);
}

absl::Status WriteJson(const std::string& path, const Mesh& mesh, const Load& load, bool stream,
                       const std::vector<LayerResult>& results) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerResult& result : results) {
    layers.push_back({{"layer", result.layer},
                      {"requests", result.requests},
                      {"seconds", result.seconds},
                      {"tokens_per_second", result.tokens_per_second},
                      {"p50_ms", result.p50_ms},
                      {"p99_ms", result.p99_ms}});
  }
  const nlohmann::json json = {{"router", mesh.address},        {"family", mesh.model.family},
                               {"d_model", mesh.model.d_model}, {"tokens", load.tokens},
                               {"callers", load.callers},       {"stream", stream},
                               {"layers", std::move(layers)}};
  return WriteFileAtomically(path, json.dump(2) + "\n", Durability::kRename);
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const Mesh mesh, OpenMesh(options));
  Load load;
  load.tokens = options.Whole("tokens");
  load.callers = options.Whole("callers");
  load.requests = options.Whole("requests");
  if (options.Has("duration")) {
    load.duration = options.Duration("duration");
  }
  load.forward.timeout = options.Duration("timeout");
  std::unique_ptr<client::ForwardStream> stream;
  if (options.Has("stream")) {
    stream = mesh.client->OpenStream();
  }
  std::vector<LayerResult> results;
  std::vector<std::vector<std::string>> table = {
      {"layer", "requests", "tokens/s", "p50 ms", "p99 ms"}};
  {
    const uint64_t steps = load.duration.has_value() ? 1 : load.callers * load.requests;
    Progress progress("Measuring", mesh.layers.size() * steps);
    for (const client::LayerInfo& layer : mesh.layers) {
      const absl::StatusOr<LayerResult> result =
          RunLayer(mesh, stream.get(), layer.layer, load, &progress);
      if (!result.ok()) {
        return In(absl::StrCat("layer ", layer.layer), In(mesh.address, result.status()));
      }
      table.push_back({absl::StrCat(result->layer), absl::StrCat(result->requests),
                       absl::StrFormat("%.0f", result->tokens_per_second),
                       absl::StrFormat("%.2f", result->p50_ms),
                       absl::StrFormat("%.2f", result->p99_ms)});
      results.push_back(*result);
    }
  }
  std::printf("%zu callers, %zu tokens a request, %s\n%s", load.callers, load.tokens,
              stream != nullptr ? "one stream" : "unary", FormatTable(table).c_str());
  if (options.Has("json")) {
    return WriteJson(options.Text("json"), mesh, load, stream != nullptr, results);
  }
  return absl::OkStatus();
}

}  // namespace

Command BenchCommand() {
  return {{"bench",
           "Closed loop: every caller sends its next request when the last one is answered.",
           "",
           {RouterOption(),
            LayersOption(),
            {.name = "tokens",
             .kind = OptionKind::kWhole,
             .value = "N",
             .help = "tokens of a request",
             .fallback = "64",
             .min = 1},
            {.name = "callers",
             .kind = OptionKind::kWhole,
             .value = "N",
             .help = "callers at once",
             .fallback = "4",
             .min = 1},
            {.name = "requests",
             .kind = OptionKind::kWhole,
             .value = "N",
             .help = "requests of each caller and layer",
             .fallback = "100",
             .min = 1},
            {.name = "duration",
             .kind = OptionKind::kDuration,
             .value = "SECONDS",
             .help = "time for each layer, instead of a number of requests"},
            {.name = "stream",
             .kind = OptionKind::kSwitch,
             .help = "all callers on one ForwardStream instead of unary calls"},
            TimeoutOption("60"),
            {.name = "json", .value = "FILE", .help = "write the results as JSON, too"}}},
          &Run};
}

}  // namespace expertmesh
