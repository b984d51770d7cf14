// The table of model families. A family is one entry: how its config.json is recognised and read,
// where its tensors lie, and how a synthetic config.json of it looks. Nothing outside the entry
// knows a family.
//
// To add one: write its entry (family_*.cc, with what family_helpers.h has), declare it in
// family_entries.h and list it in families.cc; put the config.json of a real model into
// tests/golden/configs and its numbers into parameter_counts_test, family_options_test and
// storage_test. Every other test takes it from the table.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/synthetic_options.h"
#include "common/checkpoint/tensor_places.h"
#include "common/json/json_reader.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::checkpoint {

// Names in one stack of layers. A decoder has one, an encoder-decoder two, the encoder's first.
struct Stack {
  // What the tensors of a layer begin with; {layer} is its index in the stack, {model} one of
  // kModelPrefixes.
  absl::string_view layer;
  // What follows in the names of Storage, where that differs between stacks.
  absl::string_view moe = {};
};

// What of config.json, in a few words, leaves a layer of a family without what its Storage has a
// place for. Empty: every layer has it, or none.
struct WhyAbsent {
  absl::string_view shared_experts = {};
  absl::string_view select_bias = {};
  absl::string_view logit_bias = {};
};

struct Family {
  absl::string_view name;
  // Values of "model_type" and "architectures" in config.json.
  absl::Span<const absl::string_view> model_types;
  absl::Span<const absl::string_view> architectures;
  absl::Span<const Stack> stacks;
  // Ways in which the MoE layers are stored; a checkpoint uses one of them throughout. Synthetic
  // checkpoints use the first, or for MXFP4 the first of that encoding.
  absl::Span<const Storage> storages;
  // What tie_word_embeddings means when it is absent.
  bool tied_by_default = false;
  // Released checkpoints have FP8 weights, so synthetic ones may.
  bool fp8 = false;
  WhyAbsent why_absent = {};
  // Options of a synthetic checkpoint that it has a place for, beside those of every family.
  absl::Span<const SyntheticOption> synthetic_options = {};
  // Fills in `layout`, of which dtype, vocab_size, tied_embeddings and d_model are there already.
  absl::Status (*read)(const JsonReader& config, ModelLayout* layout);
  // What config.json of a small model of this family holds, but for model_type, architectures and
  // dtype. `options` has only values that the family has a place for.
  nlohmann::ordered_json (*synthetic_config)(const SyntheticOptions& options);
};

// All families.
absl::Span<const Family* const> Families();

// By name; INVALID_ARGUMENT lists the known ones.
absl::StatusOr<const Family*> FindFamily(absl::string_view name);

// The part of config.json that describes the language model: the whole, or text_config when that is
// what a known family is found in. INVALID_ARGUMENT lists the known families.
absl::StatusOr<JsonReader> LanguageConfig(const JsonReader& config);

// Recognises the family (in text_config, when the model is a part of a larger one), reads and
// checks everything, and counts the parameters. INVALID_ARGUMENT names the key and the value, or
// lists the known families.
absl::StatusOr<ModelLayout> ReadModelLayout(const JsonReader& config);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_
