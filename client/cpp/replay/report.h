// A simulation as JSON, and as one HTML page that needs nothing else.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_REPORT_H_

#include <string>

#include "client/cpp/replay/mesh_model.h"
#include "client/cpp/replay/simulation.h"

namespace expertmesh::replay {

struct Report {
  // LoadSource::Describe.
  std::string load;
  double interval_s = 0;
  MeshModel mesh;
  uint32_t layers = 0;
  SimulationResult result;
};

// One object: what was simulated, and for each policy a summary and its intervals.
std::string ToJson(const Report& report);

// Well-formed XML, too.
std::string ToHtml(const Report& report);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_REPORT_H_
