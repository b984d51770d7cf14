#include "common/telemetry/metrics.h"

#include <netdb.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/base/connection_counts.h"
#include "common/base/idle_memory.h"
#include "common/base/message_bytes.h"
#include "common/base/process.h"

namespace expertmesh::telemetry {

prometheus::Counter& RegisterCounter(prometheus::Registry& registry, const char* name,
                                     const char* help) {
  return RegisterCounters(registry, name, help).Add({});
}

prometheus::Gauge& RegisterGauge(prometheus::Registry& registry, const char* name,
                                 const char* help) {
  return RegisterGauges(registry, name, help).Add({});
}

prometheus::Histogram& RegisterHistogram(prometheus::Registry& registry, const char* name,
                                         const char* help,
                                         const prometheus::Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

prometheus::Family<prometheus::Counter>& RegisterCounters(prometheus::Registry& registry,
                                                          const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& RegisterGauges(prometheus::Registry& registry,
                                                      const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

prometheus::Histogram::BucketBoundaries DurationBuckets() {
  return {0.00001, 0.00003, 0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.003, 0.005, 0.008, 0.013,
          0.02,    0.03,    0.05,   0.08,   0.13,   0.2,   0.5,   1.0,   2.0,   5.0,   10.0};
}

prometheus::Histogram::BucketBoundaries RowBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double rows = 1; rows <= 8192; rows *= 2) {
    bounds.push_back(rows);
  }
  return bounds;
}

prometheus::Histogram::BucketBoundaries RelativeErrorBuckets() {
  return {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5};
}

namespace {

// A connection holds a thread from its first byte to its last, or until it has sent or read nothing
// for so long. Even with five times as many slow ones the next is served within the 10 s that
// Prometheus waits.
constexpr char kThreads[] = "64";
constexpr char kPatienceMs[] = "2000";

prometheus::MetricFamily Family(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void AddCounter(const char* label, const char* name, uint64_t value,
                prometheus::MetricFamily* family) {
  prometheus::ClientMetric metric;
  metric.label.push_back({label, name});
  metric.counter.value = static_cast<double>(value);
  family->metric.push_back(std::move(metric));
}

// Reads what belongs to the process as a whole when it is asked for.
class ProcessCollectable final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    prometheus::MetricFamily resident =
        Family("expertmesh_process_resident_bytes", "Resident set of the process",
               prometheus::MetricType::Gauge);
    prometheus::ClientMetric metric;
    metric.gauge.value = static_cast<double>(ResidentBytes());
    resident.metric.push_back(metric);
    prometheus::MetricFamily bytes =
        Family("expertmesh_process_message_bytes_total",
               "Bytes of messages of the data path, without what HTTP/2 and TCP add",
               prometheus::MetricType::Counter);
    AddCounter("direction", "sent", message_bytes.sent.load(std::memory_order_relaxed), &bytes);
    AddCounter("direction", "received", message_bytes.received.load(std::memory_order_relaxed),
               &bytes);
    prometheus::MetricFamily copied =
        Family("expertmesh_process_tensor_copied_bytes_total",
               "Bytes of tensors copied or converted between messages and what is computed with",
               prometheus::MetricType::Counter);
    metric = {};
    metric.counter.value = static_cast<double>(copied_tensor_bytes.load(std::memory_order_relaxed));
    copied.metric.push_back(std::move(metric));
    prometheus::MetricFamily buffered =
        Family("expertmesh_process_buffered_bytes",
               "Requests received and not yet answered, and answers not yet sent",
               prometheus::MetricType::Gauge);
    metric = {};
    metric.gauge.value =
        static_cast<double>(message_bytes.buffered.load(std::memory_order_relaxed));
    buffered.metric.push_back(std::move(metric));
    prometheus::MetricFamily returned =
        Family("expertmesh_process_returned_bytes_total",
               "Resident bytes given back to the system while the process was at rest",
               prometheus::MetricType::Counter);
    metric = {};
    metric.counter.value = static_cast<double>(returned_bytes.load(std::memory_order_relaxed));
    returned.metric.push_back(std::move(metric));
    return {std::move(resident), std::move(bytes), std::move(copied), std::move(buffered),
            std::move(returned), Open(),           Refused()};
  }

 private:
  static prometheus::MetricFamily Open() {
    prometheus::MetricFamily open =
        Family("expertmesh_process_connections", "Open connections of callers",
               prometheus::MetricType::Gauge);
    prometheus::ClientMetric metric;
    metric.gauge.value = static_cast<double>(connection_counts.open.load());
    open.metric.push_back(std::move(metric));
    return open;
  }

  static prometheus::MetricFamily Refused() {
    prometheus::MetricFamily refused =
        Family("expertmesh_process_connections_refused_total",
               "Connections of callers that were closed as they came, or for what they did "
               "(resets, stalls); reason=\"accept\": times when one could not be accepted yet",
               prometheus::MetricType::Counter);
    AddCounter("reason", "descriptors", connection_counts.refused_for_descriptors.load(), &refused);
    AddCounter("reason", "number", connection_counts.refused_for_number.load(), &refused);
    AddCounter("reason", "resets", connection_counts.ended_for_resets.load(), &refused);
    AddCounter("reason", "stalls", connection_counts.ended_for_stalls.load(), &refused);
    AddCounter("reason", "accept", connection_counts.accept_failures.load(), &refused);
    return refused;
  }
};

// Opens a connection and closes it again.
void Knock(const std::string& host, int port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // What listens on every address ("0.0.0.0") is reached under it too.
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return;
  }
  const int file = socket(found->ai_family, found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (file >= 0) {
    (void)connect(file, found->ai_addr, found->ai_addrlen);
    close(file);
  }
  freeaddrinfo(found);
}

}  // namespace

void RegisterProcessMetrics(const std::string& process, const Version& version,
                            prometheus::Registry& registry) {
  prometheus::BuildGauge()
      .Name("expertmesh_build_info")
      .Help("1, labelled with what runs")
      .Register(registry)
      .Add({{"process", process},
            {"version", version.number},
            {"commit", version.commit},
            {"build_type", version.build_type}})
      .Set(1);
}

MetricsServer::MetricsServer(std::unique_ptr<prometheus::Exposer> exposer, std::string host,
                             int port)
    : exposer_(std::move(exposer)), host_(std::move(host)), port_(port) {}

MetricsServer::~MetricsServer() {
  // The HTTP library looks every two seconds whether it is to stop, and whenever someone connects.
  absl::Notification stopped;
  std::thread knocking([&] {
    while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10))) {
      Knock(host_, port_);
    }
  });
  exposer_.reset();
  stopped.Notify();
  knocking.join();
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::shared_ptr<prometheus::Registry> registry) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", address, "' is not host:port, for example 0.0.0.0:9464"));
  }
  const absl::string_view host =
      absl::StripPrefix(absl::StripSuffix(absl::string_view(address).substr(0, colon), "]"), "[");
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
        "listening_ports", address, "num_threads", kThreads, "request_timeout_ms", kPatienceMs});
    static const auto* const process =
        new std::shared_ptr<prometheus::Collectable>(std::make_shared<ProcessCollectable>());
    exposer->RegisterCollectable(*process);
    exposer->RegisterCollectable(std::move(registry));
    const std::vector<int> ports = exposer->GetListeningPorts();
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(exposer), std::string(host),
                                                            ports.empty() ? port : ports.front()));
  } catch (const std::exception& error) {  // The library's border: civetweb throws on bind errors.
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address, ": ",
                                               error.what(), "; choose a free port"));
  }
}

}  // namespace expertmesh::telemetry
