#include "client/cpp/command/bench_layer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/command/cpu_time.h"
#include "client/cpp/command/statistics.h"
#include "common/balance/measures.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// Sums over requests of what the router and the nodes said of them.
class Stages {
 public:
  void Add(const client::ForwardTiming& timing) {
    absl::MutexLock lock(&mutex_);
    ++requests_;
    sum_.queue += static_cast<double>(timing.queue_us);
    sum_.route += static_cast<double>(timing.route_us);
    sum_.combine += static_cast<double>(timing.combine_us);
    sum_.node_queue += static_cast<double>(timing.node_queue_us);
    sum_.compute += static_cast<double>(timing.node_compute_us);
    // The node's clock rounds for itself.
    const uint64_t in_node = timing.node_queue_us + timing.node_compute_us;
    sum_.node_wire += static_cast<double>(timing.experts_us - std::min(timing.experts_us, in_node));
    batch_tokens_ += timing.batch_tokens;
    batch_nodes_ += timing.nodes;
  }

  void Write(double mean_latency_us, LayerResult* result) const {
    absl::MutexLock lock(&mutex_);
    if (requests_ == 0) {
      return;
    }
    StageTimes& mean = result->stages;
    mean = sum_;
    double known = 0;
    for (double* stage : {&mean.queue, &mean.route, &mean.node_queue, &mean.compute,
                          &mean.node_wire, &mean.combine}) {
      *stage /= requests_;
      known += *stage;
    }
    mean.client_wire = std::max(0.0, mean_latency_us - known);
    result->batch_tokens = batch_tokens_ / requests_;
    result->batch_nodes = batch_nodes_ / requests_;
  }

 private:
  mutable absl::Mutex mutex_;
  double requests_ ABSL_GUARDED_BY(mutex_) = 0;
  double batch_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  double batch_nodes_ ABSL_GUARDED_BY(mutex_) = 0;
  StageTimes sum_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<double> AskForRouting(const Mesh& mesh, const client::LayerInfo& layer,
                                     const std::vector<client::Matrix>& requests,
                                     client::ForwardOptions forward) {
  forward.return_routing = true;
  std::vector<uint64_t> assignments(layer.num_experts);
  for (const client::Matrix& hidden : requests) {
    ASSIGN_OR_RETURN(const client::ForwardResult result,
                     mesh.client->Forward(layer.layer, hidden, forward));
    for (const uint32_t expert : result.routing.expert_ids) {
      if (expert < assignments.size()) {
        ++assignments[expert];
      }
    }
  }
  return balance::MaxViolation(assignments);
}

double Mean(const std::vector<double>& values) {
  return values.empty() ? 0
                        : std::accumulate(values.begin(), values.end(), 0.0) /
                              static_cast<double>(values.size());
}

}  // namespace

double LayerResult::Latency(double share) const {
  return Percentile(traffic.latencies_us, share) / 1000;
}

std::vector<client::Matrix> MakeRequests(const HiddenMaker& maker, size_t tokens) {
  const size_t count = std::clamp<size_t>(512 / tokens, 4, 64);
  std::vector<client::Matrix> requests;
  for (size_t i = 0; i < count; ++i) {
    requests.push_back(maker.Make(tokens, i + 1));
  }
  return requests;
}

absl::StatusOr<LayerResult> BenchLayer(const Mesh& mesh, client::ForwardStream* stream,
                                       const client::LayerInfo& layer, const HiddenMaker& maker,
                                       const BenchOptions& options,
                                       const std::function<void()>& answered) {
  const std::vector<client::Matrix> requests = MakeRequests(maker, options.tokens);
  LayerResult result;
  result.layer = layer.layer;
  ASSIGN_OR_RETURN(result.max_violation, AskForRouting(mesh, layer, requests, options.forward));
  Stages warm_up;
  Stages measured;
  Stages* stages = &warm_up;
  const SendRequest send = [&](size_t caller, uint64_t index,
                               std::function<void(absl::Status)> done) {
    const client::Matrix& hidden = requests[(caller * 7 + index) % requests.size()];
    client::ForwardCallback on_answer =
        [stages, done = std::move(done)](const absl::StatusOr<client::ForwardResult>& answer) {
          if (answer.ok()) {
            stages->Add(answer->timing);
          }
          done(answer.status());
        };
    if (stream != nullptr) {
      stream->Send(layer.layer, hidden, options.forward, std::move(on_answer));
    } else {
      mesh.client->ForwardAsync(layer.layer, hidden, options.forward, std::move(on_answer));
    }
  };
  // Connections and buffers of all callers are there before the clock starts.
  TrafficOptions once = options.traffic;
  once.requests = 1;
  once.duration.reset();
  RETURN_IF_ERROR(RunTraffic(once, send, nullptr).status);
  stages = &measured;
  ASSIGN_OR_RETURN(const double cpu_before, CpuSeconds(options.pids));
  result.traffic = RunTraffic(options.traffic, send, answered);
  ASSIGN_OR_RETURN(const double cpu_after, CpuSeconds(options.pids));
  if (options.traffic.rate == 0 || result.traffic.latencies_us.empty()) {
    RETURN_IF_ERROR(result.traffic.status);
  }
  result.cpu_seconds = cpu_after - cpu_before;
  measured.Write(Mean(result.traffic.latencies_us), &result);
  return result;
}

nlohmann::json ToJson(const LayerResult& result, size_t tokens, bool raw) {
  const StageTimes& stages = result.stages;
  nlohmann::json json = {{"layer", result.layer},
                         {"requests", result.traffic.latencies_us.size()},
                         {"failed", result.traffic.failed},
                         {"seconds", result.traffic.seconds},
                         {"tokens_per_second", result.TokensPerSecond(tokens)},
                         {"mean_ms", Mean(result.traffic.latencies_us) / 1000},
                         {"p50_ms", result.Latency(0.5)},
                         {"p90_ms", result.Latency(0.9)},
                         {"p99_ms", result.Latency(0.99)},
                         {"p999_ms", result.Latency(0.999)},
                         {"cpu_seconds", result.cpu_seconds},
                         {"batch_tokens", result.batch_tokens},
                         {"batch_nodes", result.batch_nodes},
                         {"max_violation", result.max_violation},
                         {"stages_us",
                          {{"queue", stages.queue},
                           {"route", stages.route},
                           {"node_queue", stages.node_queue},
                           {"compute", stages.compute},
                           {"node_wire", stages.node_wire},
                           {"combine", stages.combine},
                           {"client_wire", stages.client_wire}}}};
  if (raw) {
    json["latencies_us"] = result.traffic.latencies_us;
  }
  return json;
}

}  // namespace expertmesh::command
