#include <cstdio>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/progress.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/checkpoint/synthetic.h"

namespace expertmesh::command {
namespace {

absl::Status ReadSize(const Options& options, const std::string& name, uint32_t* size) {
  const uint64_t value = options.Whole(name);
  if (value > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", name, " is ", value, "; that is too much"));
  }
  *size = static_cast<uint32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadOptionalSize(const Options& options, const std::string& name,
                              std::optional<uint32_t>* size) {
  return options.Has(name) ? ReadSize(options, name, &size->emplace()) : absl::OkStatus();
}

checkpoint::Quantisation QuantisationNamed(const std::string& name) {
  return name == "fp8"     ? checkpoint::Quantisation::kFp8
         : name == "mxfp4" ? checkpoint::Quantisation::kMxfp4
                           : checkpoint::Quantisation::kNone;
}

absl::Status Run(const Options& options) {
  checkpoint::SyntheticOptions made;
  made.family = options.Text("family");
  made.seed = options.Whole("seed");
  const std::string& dtype = options.Text("dtype");
  made.dtype = dtype == "f32" ? Dtype::kF32 : dtype == "f16" ? Dtype::kF16 : Dtype::kBF16;
  made.quantise = QuantisationNamed(options.Text("quantise"));
  const std::pair<const char*, uint32_t*> sizes[] = {
      {"d-model", &made.d_model},     {"layers", &made.num_layers},
      {"experts", &made.num_experts}, {"intermediate", &made.intermediate_size},
      {"vocab", &made.vocab_size},    {"dense-layers", &made.dense_layers},
      {"moe-every", &made.moe_every}, {"dense-intermediate", &made.dense_intermediate_size},
      {"groups", &made.n_group},      {"top-groups", &made.topk_group}};
  for (const auto& [name, size] : sizes) {
    RETURN_IF_ERROR(ReadSize(options, name, size));
  }
  RETURN_IF_ERROR(ReadOptionalSize(options, "top-k", &made.top_k));
  RETURN_IF_ERROR(ReadOptionalSize(options, "shared-experts", &made.shared_experts));
  made.max_shard_bytes = options.Whole("shard-bytes");
  const std::string& output = options.Text("output");
  {
    Progress progress(absl::StrCat("Writing ", output), 0);
    made.progress = [&progress](uint64_t done, uint64_t total) { progress.Set(done, total); };
    RETURN_IF_ERROR(checkpoint::MakeSyntheticCheckpoint(output, made));
  }
  std::printf("%s: a synthetic %s model, seed %llu\n", output.c_str(), made.family.c_str(),
              static_cast<unsigned long long>(made.seed));
  return absl::OkStatus();
}

OptionSpec OptionalSize(const std::string& name, const std::string& help, uint64_t min) {
  return {.name = name, .kind = OptionKind::kWhole, .value = "N", .help = help, .min = min};
}

std::string FamilyNames() {
  return absl::StrJoin(checkpoint::Families(), ", ",
                       [](std::string* out, const checkpoint::Family* family) {
                         absl::StrAppend(out, family->name);
                       });
}

OptionSpec Size(const std::string& name, const std::string& help, uint32_t fallback,
                uint64_t min = 1) {
  return {.name = name,
          .kind = OptionKind::kWhole,
          .value = "N",
          .help = help,
          .fallback = absl::StrCat(fallback),
          .min = min};
}

}  // namespace

Command CheckpointMakeCommand() {
  const checkpoint::SyntheticOptions defaults;
  return {
      {"checkpoint make",
       "Makes a checkpoint with seeded random weights in the layout of Hugging Face.",
       "",
       {{.name = "output", .value = "DIR", .help = "folder to make", .required = true},
        {.name = "family",
         .value = "NAME",
         .help = absl::StrCat("model family: ", FamilyNames()),
         .fallback = defaults.family},
        Size("layers", "layers in all", defaults.num_layers),
        Size("d-model", "width of a hidden state", defaults.d_model),
        Size("experts", "experts of a layer", defaults.num_experts),
        OptionalSize("top-k", "experts of a token, where the family leaves it open; usually 2", 1),
        Size("intermediate", "width of an expert", defaults.intermediate_size),
        Size("vocab", "vocabulary", defaults.vocab_size),
        Size("dense-layers", "leading layers without experts", defaults.dense_layers, 0),
        Size("dense-intermediate", "their width; 0: four times that of an expert",
             defaults.dense_intermediate_size, 0),
        Size("moe-every", "every how many layers there are experts", defaults.moe_every),
        OptionalSize("shared-experts", "experts of every token, where the family has them", 0),
        Size("groups", "groups of experts, where the gate knows them", defaults.n_group),
        Size("top-groups", "groups of a token", defaults.topk_group),
        {.name = "quantise",
         .kind = OptionKind::kChoice,
         .value = "FORMAT",
         .help = "how linears are stored: fp8 (deepseek_v3 and others), mxfp4 (gpt_oss)",
         .fallback = "none",
         .choices = {"none", "fp8", "mxfp4"}},
        {.name = "dtype",
         .kind = OptionKind::kChoice,
         .value = "TYPE",
         .help = "type of the weights",
         .fallback = "bf16",
         .choices = {"f32", "f16", "bf16"}},
        {.name = "shard-bytes",
         .kind = OptionKind::kWhole,
         .value = "N",
         .help = "size at which another file is begun",
         .fallback = absl::StrCat(defaults.max_shard_bytes),
         .min = 1},
        {.name = "seed",
         .kind = OptionKind::kWhole,
         .value = "S",
         .help = "same seed, same bytes",
         .fallback = absl::StrCat(defaults.seed)}}},
      &Run};
}

}  // namespace expertmesh::command
