#include <utility>

#include "client/cpp/replay/report.h"
#include "nlohmann/json.hpp"

namespace expertmesh::replay {
namespace {

nlohmann::json FiguresJson(const IntervalFigures& figures) {
  return {{"tokens", figures.tokens},
          {"nodes", figures.nodes},
          {"fullest_over_mean", figures.fullest},
          {"fullest_over_mean_worst_layer", figures.fullest_worst},
          {"max_violation", figures.max_violation},
          {"max_violation_batch", figures.max_violation_batch},
          {"changed_tokens", figures.changed},
          {"changed_tokens_worst_layer", figures.changed_worst},
          {"lost_assignments", figures.lost},
          {"p50_us", figures.p50_us},
          {"p99_us", figures.p99_us},
          {"busy", figures.busy},
          {"moves", figures.moves},
          {"bytes", figures.bytes},
          {"copies", figures.copies},
          {"lower_bound", figures.lower_bound}};
}

nlohmann::json PolicyJson(const PolicyResult& policy) {
  nlohmann::json intervals = nlohmann::json::array();
  for (const IntervalFigures& interval : policy.intervals) {
    nlohmann::json json = FiguresJson(interval);
    json["start_s"] = interval.start_s;
    intervals.push_back(std::move(json));
  }
  return {{"name", policy.name},
          {"plans", policy.plans},
          {"failed_plans", policy.failed_plans},
          {"failure", policy.failure},
          {"planning_s", policy.planning_s},
          {"summary", FiguresJson(Summarise(policy))},
          {"intervals", std::move(intervals)}};
}

}  // namespace

std::string ToJson(const Report& report) {
  nlohmann::json policies = nlohmann::json::array();
  for (const PolicyResult& policy : report.result.policies) {
    policies.push_back(PolicyJson(policy));
  }
  nlohmann::json events = nlohmann::json::array();
  for (const MeshEvent& event : report.mesh.events) {
    events.push_back({{"at_s", event.at_s},
                      {"node", event.node},
                      {"kind", event.kind == MeshEvent::Kind::kFail ? "fail" : "join"}});
  }
  const ServiceTimes& times = report.mesh.times;
  return nlohmann::json({{"load", report.load},
                         {"interval_s", report.interval_s},
                         {"layers", report.layers},
                         {"nodes", report.mesh.nodes.size()},
                         {"node_memory_bytes", report.mesh.node_memory_bytes},
                         {"load_bytes_per_second", report.mesh.load_bytes_per_second},
                         {"service_times",
                          {{"assignment_us", times.assignment_us},
                           {"expert_us", times.expert_us},
                           {"batch_us", times.batch_us},
                           {"row_us", times.row_us},
                           {"token_us", times.token_us},
                           {"hop_us", times.hop_us}}},
                         {"parallel_nodes", report.mesh.parallel_nodes},
                         {"events", std::move(events)},
                         {"policies", std::move(policies)}})
             .dump(1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace expertmesh::replay
