// What commands that make text have in common: a decoder, a tokenizer, and experts behind a router
// or in this process.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_MODEL_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_MODEL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/options.h"
#include "client/cpp/decoder/decoder.h"
#include "client/cpp/decoder/moe_layers.h"
#include "client/cpp/tokenizer/tokenizer.h"
#include "common/experts/backend.h"

namespace expertmesh::command {

struct TextModel {
  std::string directory;
  // Empty with --local.
  std::optional<Mesh> mesh;
  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint;
  std::unique_ptr<decoder::Decoder> decoder;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;  // Null when it was not needed.
  // What the decoder multiplies in.
  Dtype compute_dtype = Dtype::kF32;

  // Experts of its own, once they are asked for.
  std::unique_ptr<experts::Backend> backend;
};

// --router, --local, --model, --tokenizer, --compute-dtype, --threads, --timeout.
std::vector<OptionSpec> TextModelOptions();

// Opens what these options name. Errors name the file, the option or the address; a checkpoint that
// is not the mesh's is refused. Without `needs_tokenizer` there is none.
absl::StatusOr<TextModel> OpenTextModel(const Options& options, bool needs_tokenizer = true);

// Experts behind the router. `model` must outlive them.
std::unique_ptr<decoder::MoeLayers> MeshExperts(const TextModel& model, const Options& options,
                                                bool return_routing);
// Experts in this process; loads them. `model` must outlive them.
absl::StatusOr<std::unique_ptr<decoder::MoeLayers>> LocalExperts(TextModel* model,
                                                                 const Options& options);
// Whichever --router or --local asks for.
absl::StatusOr<std::unique_ptr<decoder::MoeLayers>> Experts(TextModel* model,
                                                            const Options& options,
                                                            bool return_routing);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_MODEL_H_
