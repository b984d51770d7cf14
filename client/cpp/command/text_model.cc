#include "client/cpp/command/text_model.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/status_macros.h"
#include "common/experts/backend_factory.h"
#include "common/experts/compute_dtype.h"

namespace expertmesh::command {
namespace {

constexpr uint64_t kMaxThreads = 1024;

// As the mesh has its activations, or as the checkpoint is stored, when nothing is said.
absl::StatusOr<Dtype> ComputeDtype(const Options& options, const TextModel& model) {
  const std::string& flag = options.Text("compute-dtype");
  if (flag == "auto" && model.mesh.has_value()) {
    return experts::ChooseComputeDtype("auto",
                                       client::ToInternal(model.mesh->model.activation_dtype));
  }
  return experts::ChooseComputeDtype(flag, model.checkpoint->model().dtype);
}

absl::StatusOr<std::unique_ptr<tokenizer::Tokenizer>> OpenTokenizerOf(const TextModel& model,
                                                                      const Options& options) {
  if (options.Text("tokenizer") == "bytes") {
    return tokenizer::MakeByteTokenizer(model.decoder->config().vocab_size);
  }
  return tokenizer::OpenTokenizer(model.directory);
}

void PrintWarnings(absl::Span<const std::string> warnings) {
  for (const std::string& warning : warnings) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
}

}  // namespace

std::vector<OptionSpec> TextModelOptions() {
  std::vector<OptionSpec> options =
      WithRouter({{.name = "local",
                   .kind = OptionKind::kSwitch,
                   .help = "compute the experts in this process, without a mesh"},
                  {.name = "model",
                   .value = "DIR",
                   .help = "checkpoint in Hugging Face layout, the one that the mesh serves",
                   .required = true},
                  {.name = "tokenizer",
                   .kind = OptionKind::kChoice,
                   .value = "KIND",
                   .help = "tokenizer.json of the model, or a token for each byte",
                   .fallback = "json",
                   .choices = {"json", "bytes"}},
                  {.name = "compute-dtype",
                   .kind = OptionKind::kChoice,
                   .value = "TYPE",
                   .help = "what is multiplied in here; auto: as in the mesh, or as the checkpoint",
                   .fallback = "auto",
                   .choices = {"auto", "f32", "bf16"}},
                  {.name = "threads",
                   .kind = OptionKind::kWhole,
                   .value = "N",
                   .help = "threads that compute here; 0: one per core",
                   .fallback = "0"},
                  TimeoutOption("60")});
  options.front().required = false;  // --local does without.
  return options;
}

absl::StatusOr<TextModel> OpenTextModel(const Options& options, bool needs_tokenizer) {
  if (options.Whole("threads") > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat("--threads is ", options.Whole("threads"),
                                                   "; it must be at most ", kMaxThreads));
  }
  if (options.Has("router") == options.Has("local")) {
    return absl::InvalidArgumentError(
        "give --router ADDR for experts in a mesh, or --local for experts in this process");
  }
  TextModel model;
  model.directory = options.Text("model");
  if (options.Has("router")) {
    ASSIGN_OR_RETURN(model.mesh, OpenMesh(options));
    ASSIGN_OR_RETURN(model.checkpoint, OpenSameModel(*model.mesh, model.directory));
  } else {
    ASSIGN_OR_RETURN(model.checkpoint, checkpoint::MoeCheckpoint::Open(model.directory));
  }
  ASSIGN_OR_RETURN(model.compute_dtype, ComputeDtype(options, model));
  decoder::DecoderOptions decoder;
  decoder.compute_dtype = model.compute_dtype;
  decoder.threads = static_cast<int>(options.Whole("threads"));
  ASSIGN_OR_RETURN(model.decoder, decoder::Decoder::Open(model.directory, decoder));
  PrintWarnings(model.checkpoint->warnings());
  PrintWarnings(model.decoder->warnings());
  if (needs_tokenizer) {
    ASSIGN_OR_RETURN(model.tokenizer, OpenTokenizerOf(model, options));
  }
  return model;
}

std::unique_ptr<decoder::MoeLayers> MeshExperts(const TextModel& model, const Options& options,
                                                bool return_routing) {
  return decoder::MakeMeshMoeLayers(model.mesh->client.get(), model.mesh->model.activation_dtype,
                                    options.Duration("timeout"), return_routing);
}

absl::StatusOr<std::unique_ptr<decoder::MoeLayers>> LocalExperts(TextModel* model,
                                                                 const Options& options) {
  experts::BackendOptions backend;
  backend.compute_dtype = model->compute_dtype;
  backend.threads = static_cast<int>(options.Whole("threads"));
  ASSIGN_OR_RETURN(model->backend, experts::MakeBackend("cpu", backend));
  return decoder::MakeLocalMoeLayers(model->checkpoint, model->backend.get(), backend.threads);
}

absl::StatusOr<std::unique_ptr<decoder::MoeLayers>> Experts(TextModel* model,
                                                            const Options& options,
                                                            bool return_routing) {
  if (model->mesh.has_value()) {
    return MeshExperts(*model, options, return_routing);
  }
  return LocalExperts(model, options);
}

}  // namespace expertmesh::command
