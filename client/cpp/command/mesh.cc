#include "client/cpp/command/mesh.h"

#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/ranges.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/model/model_identity.h"
#include "common/tensor/dtype.h"

namespace expertmesh::command {
namespace {

absl::StatusOr<std::vector<client::LayerInfo>> SelectLayers(
    const std::vector<client::LayerInfo>& served, const std::vector<uint32_t>& wanted) {
  if (wanted.empty()) {
    return served;
  }
  std::vector<client::LayerInfo> selected;
  std::vector<uint32_t> all;
  for (const client::LayerInfo& layer : served) {
    all.push_back(layer.layer);
  }
  for (const uint32_t index : wanted) {
    const size_t before = selected.size();
    for (const client::LayerInfo& layer : served) {
      if (layer.layer == index) {
        selected.push_back(layer);
      }
    }
    if (selected.size() == before) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--layers: ", index, " is no MoE layer of the mesh; these are: ", FormatRanges(all)));
    }
  }
  return selected;
}

// The text of the file that --`name` gives, if it is given.
absl::Status ReadPem(const Options& options, const std::string& name, std::string* text) {
  if (!options.Has(name)) {
    return absl::OkStatus();
  }
  std::ifstream file(options.Text(name), std::ios::binary);
  std::ostringstream read;
  if (!(read << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("--", name, ": ", options.Text(name),
                                            " cannot be read, or is empty; give a PEM file"));
  }
  *text = read.str();
  return absl::OkStatus();
}

}  // namespace

std::vector<OptionSpec> WithRouter(std::vector<OptionSpec> more) {
  std::vector<OptionSpec> options = {
      {.name = "router",
       .value = "ADDR",
       .help = "address of the router, host:port",
       .required = true},
      {.name = "tls",
       .kind = OptionKind::kSwitch,
       .help = "encrypt the connection; so does each --tls-... option"},
      {.name = "tls-ca",
       .value = "FILE",
       .help = "authorities to trust, PEM; the system's when not given"},
      {.name = "tls-cert", .value = "FILE", .help = "certificates to show to the router, PEM"},
      {.name = "tls-key", .value = "FILE", .help = "the private key of --tls-cert, PEM"},
      {.name = "tls-server-name",
       .value = "NAME",
       .help = "name in the router's certificate; the host of --router when not given"}};
  std::move(more.begin(), more.end(), std::back_inserter(options));
  return options;
}

OptionSpec LayersOption() {
  return {.name = "layers",
          .kind = OptionKind::kLayers,
          .value = "LIST",
          .help = "layers to use, such as 0-3,7; all when not given"};
}

OptionSpec TimeoutOption(const std::string& fallback) {
  return {.name = "timeout",
          .kind = OptionKind::kDuration,
          .value = "SECONDS",
          .help = "longest time a request may take",
          .fallback = fallback};
}

absl::Status In(const std::string& where, const absl::Status& status) {
  if (status.ok() || absl::StrContains(status.message(), where)) {
    return status;
  }
  return WithContext(where, status);
}

absl::StatusOr<std::unique_ptr<client::Client>> Connect(const Options& options,
                                                        client::ClientOptions connection) {
  client::TlsOptions tls;
  RETURN_IF_ERROR(ReadPem(options, "tls-ca", &tls.root_certificates));
  RETURN_IF_ERROR(ReadPem(options, "tls-cert", &tls.certificate_chain));
  RETURN_IF_ERROR(ReadPem(options, "tls-key", &tls.private_key));
  if (options.Has("tls-server-name")) {
    tls.server_name = options.Text("tls-server-name");
  }
  for (const char* name : {"tls", "tls-ca", "tls-cert", "tls-key", "tls-server-name"}) {
    if (options.Has(name)) {
      connection.tls = tls;
    }
  }
  return client::Client::Connect(options.Text("router"), connection);
}

absl::StatusOr<Mesh> OpenMesh(const Options& options) {
  Mesh mesh;
  mesh.address = options.Text("router");
  ASSIGN_OR_RETURN(mesh.client, Connect(options));
  absl::StatusOr<client::ModelInfo> model = mesh.client->DescribeModel();
  if (!model.ok()) {
    return In(mesh.address, model.status());
  }
  mesh.model = *std::move(model);
  ASSIGN_OR_RETURN(mesh.layers, SelectLayers(mesh.model.layers, options.Layers("layers")));
  if (mesh.layers.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(mesh.address, " serves no MoE layer"));
  }
  return mesh;
}

absl::StatusOr<std::shared_ptr<const checkpoint::MoeCheckpoint>> OpenSameModel(
    const Mesh& mesh, const std::string& directory) {
  ASSIGN_OR_RETURN(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   checkpoint::MoeCheckpoint::Open(directory));
  if (!SameModel(checkpoint->model_identity(), {mesh.model.fingerprint, mesh.model.outline})) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory, " has fingerprint ", checkpoint->fingerprint(), ", but ", mesh.address,
        " serves ", mesh.model.fingerprint, "; give the checkpoint that the mesh serves"));
  }
  return checkpoint;
}

client::Matrix ToMatrix(client::Dtype dtype, size_t rows, size_t cols, std::vector<float> values) {
  if (dtype == client::Dtype::kFloat32) {
    return client::Matrix::Take(rows, cols, std::move(values));
  }
  std::string bytes(values.size() * client::BytesOf(dtype), '\0');
  ConvertElements(Dtype::kF32, values.data(), client::ToInternal(dtype), bytes.data(),
                  values.size());
  return client::Matrix::Take(dtype, rows, cols, std::move(bytes));
}

client::Matrix RandomHidden(client::Dtype dtype, size_t rows, size_t cols, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * cols);
  for (float& value : values) {
    value = normal(generator);
  }
  return ToMatrix(dtype, rows, cols, std::move(values));
}

std::string DescribeMissing(absl::Span<const client::ExpertSet> missing) {
  std::string text;
  for (const client::ExpertSet& set : missing) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", "layer ", set.layer, ": experts ",
                    FormatRanges(set.experts));
  }
  return text;
}

const char* LinkName(client::Link link) {
  switch (link) {
    case client::Link::kDown:
      return "down";
    case client::Link::kUp:
      return "up";
    case client::Link::kRefused:
      return "refused";
    case client::Link::kDraining:
      return "draining";
    case client::Link::kEjected:
      return "ejected";
    case client::Link::kUnknown:
      break;
  }
  return "unknown";
}

std::string DescribeNode(const client::NodeInfo& node) {
  std::string text = absl::StrCat(node.address, "  ", LinkName(node.link));
  if (!node.reason.empty()) {
    absl::StrAppend(&text, " (", node.reason, ")");
  }
  if (!node.node_id.empty()) {
    absl::StrAppend(&text, "  ", node.node_id, "  ", node.backend, "  ", node.state, "  ",
                    WithThousands(node.weights_bytes), " bytes of weights");
  }
  absl::StrAppend(&text, "  in flight ", node.batches_in_flight, " batches, ", node.rows_in_flight,
                  " rows  disconnects ", node.disconnects);
  return text;
}

}  // namespace expertmesh::command
