"""Wrong variants of the code that computes: one entry for each thing that an option must do."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    # Text that the file has exactly once, and what it becomes.
    search: str
    replace: str
    # Test program, and those of its tests that are to notice (a filter of GoogleTest).
    test: str
    tests: str = "*"
    # The instruction set that the code is for; on a CPU without it nobody can notice.
    isa: str = ""
    # Code for narrower sets than the machine's is tested with EXPERTMESH_MAX_CPU_ISA at that.
    isa_at_most: str = ""


GATE = "router_service/gate/"
ROUTING = GATE + "routing.cc"
STEPS = GATE + "routing_steps.cc"
WEIGHTS = GATE + "weights.cc"
CAPACITY = GATE + "capacity.cc"
ELEMENTWISE = "common/experts/elementwise.cc"
PACKER = "common/experts/weight_packer.cc"
COMPUTE = "common/experts/cpu_compute.cc"
TILES = "common/matmul/tile_product.cc"
PANELS = "common/matmul/panel_product.cc"
DECODE = "common/tensor/decode_matrix.cc"
KERNELS = "common/tensor/decode_kernels.cc"
FINDER = "common/checkpoint/tensor_finder.cc"
BATCH = "router_service/batch/batch_run.cc"
COMBINE = "router_service/batch/combine.cc"
RETRY = "router_service/batch/batch_retry.cc"
TRUST_OF_WEIGHTS = "router_service/mesh/weight_trust.cc"
DIGEST = "common/checkpoint/expert_digest.cc"

# Recorded routings of every family and router (tests/golden/routing).
GOLDEN = "routing_golden_test"

SCORES = [
    Mutation(
        "temperature multiplies logits",
        ROUTING,
        "logits[expert] / options_.temperature",
        "logits[expert] * options_.temperature",
        GOLDEN,
    ),
    Mutation(
        "logit bias dropped",
        GATE + "gate.cc",
        "outputs[row * experts + expert] += bias[expert];",
        "outputs[row * experts + expert] += 0.0f;",
        "gate_test",
    ),
    Mutation(
        "logits not rounded to the type of activations",
        GATE + "gate.cc",
        "RoundTo(rules_.activation_dtype, outputs);",
        "",
        "gate_test",
    ),
    Mutation(
        "scores not rounded to the type of activations",
        ROUTING,
        "options_.score_dtype == ScoreDType::kModel",
        "false",
        GOLDEN,
    ),
    Mutation(
        "softmax of all where the selected are meant",
        ROUTING,
        "if (options_.scope == ScoreScope::kAll) {",
        "if (true) {",
        GOLDEN,
    ),
    Mutation(
        "selected logits are the weights",
        ROUTING,
        "if (options_.scope == ScoreScope::kSelected) {",
        "if (false) {",
        GOLDEN,
    ),
    Mutation(
        "square root of softplus forgets the root",
        STEPS,
        "row[i] = std::sqrt(std::max(row[i], 0.0f) + std::log1p(std::exp(-std::fabs(row[i]))));",
        "row[i] = std::max(row[i], 0.0f) + std::log1p(std::exp(-std::fabs(row[i])));",
        GOLDEN,
    ),
    Mutation(
        "sigmoid is a softmax",
        STEPS,
        "return BestRowKernels().sigmoid(row, count);",
        "return BestRowKernels().softmax(row, count);",
        GOLDEN,
    ),
]

CHOICE = [
    Mutation(
        "bias added to weights",
        ROUTING,
        "weights[slot] = scores[ids[slot]];",
        "weights[slot] = choice[ids[slot]];",
        GOLDEN,
    ),
    Mutation(
        "bias ignored",
        STEPS,
        "choice[expert] = scores[expert] + bias[expert];",
        "choice[expert] = scores[expert];",
        GOLDEN,
    ),
    Mutation(
        "other groups masked with 0 instead of minus infinity",
        STEPS,
        "size, options.masked_choice);",
        "size, 0.0f);",
        "routing_test",
    ),
    Mutation(
        "other groups masked with minus infinity instead of 0",
        STEPS,
        "size, options.masked_choice);",
        "size, -HUGE_VALF);",
        "routing_test",
    ),
    Mutation(
        "groups ranked by their best instead of their two best",
        STEPS,
        "if (score == GroupScore::kTopTwoSum) {",
        "if (false) {",
        GOLDEN,
    ),
    Mutation(
        "groups ranked by their two best instead of their best",
        STEPS,
        "if (score == GroupScore::kTopTwoSum) {",
        "if (size > 1) {",
        GOLDEN,
    ),
    Mutation(
        "one group too many",
        STEPS,
        "if (scratch->group_is_kept[group] == 0) {",
        "if (scratch->group_is_kept[group] == 0 && group > 0) {",
        GOLDEN,
    ),
    Mutation(
        "sparse mixer's threshold is epsilon",
        GATE + "sparse_mixer.cc",
        "2.0f * epsilon",
        "epsilon",
        GOLDEN,
    ),
    Mutation(
        "sparse mixer measures from the best alone",
        GATE + "sparse_mixer.cc",
        "std::max(std::fabs(logit), largest)",
        "std::fabs(largest)",
        "routing_test",
    ),
    Mutation(
        "sparse mixer's second softmax has the first expert",
        GATE + "sparse_mixer.cc",
        "expert == taken || distance > threshold",
        "distance > threshold",
        GOLDEN,
    ),
    Mutation(
        "hash is off by one",
        ROUTING,
        "request.token_ids[token] % options_.num_experts;",
        "(request.token_ids[token] + 1) % options_.num_experts;",
        GOLDEN,
    ),
    Mutation(
        "second experts given up when they should stay",
        STEPS,
        "key, slot) < weights[slot] / threshold",
        "key, slot) >= weights[slot] / threshold",
        GOLDEN,
    ),
    Mutation(
        "sampled second experts without noise",
        STEPS,
        "logits[expert] + Gumbel(random, RandomUse::kSecondExpert, key, expert);",
        "logits[expert];",
        GOLDEN,
    ),
    Mutation(
        "Gumbel noise upside down",
        GATE + "noise.cc",
        "-std::log(-std::log(u))",
        "std::log(-std::log(u))",
        GOLDEN,
    ),
    Mutation(
        "learned noise without softplus",
        GATE + "noise.cc",
        "Softplus(width[expert]) + options.noise_scale",
        "width[expert] + options.noise_scale",
        GOLDEN,
    ),
]

AFTER_CHOICE = [
    Mutation("missing scale", WEIGHTS, "weight *= options.scale;", "weight *= 1.0f;", GOLDEN),
    # Softmax scores of all experts sum to 1.
    Mutation(
        "renormalised by the sum over all experts",
        WEIGHTS,
        "if (options.renormalise == Renormalise::kNone) {",
        "if (options.renormalise != Renormalise::kLp) {",
        GOLDEN,
    ),
    Mutation(
        "clamped sum is a sum with epsilon",
        WEIGHTS,
        "return std::max(sum, options.renormalise_epsilon);",
        "return sum + options.renormalise_epsilon;",
        GOLDEN,
    ),
    Mutation(
        "sum with epsilon is a clamped one",
        WEIGHTS,
        "return sum + options.renormalise_epsilon;",
        "return std::max(sum, options.renormalise_epsilon);",
        GOLDEN,
    ),
    Mutation(
        "sum clamped to the step of float32, whatever activations are",
        WEIGHTS,
        "return std::max(sum, EpsilonOf(activation_dtype));",
        "return std::max(sum, EpsilonOf(DType::kF32));",
        "routing_test",
    ),
    Mutation(
        "norm without its root",
        WEIGHTS,
        "p == 1.0f ? sum : std::pow(sum, 1.0f / p)",
        "sum",
        GOLDEN,
    ),
    Mutation(
        "weights not rounded to the type of activations",
        WEIGHTS,
        "if (options.weight_dtype == WeightDType::kModel) {",
        "if (false) {",
        "routing_test",
    ),
    Mutation(
        "renormalised before dropping, whatever is asked",
        ROUTING,
        "if (!options_.renormalise_after_drop) {",
        "if (true) {",
        GOLDEN,
    ),
]

COMPETITION = [
    Mutation(
        "capacity off by one",
        CAPACITY,
        "if (scratch_->load[expert] >= capacity_) {",
        "if (scratch_->load[expert] > capacity_) {",
        GOLDEN,
    ),
    Mutation("capacity rounded down", CAPACITY, "std::ceil(exact)", "std::floor(exact)", GOLDEN),
    Mutation(
        "capacity without top_k",
        CAPACITY,
        "options.choice == Choice::kExpertChoice ? 1.0 : options.top_k",
        "1.0",
        GOLDEN,
    ),
    Mutation(
        "capacity's minimum ignored",
        CAPACITY,
        "room = std::max(room, static_cast<double>(capacity.minimum));",
        "",
        GOLDEN,
    ),
    Mutation(
        "a token's second choice before the next token's first",
        CAPACITY,
        """    for (size_t slot = 0; slot < k_; ++slot) {
      for (size_t i = 0; i < tokens_; ++i) {""",
        """    for (size_t i = 0; i < tokens_; ++i) {
      for (size_t slot = 0; slot < k_; ++slot) {""",
        GOLDEN,
    ),
    Mutation(
        "priority to the lowest score",
        CAPACITY,
        "return Larger(keys[a], keys[b]) || (!Larger(keys[b], keys[a]) && a < b);",
        "return Larger(keys[b], keys[a]) || (!Larger(keys[a], keys[b]) && a < b);",
        GOLDEN,
    ),
    Mutation(
        "among equals the last",
        CAPACITY,
        "(!Larger(keys[b], keys[a]) && a < b);",
        "(!Larger(keys[b], keys[a]) && a > b);",
        "capacity_test",
    ),
    Mutation(
        "next best is next worst",
        CAPACITY,
        "Larger(choices[expert], choices[best])",
        "Larger(choices[best], choices[expert])",
        GOLDEN,
    ),
    Mutation(
        "next best keeps the weight of the expert that was full",
        CAPACITY,
        "group_.weights[at] = group_.scores[token * experts_ + expert];",
        "",
        GOLDEN,
    ),
    Mutation(
        "experts choose by position",
        GATE + "expert_choice.cc",
        "scratch->column[token] = scores[token * experts + expert];",
        "scratch->column[token] = 0.0f;",
        GOLDEN,
    ),
]

# CPU backend: of the conformance suite of all backends, what is about expert math.
CPU = "cpu_backend_test"
EXPERT_MATH = "*EveryKindOfExpert*:*ClampedSwiglu*:*TheBiasOfDown*:*ApplyWeight*:*SlicesAddUp*"

EXPERTS = [
    Mutation(
        "gate and up swapped",
        PACKER,
        "is_gate ? weights.gate : weights.up",
        "is_gate ? weights.up : weights.gate",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "gate and up of the biases swapped",
        "common/experts/cpu_expert.cc",
        "is_gate ? weights.gate_bias : weights.up_bias",
        "is_gate ? weights.up_bias : weights.gate_bias",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "bias of down outside the weight",
        ELEMENTWISE,
        "sum[i] = sum[i] + weight * (in[i] + bias[i]);",
        "sum[i] = sum[i] + weight * in[i] + bias[i];",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu without its lower limit",
        ELEMENTWISE,
        "up = up < -limit ? -limit : up;",
        "",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu limits the gate from below, too",
        ELEMENTWISE,
        "gate = gate > limit ? limit : gate;",
        "gate = gate > limit ? limit : (gate < -limit ? -limit : gate);",
        CPU,
        EXPERT_MATH,
    ),
    Mutation("swiglu without the 1", ELEMENTWISE, "* (up + 1.0f)", "* up", CPU, EXPERT_MATH),
    Mutation(
        "swiglu's alpha is 1", ELEMENTWISE, "Exp(-(alpha * gate))", "Exp(-gate)", CPU, EXPERT_MATH
    ),
    Mutation(
        "relu is silu",
        ELEMENTWISE,
        "return x < 0.0f ? 0.0f : x; }",
        "return x / (1.0f + FastExp(-x)); }",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "weight applied to the output where the input is meant",
        COMPUTE,
        "if (batch.apply == ApplyWeight::kOutput) {",
        "if (true) {",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "weight not applied to the output",
        COMPUTE,
        "batch.apply == ApplyWeight::kOutput ? batch.weights[a] : 1.0f",
        "1.0f",
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "the first slice's bias of down in every slice",
        "common/model/expert_slice.cc",
        "if (slice.index != 0) {",
        "if (false) {",
        CPU,
        EXPERT_MATH,
    ),
]

FORMATS = [
    Mutation(
        "scales in float16 read as bfloat16",
        DECODE,
        "scales.dtype == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits)",
        "FloatFromBF16(bits)",
        "decode_matrix_test",
    ),
    Mutation(
        "nibbles swapped",
        KERNELS,
        "(byte & 15u) | (byte >> 4) << 8",
        "(byte >> 4) | (byte & 15u) << 8",
        "decode_matrix_test",
    ),
    Mutation(
        "e8m0 off by one",
        DECODE,
        "std::bit_cast<float>(uint32_t{byte} << 23)",
        "std::bit_cast<float>((uint32_t{byte} + 1) << 23)",
        "decode_matrix_test",
    ),
    Mutation("MXFP4's 6 is 5", KERNELS, "0xc8643210u", "0xa8643210u", "decode_matrix_test"),
    Mutation(
        "MXFP4 without its sign",
        KERNELS,
        "(bits & 8u) << 28",
        "(bits & 0u) << 28",
        "decode_matrix_test",
    ),
    Mutation(
        "FP8's smallest numbers too small",
        KERNELS,
        "code < 8 ? (normal + normal) - 0x1p-6f : normal",
        "normal",
        "decode_matrix_test",
    ),
    Mutation(
        "FP8's exponent off by one", KERNELS, "120u << 23", "121u << 23", "decode_matrix_test"
    ),
    Mutation(
        "scales of the wrong rows",
        DECODE,
        "(row + scales.row_offset) / scales.block_rows * scales.row_stride",
        "(row + scales.row_offset) / scales.block_cols * scales.row_stride",
        "decode_matrix_test",
    ),
    Mutation(
        "scales divide",
        KERNELS,
        "Store(FromF8E4M3(source[i]) * scale, target + i);",
        "Store(FromF8E4M3(source[i]) / scale, target + i);",
        "decode_matrix_test",
    ),
    Mutation(
        "a slice's scales begin with the whole matrix's",
        "common/tensor/matrix_slice.cc",
        "part.scales.col_offset = first % view.scales.block_cols;",
        "",
        "decode_tile_test",
    ),
]

STORAGE = [
    Mutation(
        "the model's type is that of its gates",
        "common/checkpoint/stored_dtype.cc",
        "FindType(tensors, NamesOf(TensorKind::kEmbedding, *layout, chosen.prefix), &stored)",
        "FindType(tensors, {NamesOfBlock(*layout, chosen)[1]}, &stored)",
        "moe_checkpoint_test",
    ),
    Mutation(
        "shared experts left out in silence",
        "common/checkpoint/ignored_weights.cc",
        "if (layer.shared_intermediate_size == 0) {",
        "if (false) {",
        "moe_checkpoint_test",
    ),
    Mutation(
        "experts left out in silence",
        "common/checkpoint/ignored_weights.cc",
        "if (storage.experts.up.stacking == Stacking::kPerExpert) {",
        "if (false) {",
        "moe_checkpoint_test",
    ),
    Mutation(
        "swiglu_alpha of config.json ignored",
        "common/checkpoint/family_gpt_oss.cc",
        'config.FloatOr({"swiglu_alpha"}, 1.702f)',
        'config.FloatOr({"swiglu_none"}, 1.702f)',
        "family_options_test",
    ),
    Mutation(
        "even and odd rows swapped",
        FINDER,
        "case Part::kOdd:\n      return {1, 2};",
        "case Part::kOdd:\n      return {0, 2};",
        "storage_test",
    ),
    Mutation(
        "the second half is the first",
        FINDER,
        "return {outputs, 1};",
        "return {0, 1};",
        "storage_test",
    ),
    Mutation(
        "transposed weights read as they lie",
        FINDER,
        "view.col_stride = place.transposed ? stored : 1;",
        "view.col_stride = 1;",
        "storage_test",
    ),
    Mutation(
        "every expert is the first",
        FINDER,
        "const uint64_t first = expert * stored * inputs + range.first * output_stride;",
        "const uint64_t first = range.first * output_stride;",
        "storage_test",
    ),
    Mutation(
        "MXFP4 scales of the row before",
        FINDER,
        "view.scales.row_stride = range.step * blocks;",
        "view.scales.row_stride = blocks;",
        "quantised_test",
    ),
]

CHOICE_OF_NODES = "router_service/plan/replica_choice.cc"
PLANNER = "router_service/plan/planner.cc"
CODEC = "common/wire/message_codec.cc"
SPLIT = "common/wire/message_split.cc"

# Which node serves what.
PLANNING = [
    Mutation(
        "planning: any node in use will do for a replica",
        CHOICE_OF_NODES,
        "std::popcount(wanted[word] & ~there[word])",
        "0 * std::popcount(wanted[word] & ~there[word])",
        "replica_choice_test",
    ),
    Mutation(
        "planning: a replica joins where most rows are new",
        CHOICE_OF_NODES,
        "best == kNone || cost < least",
        "best == kNone || cost > least",
        "replica_choice_test",
    ),
    Mutation(
        "planning: the node that covers least is chosen",
        CHOICE_OF_NODES,
        "return a.coverable > b.coverable;",
        "return a.coverable < b.coverable;",
        "planner_test",
    ),
    Mutation(
        "planning: work in flight is ignored",
        CHOICE_OF_NODES,
        "return Work(a) != Work(b) ? Work(a) < Work(b) : a.node.node < b.node.node;",
        "return a.node.node < b.node.node;",
        "planner_test",
    ),
    Mutation(
        "planning: hits of one batch stay for the next",
        CHOICE_OF_NODES,
        "std::exchange(hits_[expert], 0)",
        "hits_[expert]",
        "planner_test",
    ),
    Mutation(
        "planning: pieces of a cut plan count from the first row",
        PLANNER,
        "whole.row_begin[row] - first",
        "whole.row_begin[row]",
        "planner_test",
    ),
    Mutation(
        "planning: node plans do not come back",
        PLANNER,
        "free_.push_back(std::move(plan));",
        "NodePlan(std::move(plan));",
        "planner_allocation_test",
    ),
    Mutation(
        "planning: a uniform choice is the first replica",
        PLANNER,
        "slice[Draw(slice.size())]",
        "slice[0 * Draw(slice.size())]",
        "planner_test",
    ),
]

MESSAGES = [
    Mutation(
        "wire: groups are refused",
        SPLIT,
        "while (groups < kMaxGroups) {",
        "while (false) {",
        "message_codec_property_test",
    ),
    Mutation(
        "wire: the last of several tensors counts alone",
        SPLIT,
        "if (!field->is_message) {",
        "if (true) {",
        "message_codec_property_test",
    ),
    Mutation(
        "wire: several data fields are joined",
        SPLIT,
        "if (!field->is_message) {",
        "if (false) {",
        "message_codec_property_test",
    ),
    Mutation(
        "wire: a tag may be of any length",
        SPLIT,
        "const bool valid = ReadVarint(&value, kMaxShortVarint);",
        "const bool valid = ReadVarint(&value);",
        "message_codec_property_test",
    ),
    Mutation(
        "wire: rows are always copied together",
        "common/wire/tensor_copy.cc",
        "rows.size() * row_bytes < runs * kShareFrom",
        "true",
        "router_copies_test",
    ),
    Mutation(
        "wire: slices of one owner are all its first one",
        "common/net/byte_buffer.cc",
        "shared.data.refcounted.bytes = const_cast<uint8_t*>(slice.data());",
        "",
        "byte_buffer_test",
    ),
]

# What the router does beside routing.
ROUTER = [
    Mutation(
        "gates round to what the checkpoint is stored as",
        "router_service/router.cc",
        "backend_->compute_dtype(), options_.tie_order",
        "checkpoint_->model().dtype, options_.tie_order",
        "router_routing_test",
    ),
    Mutation(
        "shared gates round to what the checkpoint is stored as",
        "router_service/router.cc",
        "backend_->compute_dtype()));\n  }\n  return absl::OkStatus();",
        "checkpoint_->model().dtype));\n  }\n  return absl::OkStatus();",
        "router_routing_test",
    ),
    Mutation(
        "shared gate ignored",
        BATCH,
        "if (layer_->shared_gate != nullptr) {",
        "if (false) {",
        "router_routing_test",
    ),
    Mutation(
        "shared gate without its sigmoid",
        GATE + "shared_gate.cc",
        "static_cast<float>(1.0 / (1.0 + std::exp(-double{product})))",
        "product",
        "shared_gate_test",
    ),
    Mutation(
        "nothing passes by",
        "router_service/batch/batch_answer.cc",
        "if (layer_->description.routing.pass_through == PassThrough::kComplement) {",
        "if (false) {",
        "router_routing_test",
    ),
]

DECODER = "client/cpp/decoder/"
KERNEL = DECODER + "attention_kernels.cc"

# Native decoding.
DECODING = [
    Mutation(
        "decoding: a tied head of its own is not used",
        DECODER + "model_tensors.cc",
        "if (layout_.tied_embeddings && !own_head_) {",
        "if (layout_.tied_embeddings) {",
        "decoder_test",
    ),
    Mutation(
        "decoding: gates here round to what the checkpoint is stored as",
        DECODER + "local_moe_layers.cc",
        "group.activation_dtype = backend_->compute_dtype();",
        "group.activation_dtype = checkpoint_->model().dtype;",
        "decoder_test",
    ),
    Mutation(
        "decoding: scores are not scaled",
        KERNEL,
        "scores[t] *= scale;",
        "scores[t] *= 1.0f;",
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: sums of earlier blocks are not rescaled",
        KERNEL,
        "seen->sum = seen->sum * before + SumOf(scores);",
        "seen->sum += SumOf(scores);",
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: keys that are not seen count",
        KERNEL,
        "  hide(-std::numeric_limits<float>::infinity());",
        "",
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: norm without its epsilon",
        KERNEL,
        "std::sqrt(mean + epsilon)",
        "std::sqrt(mean)",
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: RoPE turns the other way",
        DECODER + "rope.cc",
        "b = b * cosines_[i] + a * sines_[i];",
        "b = b * cosines_[i] - a * sines_[i];",
        "rope_test",
    ),
    Mutation(
        "decoding: mscale is not squared",
        DECODER + "rope.cc",
        "rope->scale = all * all;",
        "rope->scale = all;",
        "rope_test",
    ),
    Mutation(
        "decoding: temperature multiplies",
        DECODER + "sampler.cc",
        "std::exp(above / options_.temperature)",
        "std::exp(above * options_.temperature)",
        "sampler_test",
    ),
    Mutation(
        "decoding: top-p keeps all",
        DECODER + "sampler.cc",
        "if (reached >= options_.top_p * total) {",
        "if (reached > total) {",
        "sampler_test",
    ),
    Mutation(
        "decoding: a window is one wider",
        DECODER + "grouped_attention.cc",
        "end - options_.window : 0;",
        "end - options_.window - 1 : 0;",
        "decoder_test",
    ),
    Mutation(
        "decoding: a latent is not remembered where it belongs",
        DECODER + "latent_attention.cc",
        "segment.cache->tokens() * kept_width();",
        "0;",
        "decoder_test",
    ),
    Mutation(
        "decoding: positions begin anew with each piece",
        DECODER + "decoder.cc",
        "const size_t position = before + batch.angles.size() - batch.rows;",
        "const size_t position = batch.angles.size() - batch.rows;",
        "decoder_test",
    ),
    Mutation(
        "decoding: end tokens do not end",
        DECODER + "generator.cc",
        "return !options_.ignore_end && ",
        "return options_.ignore_end && ",
        "decoder_test",
    ),
    Mutation(
        "decoding: one token too many fits",
        DECODER + "generator.cc",
        "max_tokens > context - given + 1",
        "max_tokens > context - given + 2",
        "decoder_test",
    ),
    Mutation(
        "decoding: biases of a projection are dropped",
        "common/experts/linear.cc",
        "to[column] = from[column] + linear.bias_[first + column];",
        "to[column] = from[column];",
        "linear_test",
    ),
    Mutation(
        "a second tile of rows shares the first one's sums",
        TILES,
        "_tile_dpbf16ps(2, 5, 6);",
        "_tile_dpbf16ps(2, 4, 6);",
        "tile_product_test",
        isa="amx",
    ),
    Mutation(
        "both halves of a strip are multiplied by the first",
        TILES,
        "of_strip + 2 * kTileBytes, steps",
        "of_strip, steps",
        "tile_product_test",
        isa="amx",
    ),
    Mutation(
        "a later run of panels replaces the earlier ones",
        PANELS,
        "if (!first) {",
        "if (false) {",
        "panel_product_test",
    ),
    Mutation(
        "each widened run of bf16 panels replaces the earlier ones",
        PANELS,
        "/*add=*/k > 0",
        "/*add=*/false",
        "panel_product_test",
        isa_at_most="avx512",
    ),
    Mutation(
        "both of a pair of widened bf16 weights are the first one",
        PANELS,
        "w[column] = SecondOf(",
        "w[column] = FirstOf(",
        "panel_product_test",
        isa_at_most="avx512",
    ),
    Mutation(
        "a later run of bf16 panels replaces the earlier ones",
        "common/matmul/panel_dot.cc",
        "part.first ? sum",
        "true ? sum",
        "panel_product_test",
        isa="avx512_bf16",
    ),
    Mutation(
        "a row that bfloat16 does not have is rounded to it for the gate",
        GATE + "gate_tiles.cc",
        "begin < values.size(); begin += kTogether",
        "begin + kTogether < values.size(); begin += kTogether",
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "all of a run of rows are taken for what the first one is",
        GATE + "gate_matmul.cc",
        "end < rows && is_bf16(end) == narrow;",
        "end < rows;",
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "rows of odd width are not padded for tiles",
        GATE + "gate_tiles.cc",
        "x = scratch->x.data();",
        "",
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "rows of a product at the places of other strips",
        COMPUTE,
        "block.count * begin + place.row * columns",
        "block.count * begin + place.row * block.down->columns",
        CPU,
        EXPERT_MATH,
        isa="amx",
    ),
]

WIRE = [
    Mutation(
        "int8: the largest value is not 127",
        "common/tensor/int8_blocks.cc",
        "constexpr float kLargestInteger = 127.0f;",
        "constexpr float kLargestInteger = 126.0f;",
        "int8_blocks_test",
    ),
    Mutation(
        "int8: a block with NaN becomes finite",
        "common/tensor/int8_blocks.cc",
        "const bool finite = largest < 0x7f800000;",
        "const bool finite = true;",
        "int8_blocks_test",
    ),
    Mutation(
        "int8: rounds towards zero",
        "common/tensor/int8_blocks.cc",
        "scaled + kRounder",
        "static_cast<float>(static_cast<int32_t>(scaled)) + kRounder",
        "int8_blocks_test",
    ),
    Mutation(
        "int8: any number of scales is accepted",
        "common/wire/message_codec.cc",
        "if (size != expected) {",
        "if (false) {",
        "message_codec_test",
    ),
    Mutation(
        "int8: a piece ends a block",
        "common/wire/tensor_copy.cc",
        "left_of_block_ -= count;",
        "left_of_block_ -= size == 0 ? left_of_block_ : count;",
        "message_codec_test",
    ),
    Mutation(
        "int8: parts have the scales of the first rows",
        "common/wire/tensor_encode.cc",
        "tensor.scales.Sub(first * scales, count * scales)",
        "tensor.scales.Sub(0, count * scales)",
        "tensor_encode_test",
    ),
    Mutation(
        "frames may disagree about the type of partials",
        "expert_service/batch_assembly.cc",
        "if (partials_dtype != batch.partials_dtype) {",
        "if (false) {",
        "batch_assembly_test",
    ),
    Mutation(
        "partials come as float32 whatever was asked for",
        "expert_service/scheduler.cc",
        "answer.dtype = batch.partials_dtype;",
        "",
        "node_test",
    ),
    Mutation(
        "hidden states have the type of partials",
        "router_service/mesh/wire_encoding.cc",
        "return {Choose(hidden_states_, address), Choose(partials_, address), checksums_};",
        "return {Choose(partials_, address), Choose(partials_, address), checksums_};",
        "wire_encoding_test",
    ),
    Mutation(
        "exceptions for a node's address have no effect",
        "router_service/mesh/wire_encoding.cc",
        "exception == direction.of_address.end() ? direction.of_all : exception->second",
        "direction.of_all",
        "wire_encoding_test",
    ),
    Mutation(
        "the wrong rows are converted on their way to a node",
        "router_service/batch/batch_encode.cc",
        "EncodeRows(environment_->activation_dtype, hidden_states_->data(), plan.rows,\n                 environment_",
        "EncodeRows(environment_->activation_dtype, hidden_states_->data(), plan.rows.size(),\n                 environment_",
        "router_wire_test",
    ),
]

STRICT = [
    Mutation(
        "strict: every assignment is taken for slice 0",
        COMBINE,
        "const size_t slice = (*contribution.replicas)[expert].SliceOn(plan.node).value_or(0);",
        "const size_t slice = 0;",
        "combine_test",
    ),
    Mutation(
        "a range of rows is summed from the first row that a node has",
        COMBINE,
        "std::lower_bound(rows.begin(), rows.end(), range.first)",
        "std::lower_bound(rows.begin(), rows.end(), size_t{0})",
        "combine_test",
    ),
    Mutation(
        "partials are read as if all links had the first one's type",
        COMBINE,
        "AddElements(contribution.partials.dtype, RowOf",
        "AddElements(contributions.front().partials.dtype, RowOf",
        "combine_test",
    ),
    Mutation(
        "strict: shared experts come first",
        COMBINE,
        """    std::fill_n(sum, d_model, 0.0f);
    const size_t end""",
        """    std::copy_n(shared == nullptr ? sum : shared + token * d_model, d_model, sum);
    const size_t end""",
        "combine_test",
    ),
    Mutation(
        "strict: answers of more rows than the node takes",
        BATCH,
        "CutToAssignments(std::move(whole), limit,",
        "CutToAssignments(std::move(whole), 0,",
        "router_strict_test",
    ),
    Mutation(
        "strict: the second piece of a row is lost",
        "router_service/plan/cut_plan.cc",
        "      row = at;\n",
        "      row = at + 1;\n",
        "cut_plan_test",
    ),
    Mutation(
        "strict: every assignment reads its token's neighbour",
        "expert_service/batch_computer.cc",
        "static_cast<uint32_t>(first_row) + row);",
        "static_cast<uint32_t>(first_row) + (row + 1) % batch.total_rows);",
        "scheduler_test",
    ),
    Mutation(
        "strict: the node's limit counts tokens",
        "expert_service/batch_assembly.cc",
        "if (batch.per_assignment && assignments > limits_.max_batch_rows) {",
        "if (batch.per_assignment && batch.total_rows > limits_.max_batch_rows) {",
        "batch_assembly_test",
    ),
    Mutation(
        "rows of a batch read their own hidden state whatever it says",
        COMPUTE,
        "batch.hidden_row_of.empty() ? static_cast<uint32_t>(row) : batch.hidden_row_of[row];",
        "static_cast<uint32_t>(row) % static_cast<uint32_t>(batch.rows);",
        "cpu_backend_test",
        "*RowsMayRead*",
    ),
]

# What keeps wrong numbers from callers: of nodes, of memory, of narrow types.
TRUST = [
    Mutation(
        "f16: what rounds to infinity fits",
        "common/tensor/dtype.cc",
        "constexpr int32_t kBeyondF16 = 0x477ff000;",
        "constexpr int32_t kBeyondF16 = 0x47800000;",
        "compute_response_test",
    ),
    Mutation(
        "f16: hidden states beyond it are sent all the same",
        BATCH,
        "if (IsLossy(activation, narrow) && IsActivationDType(narrow)) {",
        "if (false) {",
        "router_wire_test",
    ),
    Mutation(
        "f16: a batch with a row beyond it is wide as a whole",
        BATCH,
        "beyond = RowsBeyond(plan, narrow);",
        "beyond = RowsBeyond(plan, narrow).empty() ? beyond : plan.rows;",
        "router_wire_test",
    ),
    Mutation(
        "f16: partials beyond it are sent all the same",
        "expert_service/compute_response.cc",
        "if (!encoder.Encode(row, result.partials + row * result.d_model)) {",
        "if (encoder.Encode(row, result.partials + row * result.d_model), false) {",
        "compute_response_test",
    ),
    Mutation(
        "an output beyond its type is infinite",
        "router_service/batch/batch_answer.cc",
        "RETURN_IF_ERROR(beyond.ToStatus(job.output_dtype()));",
        "",
        "router_wire_test",
    ),
    Mutation(
        "rows that came narrow are lost when a wide one comes",
        "router_service/mesh/node_link.cc",
        "ConvertElements(kept_dtype, partials->data(), DType::kF32, wider->data(), received_elements);",
        "std::memset(wider->data(), 0, received_elements * sizeof(float));",
        "router_wire_test",
    ),
    Mutation(
        "NaN of a node is passed on",
        RETRY,
        "if (part->nonfinite_rows.empty()) {",
        "if (true) {",
        "router_trust_test",
    ),
    Mutation(
        "NaN of a row that came so is the node's fault",
        RETRY,
        "if (finite_weights && !HasNonFinite(activation, sent, d_model) &&",
        "if (finite_weights &&",
        "router_trust_test",
    ),
    Mutation(
        "a node is blamed for what its replicas say, too",
        RETRY,
        "if (part->contributes && std::binary_search(doubtful.begin(), doubtful.end(), row)) {",
        "if (false) {",
        "router_trust_test",
    ),
    Mutation(
        "digests leave scales out",
        DIGEST,
        "AddScales(view);",
        "",
        "expert_digest_test",
    ),
    Mutation(
        "digests depend on how a matrix is stored",
        DIGEST,
        "view.row_stride * BitsOf(view.dtype) ==",
        "view.rows * BitsOf(view.dtype) !=",
        "expert_digest_test",
    ),
    Mutation(
        "kept digests are of any version of the files",
        "common/checkpoint/digest_cache.cc",
        '(*json)["checkpoint"] != identity_',
        "false",
        "expert_digest_test",
    ),
    Mutation(
        "damaged experts are used",
        "router_service/mesh/placement.cc",
        "std::binary_search(offer.excluded.begin(), offer.excluded.end(),",
        "false && std::binary_search(offer.excluded.begin(), offer.excluded.end(),",
        "router_trust_test",
    ),
    Mutation(
        "of replicas that differ the newest is used",
        TRUST_OF_WEIGHTS,
        "if (in_use && CountOf(copies, *in_use) > 0) {",
        "if (false) {",
        "weight_trust_test",
    ),
    Mutation(
        "one of two is a majority",
        TRUST_OF_WEIGHTS,
        "if (2 * CountOf(copies, copy.digest) > copies.size()) {",
        "if (2 * CountOf(copies, copy.digest) >= copies.size()) {",
        "weight_trust_test",
    ),
    Mutation(
        "the checkpoint is not believed",
        TRUST_OF_WEIGHTS,
        "known.checkpoint ? *known.checkpoint : Choose(copies, known.in_use);",
        "Choose(copies, known.in_use);",
        "weight_trust_test",
    ),
    Mutation(
        "weights are verified as fast as the disk can",
        "router_service/mesh/weight_verifier.cc",
        "if (!hurried && bytes > 0) {",
        "if (false) {",
        "weight_trust_test",
        "*BoundedRate*",
    ),
    Mutation(
        "cross-checks always agree",
        "router_service/mesh/cross_check.cc",
        "const bool agree = beyond || difference <= tolerance;",
        "const bool agree = true;",
        "cross_check_test",
        "*WhoComputesSomethingElse*",
    ),
    Mutation(
        "cross-checks are due at every batch",
        "router_service/mesh/cross_check.cc",
        "if (schedule.under_way || now < schedule.next) {",
        "if (schedule.under_way) {",
        "cross_check_test",
        "*AsOftenAsIsAsked",
    ),
    Mutation(
        "checksums leave weights out",
        "common/wire/frame_checksum.cc",
        "checksum.Add(request.expert_weights());",
        "",
        "frame_checksum_test",
    ),
    Mutation(
        "the node does not look at checksums",
        "expert_service/batch_assembly.cc",
        "(request.has_tensor && message.checksum() == ChecksumOf(message, request.tensor))) {",
        "true) {",
        "batch_assembly_test",
    ),
    Mutation(
        "the router does not look at checksums",
        "router_service/mesh/node_link.cc",
        "if (message.has_checksum() &&",
        "if (false &&",
        "router_trust_test",
        "*Flipped*",
    ),
]

MUTATIONS = (
    SCORES
    + CHOICE
    + AFTER_CHOICE
    + COMPETITION
    + EXPERTS
    + FORMATS
    + STORAGE
    + PLANNING
    + MESSAGES
    + ROUTER
    + DECODING
    + WIRE
    + STRICT
    + TRUST
)
