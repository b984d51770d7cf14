// What commands that talk to a mesh have in common.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_MESH_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_MESH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/command/options.h"
#include "client/cpp/expertmesh/client.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh::command {

// --router and how to connect to it (--tls, ...), and then `more`.
std::vector<OptionSpec> WithRouter(std::vector<OptionSpec> more);
// --layers, --timeout.
OptionSpec LayersOption();
OptionSpec TimeoutOption(const std::string& fallback);

// `status` with `where` (an address or a file) before its message, if it is not there already.
absl::Status In(const std::string& where, const absl::Status& status);

// The client for --router, encrypted if --tls or an option of it is given; else as `connection`.
absl::StatusOr<std::unique_ptr<client::Client>> Connect(const Options& options,
                                                        client::ClientOptions connection = {});

// A mesh and what it serves.
struct Mesh {
  std::string address;
  std::unique_ptr<client::Client> client;
  client::ModelInfo model;
  // Those asked for by --layers, or all.
  std::vector<client::LayerInfo> layers;
};

// By --router and --layers. Errors name the address, or the layer and those there are.
absl::StatusOr<Mesh> OpenMesh(const Options& options);

// The checkpoint in `directory`, which must be the one that the mesh serves: FAILED_PRECONDITION
// with both fingerprints.
absl::StatusOr<std::shared_ptr<const checkpoint::MoeCheckpoint>> OpenSameModel(
    const Mesh& mesh, const std::string& directory);

// `values` [rows, cols] as a matrix of `dtype`.
client::Matrix ToMatrix(client::Dtype dtype, size_t rows, size_t cols, std::vector<float> values);

// Seeded, normally distributed values [rows, cols].
client::Matrix RandomHidden(client::Dtype dtype, size_t rows, size_t cols, uint64_t seed);

// "layer 1: experts 0-3; layer 2: experts 5"
std::string DescribeMissing(absl::Span<const client::ExpertSet> missing);

// "down", "up", ...
const char* LinkName(client::Link link);

// One line: address, link, what the node is, what it has in flight.
std::string DescribeNode(const client::NodeInfo& node);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_MESH_H_
