// What `expertmesh top` asks a router for.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TOP_READING_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TOP_READING_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/expertmesh/client.h"
#include "common/trace/otlp.pb.h"

namespace expertmesh::command {

// Where the time of one request went, by the router's clock.
struct RequestTimes {
  absl::Duration queue;
  absl::Duration route;
  // From the first batch that was sent to a node to the last partial.
  absl::Duration nodes;
  absl::Duration combine;
  // From arrival to answer.
  absl::Duration all;
};

// The requests of a trace that were sent to nodes, by when they arrived in nanoseconds since 1970.
std::map<int64_t, RequestTimes> StageTimesOf(const internal::otlp::TracesData& data);

// What the traces tell that the router kept last.
struct RecentStages {
  // Why nothing is known.
  absl::Status status;
  std::vector<RequestTimes> requests;
  // How many of `requests` were kept for which reason, as TraceSummary::kept.
  std::map<std::string, uint32_t> kept;
};

// One look at a mesh.
struct TopReading {
  // When reading began, of the calendar.
  absl::Time time;
  // When counters of nodes and of layers were read, by a clock that never goes back.
  absl::Time nodes_at;
  absl::Time layers_at;
  client::Topology topology;
  client::Load since_start;
  // What came in the last seconds; Load::window says how many.
  client::Load recent;
  RecentStages stages;
};

// Reads again and again, and asks for each trace once. Not thread-safe.
class TopReader {
 public:
  // `client` must outlive it. `mesh`: the load of all routers that report to this one.
  TopReader(client::Client* client, bool mesh) : client_(client), mesh_(mesh) {}

  absl::StatusOr<TopReading> Read();

 private:
  // Trace and arrival of a request.
  using Request = std::pair<std::string, int64_t>;

  RecentStages ReadStages();
  void ReadTrace(const std::string& id);

  client::Client* const client_;
  const bool mesh_;
  // Those that are listed; nothing: it was sent to no node.
  std::map<Request, std::optional<RequestTimes>> known_;
  // Traces that are too large to be asked for again when they grow.
  std::set<std::string> large_;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TOP_READING_H_
