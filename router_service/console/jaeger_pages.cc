#include "router_service/console/jaeger_pages.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "common/trace/otlp.pb.h"
#include "router_service/console/jaeger_json.h"
#include "router_service/console/jaeger_query.h"
#include "router_service/console/json_answer.h"
#include "router_service/console/kept_trace.h"
#include "router_service/serve/trace_service.h"

namespace expertmesh::console {
namespace {

using internal::otlp::TracesData;
using nlohmann::json;
using telemetry::HttpRequest;
using telemetry::HttpResponse;

// What lists of services and the like are made of.
constexpr size_t kMostTraces = 1000;
constexpr char kTraces[] = "/api/traces/";
constexpr char kServices[] = "/api/services/";
constexpr char kOperations[] = "/operations";

HttpResponse Answer(json data) {
  const size_t total = data.size();
  return JsonAnswer(json{{"data", std::move(data)},
                         {"total", total},
                         {"limit", 0},
                         {"offset", 0},
                         {"errors", nullptr}});
}

// Errors are in the body as well, where Jaeger's clients look for them.
HttpResponse Refusal(const absl::Status& status) {
  const int code = Failed(status).status;
  json error = {{"code", code}, {"msg", std::string(status.message())}};
  HttpResponse response =
      JsonAnswer(json{{"data", nullptr}, {"errors", json::array({std::move(error)})}});
  response.status = code;
  return response;
}

// The newest that `wanted` takes, at most `limit`.
template <typename Wanted>
absl::StatusOr<std::vector<TracesData>> Collect(tracing::Tracer* tracer, size_t limit,
                                                const Wanted& wanted) {
  v1::ListTracesRequest request;
  request.set_limit(kMostTraces);
  const absl::StatusOr<v1::ListTracesResponse> list = serve::ListTraces(tracer, request);
  if (!list.ok()) {
    return list.status();
  }
  std::vector<TracesData> traces;
  // A trace is listed once for each of its requests.
  absl::flat_hash_set<std::string> seen;
  for (const v1::TraceSummary& line : list->traces()) {
    if (traces.size() >= limit) {
      break;
    }
    if (!seen.insert(line.trace_id()).second) {
      continue;
    }
    // One that went meanwhile is not missed.
    absl::StatusOr<TracesData> trace = FindTrace(tracer, line.trace_id());
    if (trace.ok() && wanted(*trace)) {
      traces.push_back(*std::move(trace));
    }
  }
  return traces;
}

absl::StatusOr<std::vector<TracesData>> CollectAll(tracing::Tracer* tracer) {
  return Collect(tracer, kMostTraces, [](const TracesData&) { return true; });
}

// By service: names and kinds of its spans.
using Operations = std::map<std::string, std::set<std::pair<std::string, std::string>>>;

absl::StatusOr<Operations> ReadOperations(tracing::Tracer* tracer) {
  const absl::StatusOr<std::vector<TracesData>> traces = CollectAll(tracer);
  if (!traces.ok()) {
    return traces.status();
  }
  Operations operations;
  for (const TracesData& trace : *traces) {
    for (const auto& process : trace.resource_spans()) {
      for (const auto& scope : process.scope_spans()) {
        for (const auto& span : scope.spans()) {
          operations[ServiceOf(process)].insert({span.name(), KindOf(span)});
        }
      }
    }
  }
  return operations;
}

HttpResponse Services(tracing::Tracer* tracer) {
  const absl::StatusOr<Operations> operations = ReadOperations(tracer);
  if (!operations.ok()) {
    return Refusal(operations.status());
  }
  json services = json::array();
  for (const auto& [service, names] : *operations) {
    services.push_back(service);
  }
  return Answer(std::move(services));
}

// `with_kind`: as objects, of which there may be several for one name.
HttpResponse OperationsOf(tracing::Tracer* tracer, const std::string& service, bool with_kind) {
  const absl::StatusOr<Operations> operations = ReadOperations(tracer);
  if (!operations.ok()) {
    return Refusal(operations.status());
  }
  json list = json::array();
  std::string last;
  const auto found = operations->find(service);
  if (found != operations->end()) {
    for (const auto& [name, kind] : found->second) {
      if (with_kind) {
        list.push_back({{"name", name}, {"spanKind", kind}});
      } else if (name != last) {
        list.push_back(name);
        last = name;
      }
    }
  }
  return Answer(std::move(list));
}

HttpResponse OperationsOfPath(tracing::Tracer* tracer, const HttpRequest& request) {
  absl::string_view service = absl::StripPrefix(request.path, kServices);
  if (!absl::ConsumeSuffix(&service, kOperations)) {
    return Refusal(absl::NotFoundError("use /api/services/NAME/operations"));
  }
  return OperationsOf(tracer, std::string(service), /*with_kind=*/false);
}

HttpResponse Search(tracing::Tracer* tracer, const HttpRequest& request) {
  const absl::StatusOr<JaegerQuery> query = ParseJaegerQuery(request);
  if (!query.ok()) {
    return Refusal(query.status());
  }
  const absl::StatusOr<std::vector<TracesData>> traces = Collect(
      tracer, query->limit, [&query](const TracesData& trace) { return Matches(*query, trace); });
  if (!traces.ok()) {
    return Refusal(traces.status());
  }
  json list = json::array();
  for (const TracesData& trace : *traces) {
    list.push_back(ToJaegerTrace(trace));
  }
  return Answer(std::move(list));
}

HttpResponse TraceOf(tracing::Tracer* tracer, const HttpRequest& request) {
  const absl::StatusOr<TracesData> trace =
      FindTrace(tracer, request.path.substr(sizeof(kTraces) - 1));
  return trace.ok() ? Answer(json::array({ToJaegerTrace(*trace)})) : Refusal(trace.status());
}

HttpResponse Dependencies(tracing::Tracer* tracer) {
  const absl::StatusOr<std::vector<TracesData>> traces = CollectAll(tracer);
  return traces.ok() ? Answer(ToJaegerDependencies(*traces)) : Refusal(traces.status());
}

}  // namespace

void AddJaegerPages(tracing::Tracer* tracer, telemetry::HttpServer* server) {
  server->Handle("/api/services", [tracer](const HttpRequest&) { return Services(tracer); });
  server->Handle(kServices, [tracer](const HttpRequest& request) {
    return OperationsOfPath(tracer, request);
  });
  server->Handle("/api/operations", [tracer](const HttpRequest& request) {
    return OperationsOf(tracer, request.Parameter("service").value_or(""), /*with_kind=*/true);
  });
  server->Handle("/api/traces",
                 [tracer](const HttpRequest& request) { return Search(tracer, request); });
  server->Handle(kTraces,
                 [tracer](const HttpRequest& request) { return TraceOf(tracer, request); });
  server->Handle("/api/dependencies",
                 [tracer](const HttpRequest&) { return Dependencies(tracer); });
}

}  // namespace expertmesh::console
