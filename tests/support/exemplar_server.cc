// Serves one histogram with an exemplar until its input ends, and prints its port: for tests of
// those who read exemplars, before any program of the mesh has traces.
#include <cstdio>
#include <memory>

#include "absl/time/clock.h"
#include "common/telemetry/metrics.h"

namespace {

constexpr expertmesh::telemetry::HistogramInfo kWaitSeconds = {"exemplar_server_wait_seconds", "",
                                                               "Waits"};

}  // namespace

int main() {
  namespace telemetry = expertmesh::telemetry;
  const auto registry = std::make_shared<prometheus::Registry>();
  telemetry::Exemplars exemplars;
  telemetry::RegisterTracedHistogram(*registry, &exemplars, kWaitSeconds,
                                     telemetry::DurationBuckets())
      .Observe(absl::Milliseconds(7),
               {{0x0af7651916cd43dd, 0x8448eb211c80319c}, 0xb7ad6b7169203331, 1}, absl::Now());
  const auto server = telemetry::MetricsServer::Start("127.0.0.1:0", registry);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
    return 1;
  }
  (*server)->AddExemplars(&exemplars);
  std::printf("%d\n", (*server)->port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}
