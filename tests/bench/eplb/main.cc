// Plans the loads in a file, again and again, from scratch: prints the last plan and what each took
// of the CPU, as JSON. For compare.py.
//
//   eplb-plan FILE REPEATS
//
// The file: four uint32, number of layers, experts, nodes, and slots of a node for each layer, then
// the loads as float64, row by row; all little endian.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::bench {
namespace {

double CpuMilliseconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (static_cast<double>(now.tv_sec) * 1e3) + (static_cast<double>(now.tv_nsec) / 1e6);
}

struct Header {
  uint32_t layers = 0;
  uint32_t experts = 0;
  uint32_t nodes = 0;
  uint32_t slots = 0;
};

absl::StatusOr<balance::PlanningInput> Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  Header header;
  file.read(reinterpret_cast<char*>(&header), sizeof(header));
  constexpr uint32_t kMost = 1 << 16;
  if (!file || header.layers > kMost || header.experts > kMost || header.nodes > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has no header; let compare.py write it"));
  }
  balance::PlanningInput input;
  for (uint32_t layer = 0; layer < header.layers; ++layer) {
    balance::LayerToPlan& to_plan = input.layers.emplace_back();
    to_plan.layer = layer;
    to_plan.expert_bytes = 1;
    to_plan.loads.resize(header.experts);
    file.read(reinterpret_cast<char*>(to_plan.loads.data()),
              static_cast<std::streamsize>(header.experts * sizeof(double)));
    if (!file) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " ends in layer ", layer, "; let compare.py write it"));
    }
  }
  for (uint32_t i = 0; i < header.nodes; ++i) {
    balance::NodeToPlan& node = input.nodes.emplace_back();
    node.node_id = absl::StrCat("node-", i);
    node.slots_per_layer = header.slots;
    node.capacity_bytes = uint64_t{header.slots} * header.layers;
  }
  return input;
}

void Print(const balance::PlanningResult& result, const std::vector<double>& cpu_ms) {
  std::string text = "{\"cpu_ms\": [";
  for (size_t i = 0; i < cpu_ms.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", cpu_ms[i]);
  }
  absl::StrAppend(&text, "],\n\"lower_bounds\": [");
  for (size_t i = 0; i < result.layers.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", result.layers[i].lower_bound);
  }
  // [layers][copies] of [expert, node, share].
  absl::StrAppend(&text, "],\n\"copies\": [");
  const char* between_layers = "";
  for (const balance::LayerPlacement& layer : result.plan.layers) {
    absl::StrAppend(&text, between_layers, "[");
    between_layers = ",\n";
    const char* between_copies = "";
    for (size_t expert = 0; expert < layer.experts.size(); ++expert) {
      for (const balance::ExpertCopy& copy : layer.experts[expert]) {
        absl::StrAppend(&text, between_copies, "[", expert, ", ", copy.node, ", ", copy.share, "]");
        between_copies = ", ";
      }
    }
    absl::StrAppend(&text, "]");
  }
  absl::StrAppend(&text, "]}");
  std::cout << text << "\n";
}

int Main(const std::string& path, const std::string& repeats_text) {
  int repeats = 0;
  if (!absl::SimpleAtoi(repeats_text, &repeats) || repeats < 1) {
    std::cerr << "REPEATS is '" << repeats_text << "'; use 1 or more\n";
    return EXIT_FAILURE;
  }
  const absl::StatusOr<balance::PlanningInput> input = Read(path);
  if (!input.ok()) {
    std::cerr << input.status().message() << "\n";
    return EXIT_FAILURE;
  }
  std::vector<double> cpu_ms;
  absl::StatusOr<balance::PlanningResult> result;
  for (int i = 0; i < repeats; ++i) {
    const double start = CpuMilliseconds();
    result = balance::PlanPlacement(*input);
    cpu_ms.push_back(CpuMilliseconds() - start);
    if (!result.ok()) {
      std::cerr << result.status().message() << "\n";
      return EXIT_FAILURE;
    }
  }
  Print(*result, cpu_ms);
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace expertmesh::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: eplb-plan FILE REPEATS\n";
    return EXIT_FAILURE;
  }
  return expertmesh::bench::Main(argv[1], argv[2]);
}
