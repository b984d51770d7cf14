"""Expert math on the CPU, and projections of the decoder, which use the same kernels."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    drop_parentheses,
    force,
    keep_left,
    keep_right,
    replace_name,
    replace_return,
    set_value,
    swap_branches,
)

CPU = "cpu_backend_test"
# The tests of expert math in the conformance suite of all backends.
EXPERT_MATH = "*EveryKindOfExpert*:*ClampedSwiglu*:*TheBiasOfDown*:*ApplyWeight*:*SlicesAddUp*"

MUTATIONS = (
    Mutation(
        "gate and up swapped",
        "WeightPacker::PackUp",
        swap_branches(touches=("gate", "up")),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "gate and up of the biases swapped",
        "Interleave",
        swap_branches(touches=("gate_bias", "up_bias")),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "bias of down outside the weight",
        "AccumulateBiasedBody",
        drop_parentheses(touches="bias"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu without its lower limit",
        "ClampedSwiglu::operator()",
        delete_statement(within="up", nth=2),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu limits the gate from below, too",
        "ClampedSwiglu::operator()",
        set_value("gate", "gate > limit ? limit : (gate < -limit ? -limit : gate)"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu without the 1",
        "ClampedSwiglu::operator()",
        keep_left("+", touches="up"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "swiglu's alpha is 1",
        "ClampedSwiglu::operator()",
        keep_right("*", touches="alpha"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "relu is silu",
        "Relu::operator()",
        replace_return("x / (1.0f + FastExp(-x))", touches="x"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "weight applied to the output where the input is meant",
        "CpuCompute::Gather",
        force(True, touches="kOutput"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "weight not applied to the output",
        "CpuCompute::SumRow",
        choose(False, touches="kOutput"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "the first slice's bias of down in every slice",
        "SliceOf",
        force(False, touches="index"),
        CPU,
        EXPERT_MATH,
    ),
    Mutation(
        "rows of a batch read their own hidden state whatever it says",
        "FillRowOf",
        set_value("from", "static_cast<uint32_t>(row) % static_cast<uint32_t>(batch.rows)"),
        CPU,
        "*RowsMayRead*",
    ),
    Mutation(
        "rows of a product at the places of other strips",
        "CpuCompute::SumRow",
        replace_name("columns", "block.down->columns", touches="place"),
        CPU,
        EXPERT_MATH,
        isa="amx",
    ),
    Mutation(
        "decoding: biases of a projection are dropped",
        "StoreStrip",
        keep_left("+", touches="bias_"),
        "linear_test",
    ),
)
