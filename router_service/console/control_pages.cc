#include "router_service/console/control_pages.h"

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/trace/otlp_json.h"
#include "router_service/console/json_answer.h"
#include "router_service/console/kept_trace.h"
#include "router_service/serve/control_service.h"
#include "router_service/serve/load_metrics.h"
#include "router_service/serve/trace_service.h"

namespace expertmesh::console {
namespace {

using serve::ServedRouter;
using telemetry::HttpRequest;
using telemetry::HttpResponse;

constexpr char kTraces[] = "/api/v1/traces/";

// A whole number of the query; 0 where it is not there.
template <typename Number>
absl::StatusOr<Number> WholeNumber(const HttpRequest& request, const std::string& name) {
  Number number = 0;
  if (!absl::SimpleAtoi(request.Parameter(name).value_or("0"), &number)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": use a whole number"));
  }
  return number;
}

absl::StatusOr<v1::GetBiasResponse> Bias(const ServedRouter& router, const HttpRequest& request) {
  v1::GetBiasResponse response;
  ASSIGN_OR_RETURN(const uint64_t epoch, WholeNumber<uint64_t>(request, "epoch"));
  ASSIGN_OR_RETURN(*response.mutable_bias(), router.controller->GetBias(epoch));
  return response;
}

absl::StatusOr<v1::GetLoadResponse> Load(const ServedRouter& router, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const v1::GetLoadRequest wanted, serve::LoadRequestOf(request));
  return router.controller->GetLoad(wanted);
}

absl::StatusOr<v1::ListTracesResponse> Traces(const ServedRouter& router,
                                              const HttpRequest& request) {
  v1::ListTracesRequest wanted;
  const std::string order = request.Parameter("order").value_or("recent");
  if (order != "recent" && order != "slowest") {
    return absl::InvalidArgumentError("order: use recent or slowest");
  }
  wanted.set_order(order == "slowest" ? v1::TRACE_ORDER_SLOWEST : v1::TRACE_ORDER_RECENT);
  ASSIGN_OR_RETURN(const uint32_t limit, WholeNumber<uint32_t>(request, "limit"));
  wanted.set_limit(limit);
  return serve::ListTraces(router.tracer, wanted);
}

HttpResponse Trace(const ServedRouter& router, const HttpRequest& request) {
  const std::string id = request.path.substr(sizeof(kTraces) - 1);
  const absl::StatusOr<internal::otlp::TracesData> trace = FindTrace(router.tracer, id);
  if (!trace.ok()) {
    return Failed(trace.status());
  }
  HttpResponse response;
  response.content_type = "application/json";
  response.body = trace::ToOtlpJson(*trace);
  if (request.Parameter("download").has_value()) {
    // The id is 32 hexadecimal digits, else there were no trace.
    response.headers.emplace_back(
        "Content-Disposition", absl::StrCat("attachment; filename=\"trace-", id, ".otlp.json\""));
  }
  return response;
}

}  // namespace

void AddControlPages(const ServedRouter* router, telemetry::HttpServer* server) {
  server->Handle("/api/v1/topology", [router](const HttpRequest&) {
    v1::GetTopologyResponse response;
    *response.mutable_topology() = serve::TopologyOf(*router);
    return JsonAnswer(response);
  });
  server->Handle("/api/v1/model",
                 [router](const HttpRequest&) { return JsonAnswer(router->describe_model()); });
  server->Handle("/api/v1/balance", [router](const HttpRequest&) {
    v1::GetBalanceResponse response;
    *response.mutable_balance() = router->controller->GetBalance();
    return JsonAnswer(response);
  });
  server->Handle("/api/v1/bias", [router](const HttpRequest& request) {
    return JsonAnswer(Bias(*router, request));
  });
  server->Handle("/api/v1/placement", [router](const HttpRequest&) {
    v1::GetPlacementResponse response;
    *response.mutable_placement() = router->controller->GetPlacement(/*with_plan=*/true);
    return JsonAnswer(response);
  });
  server->Handle("/api/v1/load", [router](const HttpRequest& request) {
    return JsonAnswer(Load(*router, request));
  });
  server->Handle("/api/v1/traces", [router](const HttpRequest& request) {
    return JsonAnswer(Traces(*router, request));
  });
  server->Handle(kTraces, [router](const HttpRequest& request) { return Trace(*router, request); });
}

}  // namespace expertmesh::console
