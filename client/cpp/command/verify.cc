#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/compare.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/statistics.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// One layer through the mesh and the reference.
absl::StatusOr<Agreement> Verify(const Mesh& mesh, const checkpoint::MoeCheckpoint& checkpoint,
                                 const Options& options, const client::LayerInfo& layer) {
  const client::Matrix hidden =
      RandomHidden(mesh.model.activation_dtype, options.Whole("tokens"), mesh.model.d_model,
                   options.Whole("seed") + layer.layer);
  client::ForwardOptions forward;
  forward.timeout = options.Duration("timeout");
  forward.return_routing = true;
  forward.output_dtype = client::Dtype::kFloat32;
  ASSIGN_OR_RETURN(const RoutingOptions routing, RoutingInForce(checkpoint, layer));
  if (routing.choice == Choice::kHash) {
    for (size_t token = 0; token < hidden.rows(); ++token) {
      forward.token_ids.push_back(static_cast<uint32_t>(7919 * token + options.Whole("seed")));
    }
  }
  const absl::StatusOr<client::ForwardResult> result =
      mesh.client->Forward(layer.layer, hidden, forward);
  if (!result.ok()) {
    return In(mesh.address, result.status());
  }
  Sample sample;
  RETURN_IF_ERROR(sample.Add(hidden, *result, hidden.rows()));
  sample.token_ids = forward.token_ids;
  return CompareWithReference(checkpoint, layer, mesh.model.activation_dtype, sample);
}

std::string RoutingColumn(const Agreement& agreement) {
  return agreement.routing_taken_because.empty()
             ? "checked"
             : absl::StrCat("not checked: ", agreement.routing_taken_because);
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const Mesh mesh, OpenMesh(options));
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                   OpenSameModel(mesh, options.Text("model")));
  const double tolerance = Tolerance(options, mesh.model.activation_dtype);
  std::vector<std::vector<std::string>> table = {
      {"layer", "tokens", "worst error", "same experts", "ties", "routing", "verdict"}};
  std::vector<uint32_t> wrong;
  std::vector<uint32_t> taken;
  {
    Progress progress("Verifying", mesh.layers.size());
    for (const client::LayerInfo& layer : mesh.layers) {
      ASSIGN_OR_RETURN(const Agreement agreement, Verify(mesh, *checkpoint, options, layer));
      const bool within = agreement.Within(tolerance);
      if (!agreement.routing_taken_because.empty()) {
        taken.push_back(layer.layer);
      }
      if (!within) {
        wrong.push_back(layer.layer);
      }
      table.push_back({absl::StrCat(layer.layer), options.Text("tokens"),
                       absl::StrFormat("%.2e", agreement.worst_error),
                       absl::StrCat(agreement.same_experts), absl::StrCat(agreement.ties),
                       RoutingColumn(agreement), within ? "ok" : "WRONG"});
      progress.Add(1);
    }
  }
  std::fputs(FormatTable(table).c_str(), stdout);
  if (!taken.empty()) {
    std::printf(
        "layers %s: routing cannot be repeated outside of the router, so experts and weights are "
        "those it reported; only what the experts make of the tokens was checked\n",
        FormatRanges(taken).c_str());
  }
  if (!wrong.empty()) {
    return absl::DataLossError(
        absl::StrCat("layers ", FormatRanges(wrong), " differ from the reference: error above ",
                     absl::StrFormat("%.0e", tolerance), " or other experts; see the table"));
  }
  std::printf("%zu layers agree with the reference within %.0e\n", mesh.layers.size(), tolerance);
  return absl::OkStatus();
}

}  // namespace

Command VerifyCommand() {
  return {{"verify",
           "Sends random tokens through every MoE layer and checks the answers against a simple "
           "float32 reference in this process.",
           "",
           WithRouter({{.name = "model",
                        .value = "DIR",
                        .help = "the checkpoint that the mesh serves",
                        .required = true},
                       {.name = "tokens",
                        .kind = OptionKind::kWhole,
                        .value = "N",
                        .help = "tokens for each layer",
                        .fallback = "16",
                        .min = 1},
                       LayersOption(),
                       ToleranceOption(),
                       {.name = "seed",
                        .kind = OptionKind::kWhole,
                        .value = "S",
                        .help = "seed of the tokens",
                        .fallback = "1"},
                       TimeoutOption("60")})},
          &Run};
}

}  // namespace expertmesh::command
