#include "router_service/console/console.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "router_service/console/control_pages.h"
#include "router_service/console/jaeger_pages.h"
#include "router_service/console/json_answer.h"
#include "router_service/console/page_files.h"

namespace expertmesh::console {
namespace {

using telemetry::HttpRequest;
using telemetry::HttpResponse;

constexpr char kStartPage[] = "index.html";

std::vector<uint32_t> LayersOf(const v1::DescribeModelResponse& model) {
  std::vector<uint32_t> layers;
  for (const auto& layer : model.layers()) {
    layers.push_back(layer.layer());
  }
  return layers;
}

std::string ContentTypeOf(absl::string_view name) {
  if (absl::EndsWith(name, ".html")) {
    return "text/html; charset=utf-8";
  }
  if (absl::EndsWith(name, ".css")) {
    return "text/css; charset=utf-8";
  }
  if (absl::EndsWith(name, ".js")) {
    return "text/javascript; charset=utf-8";
  }
  return absl::EndsWith(name, ".svg") ? "image/svg+xml" : "text/plain; charset=utf-8";
}

void AddPage(telemetry::HttpServer* server) {
  for (const PageFile& file : PageFiles()) {
    server->Handle(file.name == kStartPage ? "/" : absl::StrCat("/console/", file.name),
                   [file, type = ContentTypeOf(file.name)](const HttpRequest&) {
                     HttpResponse response;
                     response.content_type = type;
                     response.body = std::string(file.bytes);
                     return response;
                   });
  }
}

nlohmann::json ToJson(const std::vector<EpochChange>& history) {
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochChange& change : history) {
    epochs.push_back({{"epoch", absl::StrCat(change.epoch)},
                      {"at_unix_ms", absl::StrCat(absl::ToUnixMillis(change.at))},
                      {"changes", change.changes}});
  }
  return {{"epochs", std::move(epochs)}};
}

}  // namespace

Console::Console(serve::ServedRouter router)
    : router_(std::move(router)), layers_(LayersOf(router_.describe_model())) {
  subscription_ = router_.fleet->Subscribe([this] { Observe(); });
  Observe();
}

Console::~Console() { router_.fleet->Unsubscribe(subscription_); }

void Console::Observe() {
  history_.Observe(absl::Now(),
                   FactsOf(*router_.fleet->view(), router_.fleet->Topology(), layers_));
}

void Console::AddTo(telemetry::HttpServer* server) const {
  AddPage(server);
  AddControlPages(&router_, server);
  AddJaegerPages(router_.tracer, server);
  server->Handle("/api/v1/epochs",
                 [this](const HttpRequest&) { return JsonAnswer(ToJson(history_.Read())); });
}

}  // namespace expertmesh::console
