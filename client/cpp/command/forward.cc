#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_writer.h"

namespace expertmesh::command {
namespace {

constexpr char kInputTensor[] = "hidden_states";

// The file's bytes, sent as they lie there.
absl::StatusOr<client::Matrix> ReadHidden(
    const std::string& path, std::shared_ptr<const checkpoint::SafetensorsReader> reader) {
  ASSIGN_OR_RETURN(const checkpoint::TensorView* tensor, reader->Find(kInputTensor));
  if (tensor->shape.size() != 2 || !IsActivationDtype(tensor->dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", kInputTensor, " is ", NameOf(tensor->dtype), " ",
        checkpoint::ShapeString(tensor->shape), "; it must be F32, BF16 or F16 [tokens, d_model]"));
  }
  return client::Matrix::Share(client::FromInternal(tensor->dtype), tensor->shape[0],
                               tensor->shape[1], {tensor->data, tensor->bytes}, std::move(reader));
}

template <typename T>
absl::Span<const uint8_t> BytesOfVector(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

absl::Status WriteResult(const std::string& path, const client::ForwardResult& result,
                         bool routing) {
  const client::Matrix& output = result.output;
  std::vector<checkpoint::TensorToWrite> tensors = {{"output",
                                                     client::ToInternal(output.dtype()),
                                                     {output.rows(), output.cols()},
                                                     output.bytes()}};
  if (routing) {
    // Indices of experts are small; uint32 and int32 are the same bits.
    const std::vector<uint32_t>& counts = result.routing.assignments_per_token;
    std::vector<uint64_t> shape = {output.rows(), result.routing.experts_per_token};
    if (!counts.empty()) {
      shape = {result.routing.expert_ids.size()};
      tensors.push_back(
          {"assignments_per_token", Dtype::kI32, {output.rows()}, BytesOfVector(counts)});
    }
    tensors.push_back({"expert_ids", Dtype::kI32, shape, BytesOfVector(result.routing.expert_ids)});
    tensors.push_back(
        {"expert_weights", Dtype::kF32, shape, BytesOfVector(result.routing.expert_weights)});
  }
  return checkpoint::WriteSafetensors(path, tensors, checkpoint::Durability::kRename);
}

absl::Status Run(const Options& options) {
  const std::string& address = options.Text("router");
  const uint64_t layer = options.Whole("layer");
  if (layer > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("--layer is ", layer, "; no model has that"));
  }
  const std::string& input = options.Text("input");
  ASSIGN_OR_RETURN(const std::shared_ptr<const checkpoint::SafetensorsReader> reader,
                   checkpoint::SafetensorsReader::OpenFile(input));
  ASSIGN_OR_RETURN(const client::Matrix hidden, ReadHidden(input, reader));
  client::ForwardOptions forward;
  forward.timeout = options.Duration("timeout");
  forward.return_routing = options.Has("routing");
  forward.checkpoint_bias = options.Has("checkpoint-bias");
  if (options.Has("dtype")) {
    const std::string& dtype = options.Text("dtype");
    forward.output_dtype = dtype == "f32"    ? client::Dtype::kFloat32
                           : dtype == "bf16" ? client::Dtype::kBFloat16
                                             : client::Dtype::kFloat16;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::ForwardResult> result =
      mesh->Forward(static_cast<uint32_t>(layer), hidden, forward);
  RETURN_IF_ERROR(reader->CheckUnchanged());
  if (!result.ok()) {
    return In(address, result.status());
  }
  RETURN_IF_ERROR(WriteResult(options.Text("output"), *result, forward.return_routing));
  std::printf("%s: layer %u, %zu tokens, epoch %llu", options.Text("output").c_str(),
              static_cast<uint32_t>(layer), hidden.rows(),
              static_cast<unsigned long long>(result->epoch));
  if (!result->dropped.empty()) {
    std::printf(", %zu assignments dropped for want of capacity", result->dropped.size());
  }
  std::printf("\n");
  return absl::OkStatus();
}

}  // namespace

Command ForwardCommand() {
  return {
      {"forward", "Sends hidden states from a safetensors file through one layer.", "",
       WithRouter(
           {{.name = "layer",
             .kind = OptionKind::kWhole,
             .value = "L",
             .help = "index of the layer in the model",
             .required = true},
            {.name = "input",
             .value = "FILE",
             .help = "safetensors with tensor hidden_states [tokens, d_model]",
             .required = true},
            {.name = "output",
             .value = "FILE",
             .help = "safetensors to write, with tensor output [tokens, d_model]",
             .required = true},
            {.name = "routing",
             .kind = OptionKind::kSwitch,
             .help = "write expert_ids and expert_weights [tokens, k], too; where tokens have "
                     "different numbers of experts: assignments_per_token [tokens], and ids and "
                     "weights one after the other"},
            {.name = "checkpoint-bias",
             .kind = OptionKind::kSwitch,
             .help =
                 "choose experts with the checkpoint's own bias, not what balancing made of it"},
            TimeoutOption("60"),
            {.name = "dtype",
             .kind = OptionKind::kChoice,
             .value = "TYPE",
             .help = "type of the output, that of the input when not given",
             .choices = {"f32", "bf16", "f16"}}})},
      &Run};
}

}  // namespace expertmesh::command
