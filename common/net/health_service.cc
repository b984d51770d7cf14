#include "common/net/health_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"
#include "grpc/health/v1/health.pb.h"

namespace expertmesh::net {
namespace {

namespace health = grpc::health::v1;

// Bytes of the name of a service that an error shows.
constexpr size_t kMostShown = 256;

Frame Encode(health::HealthCheckResponse::ServingStatus status) {
  health::HealthCheckResponse response;
  response.set_status(status);
  return Frame(response.SerializeAsString());
}

health::HealthCheckResponse::ServingStatus StatusOf(bool serving) {
  return serving ? health::HealthCheckResponse::SERVING : health::HealthCheckResponse::NOT_SERVING;
}

}  // namespace

// Takes the one request of a watch.
class HealthService::WatchHandler final : public StreamHandler {
 public:
  WatchHandler(HealthService* service, std::shared_ptr<ServerStreamSink> sink)
      : service_(service), sink_(std::move(sink)) {}

  void OnFrame(Frame frame) override {
    if (sink_ != nullptr) {
      service_->AddWatch(frame, std::move(sink_));
    }
  }

 private:
  HealthService* const service_;
  std::shared_ptr<ServerStreamSink> sink_;
};

std::vector<RawUnaryMethod> HealthService::UnaryMethods() {
  return {
      {"/grpc.health.v1.Health/Check",
       [this](const Frame& request, const CallContextPtr&, const UnaryResponder& respond) {
         respond(Check(request));
       }},
      {"/grpc.health.v1.Health/List", [this](const Frame&, const CallContextPtr&,
                                             const UnaryResponder& respond) { respond(List()); }}};
}

RawStreamMethod HealthService::WatchMethod() {
  return {"/grpc.health.v1.Health/Watch",
          [this](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr&) {
            return std::make_unique<WatchHandler>(this, std::move(sink));
          }};
}

absl::StatusOr<Frame> HealthService::Check(const Frame& request) const {
  const auto parsed = ParseRequest<health::HealthCheckRequest>(request);
  if (!parsed.ok()) {
    return parsed.status();
  }
  absl::MutexLock lock(&mutex_);
  if (!serving_.contains(parsed->service())) {
    return absl::NotFoundError(
        absl::StrCat("no service '", PeerText(parsed->service(), kMostShown), "' here"));
  }
  return AnswerLocked(parsed->service());
}

Frame HealthService::List() const {
  health::HealthListResponse response;
  absl::MutexLock lock(&mutex_);
  for (const auto& [service, serving] : serving_) {
    (*response.mutable_statuses())[service].set_status(StatusOf(serving));
  }
  return Frame(response.SerializeAsString());
}

Frame HealthService::AnswerLocked(const std::string& service) const {
  const auto known = serving_.find(service);
  if (known == serving_.end()) {
    return Encode(health::HealthCheckResponse::SERVICE_UNKNOWN);
  }
  return Encode(StatusOf(known->second));
}

void HealthService::AddWatch(const Frame& request, std::shared_ptr<ServerStreamSink> sink) {
  const auto parsed = ParseRequest<health::HealthCheckRequest>(request);
  if (!parsed.ok()) {
    sink->Fail(parsed.status());
    return;
  }
  std::vector<Watch> gone;  // Destroyed after the lock is gone.
  absl::MutexLock lock(&mutex_);
  for (Watch& watch : watches_) {
    if (watch.sink->IsGone()) {
      gone.push_back(std::move(watch));
    }
  }
  std::erase_if(watches_, [](const Watch& watch) { return watch.sink == nullptr; });
  // Under the lock, so that answers keep the order of changes; sending only queues.
  sink->Send(AnswerLocked(parsed->service())).IgnoreError();
  if (!stopped_) {
    watches_.push_back({parsed->service(), std::move(sink)});
  }
}

void HealthService::SetServing(const std::string& service, bool serving) {
  absl::MutexLock lock(&mutex_);
  const bool value = serving && !stopped_;
  const auto [known, added] = serving_.try_emplace(service, value);
  if (!added && known->second == value) {
    return;
  }
  known->second = value;
  for (const Watch& watch : watches_) {
    if (watch.service == service) {
      watch.sink->Send(AnswerLocked(service)).IgnoreError();  // One that is gone is dropped later.
    }
  }
}

void HealthService::Shutdown() {
  std::vector<Watch> ended;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    for (auto& [service, serving] : serving_) {
      serving = false;
    }
    ended.swap(watches_);
    for (const Watch& watch : ended) {
      watch.sink->Send(AnswerLocked(watch.service)).IgnoreError();
    }
  }
  for (const Watch& watch : ended) {
    watch.sink->Fail(absl::UnavailableError("the server is shutting down; watch another one"));
  }
}

}  // namespace expertmesh::net
