#include "router_service/serve/load_metrics.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/telemetry/metrics.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/metrics/metric_table.h"

namespace expertmesh::serve {
namespace {

using telemetry::HttpRequest;
using telemetry::HttpResponse;

std::string AsJson(const v1::GetLoadResponse& load) {
  std::string text = absl::StrCat("{\"epoch\":", load.epoch(), ",\"window_ms\":", load.window_ms(),
                                  ",\"layers\":[");
  bool first = true;
  for (const v1::LayerLoad& layer : load.layers()) {
    absl::StrAppend(
        &text, std::exchange(first, false) ? "\n" : ",\n", "{\"layer\":", layer.layer(),
        ",\"tokens\":", layer.tokens(), ",\"compared_tokens\":", layer.compared_tokens(),
        ",\"changed_tokens\":", layer.changed_tokens(), ",\"node_us\":", layer.node_us(),
        ",\"assignments\":[", absl::StrJoin(layer.assignments(), ","), "]}");
  }
  return text + "\n]}\n";
}

std::string AsCsv(const v1::GetLoadResponse& load) {
  std::string text = "layer,expert,assignments\n";
  for (const v1::LayerLoad& layer : load.layers()) {
    for (int expert = 0; expert < layer.assignments_size(); ++expert) {
      absl::StrAppend(&text, layer.layer(), ",", expert, ",", layer.assignments(expert), "\n");
    }
  }
  return text;
}

void AddPage(const std::string& path, const std::string& content_type,
             std::string (*write)(const v1::GetLoadResponse& load),
             balance_control::Controller* controller, telemetry::HttpServer* server) {
  server->Handle(path, [content_type, write, controller](const HttpRequest& request) {
    HttpResponse response;
    const absl::StatusOr<v1::GetLoadRequest> wanted = LoadRequestOf(request);
    if (!wanted.ok()) {
      response.status = 400;
      response.body = absl::StrCat(wanted.status().message(), "\n");
      return response;
    }
    response.content_type = content_type;
    response.body = write(controller->GetLoad(*wanted));
    return response;
  });
}

}  // namespace

LoadMetrics::LoadMetrics(std::function<balance_control::LoadCounts()> read,
                         const telemetry::ExpertMetricsOptions& options, Clock* clock)
    : read_(std::move(read)), experts_(&metrics::table::kExpertTokensTotal, options, clock) {}

std::vector<prometheus::MetricFamily> LoadMetrics::Collect() const {
  namespace table = metrics::table;
  prometheus::MetricFamily tokens = telemetry::FamilyOf(table::kLayerTokensTotal);
  prometheus::MetricFamily assignments = telemetry::FamilyOf(table::kLayerAssignmentsTotal);
  prometheus::MetricFamily compared = telemetry::FamilyOf(table::kLayerComparedTokensTotal);
  prometheus::MetricFamily changed = telemetry::FamilyOf(table::kLayerChangedTokensTotal);
  prometheus::MetricFamily node_seconds = telemetry::FamilyOf(table::kLayerNodeSecondsTotal);
  telemetry::ExpertCounts experts;
  for (const auto& [layer, counts] : read_()) {
    const prometheus::Labels labels = {{"layer", std::to_string(layer)}};
    const auto add = [&labels](uint64_t count, prometheus::MetricFamily* family) {
      telemetry::AddCounter(static_cast<double>(count), labels, family);
    };
    add(counts.tokens, &tokens);
    add(counts.compared, &compared);
    add(counts.changed, &changed);
    telemetry::AddCounter(static_cast<double>(counts.node_us) / 1e6, labels, &node_seconds);
    std::vector<telemetry::ExpertCount>& of_layer = experts[layer];
    uint64_t sum = 0;
    for (uint32_t expert = 0; expert < counts.assignments.size(); ++expert) {
      sum += counts.assignments[expert];
      of_layer.push_back({expert, counts.assignments[expert]});
    }
    add(sum, &assignments);
  }
  return {std::move(tokens),  std::move(assignments),  std::move(compared),
          std::move(changed), std::move(node_seconds), experts_.Collect(experts)};
}

absl::StatusOr<v1::GetLoadRequest> LoadRequestOf(const HttpRequest& request) {
  v1::GetLoadRequest wanted;
  const std::string scope = request.Parameter("scope").value_or("mesh");
  if (scope != "mesh" && scope != "router") {
    return absl::InvalidArgumentError("scope: use mesh or router");
  }
  wanted.set_scope(scope == "mesh" ? v1::LOAD_SCOPE_MESH : v1::LOAD_SCOPE_UNSPECIFIED);
  uint32_t window_ms = 0;
  if (!absl::SimpleAtoi(request.Parameter("window_ms").value_or("0"), &window_ms)) {
    return absl::InvalidArgumentError("window_ms: use a whole number of milliseconds");
  }
  wanted.set_window_ms(window_ms);
  return wanted;
}

void AddLoadPages(balance_control::Controller* controller, telemetry::HttpServer* server) {
  AddPage("/load.json", "application/json", AsJson, controller, server);
  AddPage("/load.csv", "text/csv; charset=utf-8", AsCsv, controller, server);
}

}  // namespace expertmesh::serve
