"""Native decoding: attention, positions, sampling, ends."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    keep_left,
    keep_right,
    negate,
    off_by_one,
    replace_argument,
    replace_condition,
    replace_constant,
    replace_operator,
)

MUTATIONS = (
    Mutation(
        "decoding: a tied head of its own is not used",
        "ModelTensors::Head",
        keep_left("&&", touches="own_head_"),
        "decoder_test",
    ),
    Mutation(
        "decoding: gates here round to what the checkpoint is stored as",
        "LocalMoeLayers::LoadLayer",
        replace_argument("Create", 3, "checkpoint_->model().dtype", touches="Gate"),
        "local_moe_layers_test",
    ),
    Mutation(
        "decoding: all sequences are one group",
        "LocalMoeLayers::Route",
        delete_statement(touches="group_sizes"),
        "local_moe_layers_test",
    ),
    Mutation(
        "decoding: nothing passes by",
        "LocalMoeLayers::Run",
        force(False, touches="kComplement"),
        "local_moe_layers_test",
    ),
    Mutation(
        "decoding: another seed than the router's",
        "LocalMoeLayers::Route",
        delete_statement(touches="seed"),
        "local_moe_layers_test",
    ),
    Mutation(
        "decoding: scores are not scaled",
        "Weigh",
        delete_statement(within="scores", touches="scale"),
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: sums of earlier blocks are not rescaled",
        "Weigh",
        keep_left("*", touches=("sum", "before")),
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: keys that are not seen count",
        "Weigh",
        delete_statement(touches=("hide", "infinity")),
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: norm without its epsilon",
        "RmsNorm",
        keep_left("+", touches="epsilon"),
        "attention_kernels_test",
    ),
    Mutation(
        "decoding: RoPE turns the other way",
        "RopeAngles::Turn",
        replace_operator("+", "-", touches="cosines_"),
        "rope_test",
    ),
    Mutation(
        "decoding: mscale is not squared",
        "ApplyYarn",
        keep_left("*", within="scale"),
        "rope_test",
    ),
    Mutation(
        "decoding: temperature multiplies",
        "Sampler::Collect",
        replace_operator("/", "*", touches="temperature"),
        "sampler_test",
    ),
    Mutation(
        "decoding: top-p keeps all",
        "Sampler::Narrow",
        replace_condition("reached > total", touches="top_p"),
        "sampler_test",
    ),
    Mutation(
        "decoding: a window is one wider",
        "GroupedAttention::AttendPiece",
        off_by_one("window", touches="end", within="begin", nth=2),
        "decoder_test",
    ),
    Mutation(
        "decoding: a latent is not remembered where it belongs",
        "LatentAttention::Project",
        keep_left("+", touches="tokens", within="kept"),
        "decoder_test",
    ),
    Mutation(
        "decoding: each piece begins at position 0",
        "Decoder::Assemble",
        keep_right("+", touches="before", within="position"),
        "decoder_test",
    ),
    Mutation(
        "decoding: end tokens do not end",
        "Generator::EndsText",
        negate(touches="ignore_end"),
        "decoder_test",
    ),
    Mutation(
        "decoding: one token too many fits",
        "Sequence::Prompt",
        replace_constant("1", "2", touches="given", nth=1),
        "decoder_test",
    ),
)
