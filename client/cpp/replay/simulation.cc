#include "client/cpp/replay/simulation.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/replay/latency_mixture.h"
#include "client/cpp/replay/layer_figures.h"
#include "client/cpp/replay/layer_run.h"
#include "client/cpp/replay/placement_run.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"

namespace expertmesh::replay {
namespace {

absl::Status ValidatePolicies(const std::vector<Policy>& policies, const LoadSource& load) {
  if (policies.empty()) {
    return absl::InvalidArgumentError("no policies to compare; name at least one");
  }
  std::set<std::string> names;
  for (const Policy& policy : policies) {
    if (!names.insert(policy.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("policy '", policy.name, "' comes twice; name each once"));
    }
    RETURN_IF_ERROR(balance::ValidateBiasPolicy(policy.bias));
    if (policy.bias.rule != balance::BiasRule::kFrozen && !load.has_scores()) {
      return absl::InvalidArgumentError(
          absl::StrCat("policy '", policy.name,
                       "' moves the bias, and this load has counts alone: what tokens would choose "
                       "with another bias cannot be told without their scores; use policies "
                       "without a bias, or a synthetic load"));
    }
    if (policy.plans && !(policy.plan_interval_s > 0)) {
      return absl::InvalidArgumentError(absl::StrCat("policy '", policy.name, "' plans every ",
                                                     policy.plan_interval_s,
                                                     " s; use more than 0"));
    }
  }
  return absl::OkStatus();
}

// One policy on its way through the load.
class PolicyRun {
 public:
  PolicyRun(const Policy& policy, const MeshModel& mesh,
            absl::Span<const balance::RecordedLayer> layers, const SimulationOptions& options)
      : policy_(policy), mesh_(mesh), options_(options), placement_(mesh, layers) {
    result_.name = policy.name;
    next_plan_s_ = policy.plan_interval_s;
    for (const balance::RecordedLayer& layer : layers) {
      layers_.emplace_back(layer, policy.bias);
      loads_.emplace_back(layer.num_experts);
    }
    figures_.resize(layers.size());
  }

  void RunInterval(const IntervalLoad& load, double interval_s, ThreadPool* pool) {
    IntervalFigures figures;
    figures.start_s = load.start_s;
    TakeEvents(load.start_s, &figures);
    placement_.Settle(load.start_s);
    pool->ParallelFor(layers_.size(), [&](size_t i, size_t) {
      const LayerLoad& layer = load.layers[i];
      layers_[i].Run(layer, options_.max_bias_steps);
      EvaluateLayer(mesh_, placement_.alive(), placement_.layers()[i], layers_[i].assignments(),
                    layer.tokens, layer.batch_sizes, &figures_[i]);
    });
    Gather(load, interval_s, &figures);
    const double end_s = load.start_s + interval_s;
    if (policy_.plans && end_s >= next_plan_s_ && !placement_.settling()) {
      Plan(end_s, &figures);
      next_plan_s_ = end_s + policy_.plan_interval_s;
    }
    result_.intervals.push_back(figures);
  }

  PolicyResult TakeResult() { return std::move(result_); }

 private:
  void TakeEvents(double now_s, IntervalFigures* figures) {
    bool failed = false;
    for (; next_event_ < mesh_.events.size() && mesh_.events[next_event_].at_s <= now_s;
         ++next_event_) {
      const MeshEvent& event = mesh_.events[next_event_];
      if (event.kind == MeshEvent::Kind::kFail) {
        placement_.Fail(event.node);
        failed = true;
      } else {
        placement_.Join(event.node);
      }
    }
    if (failed && policy_.plans && placement_.nodes() > 0) {
      Plan(now_s, figures);
      next_plan_s_ = now_s + policy_.plan_interval_s;
    }
  }

  void Plan(double now_s, IntervalFigures* figures) {
    const absl::Time start = options_.clock->Now();
    const absl::StatusOr<Moves> moves = placement_.Plan(loads_, policy_.planner, now_s);
    result_.planning_s += absl::ToDoubleSeconds(options_.clock->Now() - start);
    if (!moves.ok()) {
      ++result_.failed_plans;
      result_.failure = std::string(moves.status().message());
      return;
    }
    ++result_.plans;
    figures->moves += moves->copies;
    figures->bytes += moves->bytes;
    lower_bound_ = moves->lower_bound;
    fresh_ = true;
  }

  void Gather(const IntervalLoad& load, double interval_s, IntervalFigures* figures) {
    if (fresh_) {
      // The next plan is made of what was counted since the last one.
      for (std::vector<double>& layer : loads_) {
        std::fill(layer.begin(), layer.end(), 0);
      }
      fresh_ = false;
    }
    LatencyMixture latency;
    std::vector<double> busy(mesh_.nodes.size());
    double lost = 0;
    double assigned = 0;
    double fullest = 0;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LayerRun& layer = layers_[i];
      const LayerFigures& of_layer = figures_[i];
      figures->tokens += load.layers[i].tokens;
      fullest += of_layer.fullest_over_mean;
      figures->fullest_worst = std::max(figures->fullest_worst, of_layer.fullest_over_mean);
      figures->max_violation += layer.violation();
      figures->max_violation_batch += layer.batch_violation();
      figures->changed += layer.changed();
      figures->changed_worst = std::max(figures->changed_worst, layer.changed());
      lost += of_layer.lost;
      for (size_t expert = 0; expert < loads_[i].size(); ++expert) {
        loads_[i][expert] += layer.assignments()[expert];
        assigned += layer.assignments()[expert];
      }
      for (size_t node = 0; node < busy.size(); ++node) {
        busy[node] += of_layer.busy_us[node];
      }
      for (const BatchTimes& times : of_layer.times) {
        latency.Add(times.batches, times.nodes);
      }
    }
    const auto layers = static_cast<double>(layers_.size());
    figures->tokens /= layers;
    figures->fullest = fullest / layers;
    figures->max_violation /= layers;
    figures->max_violation_batch /= layers;
    figures->changed /= layers;
    figures->lost = assigned > 0 ? lost / assigned : 0;
    figures->busy = *std::max_element(busy.begin(), busy.end()) / (interval_s * 1e6);
    figures->p50_us = latency.Quantile(0.5);
    figures->p99_us = latency.Quantile(0.99);
    figures->nodes = placement_.nodes();
    figures->copies = placement_.copies();
    figures->lower_bound = lower_bound_;
  }

  const Policy& policy_;
  const MeshModel& mesh_;
  const SimulationOptions& options_;
  PlacementRun placement_;
  std::vector<LayerRun> layers_;
  std::vector<LayerFigures> figures_;
  // [layers][num_experts] Counted since the last plan.
  std::vector<std::vector<double>> loads_;
  bool fresh_ = false;
  double next_plan_s_ = 0;
  double lower_bound_ = 0;
  size_t next_event_ = 0;
  PolicyResult result_;
};

}  // namespace

IntervalFigures Summarise(const PolicyResult& result) {
  IntervalFigures sum;
  sum.fullest = 0;
  for (const IntervalFigures& interval : result.intervals) {
    const double tokens = interval.tokens;
    sum.tokens += tokens;
    sum.fullest += tokens * interval.fullest;
    sum.max_violation += tokens * interval.max_violation;
    sum.max_violation_batch += tokens * interval.max_violation_batch;
    sum.changed += tokens * interval.changed;
    sum.lost += tokens * interval.lost;
    sum.p50_us += tokens * interval.p50_us;
    sum.p99_us += tokens * interval.p99_us;
    sum.fullest_worst = std::max(sum.fullest_worst, interval.fullest_worst);
    sum.changed_worst = std::max(sum.changed_worst, interval.changed_worst);
    sum.busy = std::max(sum.busy, interval.busy);
    sum.copies = std::max(sum.copies, interval.copies);
    sum.nodes = std::max(sum.nodes, interval.nodes);
    sum.moves += interval.moves;
    sum.bytes += interval.bytes;
    sum.lower_bound = interval.lower_bound;
  }
  if (sum.tokens > 0) {
    for (double* mean : {&sum.fullest, &sum.max_violation, &sum.max_violation_batch, &sum.changed,
                         &sum.lost, &sum.p50_us, &sum.p99_us}) {
      *mean /= sum.tokens;
    }
  }
  return sum;
}

absl::StatusOr<SimulationResult> Simulate(LoadSource& load, const MeshModel& mesh,
                                          const std::vector<Policy>& policies,
                                          const SimulationOptions& options,
                                          const std::function<void(uint64_t)>& progress) {
  RETURN_IF_ERROR(ValidateMeshModel(mesh, load.layers()));
  RETURN_IF_ERROR(ValidatePolicies(policies, load));
  if (load.intervals() > kMaxIntervals) {
    return absl::InvalidArgumentError(absl::StrCat("the load has ", load.intervals(),
                                                   " intervals; use longer ones, at most ",
                                                   kMaxIntervals, " of them"));
  }
  std::vector<std::unique_ptr<PolicyRun>> runs;
  for (const Policy& policy : policies) {
    runs.push_back(std::make_unique<PolicyRun>(policy, mesh, load.layers(), options));
  }
  // This thread computes, too.
  ThreadPool pool(std::max(1, options.threads - 1));
  IntervalLoad interval;
  for (uint64_t i = 0; i < load.intervals(); ++i) {
    load.Next(&interval);
    for (const std::unique_ptr<PolicyRun>& run : runs) {
      run->RunInterval(interval, load.interval_s(), &pool);
    }
    if (progress) {
      progress(i + 1);
    }
  }
  SimulationResult result;
  for (const std::unique_ptr<PolicyRun>& run : runs) {
    result.policies.push_back(run->TakeResult());
  }
  return result;
}

}  // namespace expertmesh::replay
