"""Routing: from logits to experts and weights."""

from mutation import Mutation
from operators import (
    call_to_operator,
    choose,
    delete_statement,
    drop_unary,
    force,
    keep_left,
    keep_right,
    off_by_one,
    operator_to_call,
    replace_argument,
    replace_call,
    replace_condition,
    replace_name,
    replace_operator,
    set_value,
    swap_arguments,
    swap_loops,
    unwrap,
)

# Recorded routings of every family and router (tests/golden/routing).
GOLDEN = "routing_golden_test"

SCORES = (
    Mutation(
        "temperature multiplies logits",
        "AdjustedLogits",
        replace_operator("/", "*", touches="temperature"),
        GOLDEN,
    ),
    Mutation(
        "logit bias dropped",
        "Gate::MultiplyBlock",
        delete_statement(touches="bias"),
        "gate_test",
    ),
    Mutation(
        "logits not rounded to the type of activations",
        "Gate::MultiplyBlock",
        delete_statement(touches="RoundTo"),
        "gate_test",
    ),
    Mutation(
        "scores not rounded to the type of activations",
        "RoundScores",
        force(False, touches="score_dtype"),
        GOLDEN,
    ),
    Mutation(
        "softmax of all where the selected are meant",
        "Score",
        force(True, touches=("options_", "kAll")),
        GOLDEN,
    ),
    Mutation(
        "selected logits are the weights",
        "ChooseTopK",
        force(False, touches="kSelected"),
        GOLDEN,
    ),
    Mutation(
        "square root of softplus forgets the root",
        "ScoreRow",
        unwrap("sqrt"),
        GOLDEN,
    ),
    Mutation(
        "sigmoid is a softmax",
        "ScoreRow",
        replace_name("sigmoid", "softmax"),
        GOLDEN,
    ),
)

CHOICE = (
    Mutation(
        "bias added to weights",
        "ChooseTopK",
        replace_name("scores", "choice", within="weights"),
        GOLDEN,
    ),
    Mutation(
        "bias ignored",
        "AddSelectBias",
        keep_left("+", touches="bias"),
        GOLDEN,
    ),
    Mutation(
        "other groups masked with 0 instead of minus infinity",
        "LimitGroups",
        replace_argument("fill_n", 3, "0.0f", touches="masked"),
        "routing_test",
    ),
    Mutation(
        "other groups masked with minus infinity instead of 0",
        "LimitGroups",
        replace_argument("fill_n", 3, "-HUGE_VALF", touches="masked"),
        "routing_test",
    ),
    Mutation(
        "groups ranked by their best instead of their two best",
        "ScoreGroups",
        force(False, touches="kTopTwoSum"),
        GOLDEN,
    ),
    Mutation(
        "groups ranked by their two best instead of their best",
        "ScoreGroups",
        replace_condition("size > 1", touches="kTopTwoSum"),
        GOLDEN,
    ),
    Mutation(
        "one group too many",
        "LimitGroups",
        replace_condition(
            "scratch->group_is_kept[group] == 0 && group > 0", touches="group_is_kept"
        ),
        GOLDEN,
    ),
    Mutation(
        "sparse mixer's threshold is epsilon",
        "SparseMixer",
        keep_right("*", touches="epsilon"),
        GOLDEN,
    ),
    Mutation(
        "sparse mixer measures from the best alone",
        "SparseMixer",
        set_value("factor", "std::fabs(largest)"),
        "routing_test",
    ),
    Mutation(
        "sparse mixer's second softmax has the first expert",
        "SparseMixer",
        keep_right("||", touches="threshold"),
        GOLDEN,
    ),
    Mutation(
        "hash is off by one",
        "RouteToken",
        off_by_one("token_ids"),
        GOLDEN,
    ),
    Mutation(
        "second experts given up when they should stay",
        "KeepSecondExpertsAtRandom",
        replace_operator("<", ">=", touches="threshold"),
        GOLDEN,
    ),
    Mutation(
        "sampled second experts without noise",
        "SampleSecondExperts",
        keep_left("+", touches="Gumbel"),
        GOLDEN,
    ),
    Mutation(
        "Gumbel noise upside down",
        "Gumbel",
        drop_unary("-", touches="log", nth=1),
        GOLDEN,
    ),
    Mutation(
        "learned noise without softplus",
        "AddNoise",
        unwrap("Softplus"),
        GOLDEN,
    ),
)

AFTER_CHOICE = (
    Mutation(
        "missing scale",
        "ScaleWeights",
        delete_statement(touches="scale"),
        GOLDEN,
    ),
    # Softmax scores of all experts sum to 1.
    Mutation(
        "renormalised by the sum over all experts",
        "RenormaliseWeights",
        replace_condition("options.renormalise != Renormalise::kLp", touches="kNone"),
        GOLDEN,
    ),
    Mutation(
        "clamped sum is a sum with epsilon",
        "Divisor",
        call_to_operator("max", "+", touches="renormalise_epsilon"),
        GOLDEN,
    ),
    Mutation(
        "sum with epsilon is a clamped one",
        "Divisor",
        operator_to_call("+", "std::max", touches="renormalise_epsilon"),
        GOLDEN,
    ),
    Mutation(
        "sum clamped to the step of float32, whatever activations are",
        "Divisor",
        replace_argument("EpsilonOf", 1, "Dtype::kF32"),
        "routing_test",
    ),
    Mutation(
        "norm without its root",
        "Divisor",
        choose(True, touches="sum"),
        GOLDEN,
    ),
    Mutation(
        "weights not rounded to the type of activations",
        "ScaleWeights",
        force(False, touches="weight_dtype"),
        "routing_test",
    ),
    Mutation(
        "renormalised before dropping, whatever is asked",
        "FinishToken",
        force(True, touches="renormalise_after_drop", nth=1),
        GOLDEN,
    ),
)

COMPETITION = (
    Mutation(
        "capacity off by one",
        "Filling::Enter",
        replace_operator(">=", ">", touches="capacity_"),
        GOLDEN,
    ),
    Mutation(
        "capacity rounded down",
        "CapacityOf",
        replace_call("ceil", "std::floor", within="room"),
        GOLDEN,
    ),
    Mutation(
        "capacity without top_k",
        "CapacityOf",
        choose(True, touches=("options", "top_k")),
        GOLDEN,
    ),
    Mutation(
        "capacity's minimum ignored",
        "CapacityOf",
        delete_statement(touches="minimum"),
        GOLDEN,
    ),
    Mutation(
        "a token's second choice before the next token's first",
        "Filling::BySlot",
        swap_loops("slot", "i"),
        GOLDEN,
    ),
    Mutation(
        "priority to the lowest score",
        "Ranked",
        (swap_arguments("Larger", 1, 2, nth=1), swap_arguments("Larger", 1, 2, nth=2)),
        GOLDEN,
    ),
    Mutation(
        "among equals the last",
        "Ranked",
        replace_operator("<", ">"),
        "capacity_test",
    ),
    Mutation(
        "next best is next worst",
        "Filling::NextBest",
        swap_arguments("Larger", 1, 2),
        GOLDEN,
    ),
    Mutation(
        "next best keeps the weight of the expert that was full",
        "KeepOrTakeNextBest",
        delete_statement(within="weights"),
        GOLDEN,
    ),
    Mutation(
        "experts choose by position",
        "ChooseTokens",
        set_value("column", "0.0f"),
        GOLDEN,
    ),
)

# Products of the gate.
PRODUCTS = (
    Mutation(
        "a row that bfloat16 does not have is rounded to it for the gate",
        "HoldsBF16",
        replace_condition("begin + kTogether < values.size()", touches=("begin", "size")),
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "all of a run of rows are taken for what the first one is",
        "GateMatmul::Run",
        keep_left("&&", touches="narrow"),
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "rows of odd width are not padded for tiles",
        "GateTiles::Run",
        delete_statement(within="x"),
        "gate_test",
        isa="amx",
    ),
    Mutation(
        "shared gate without its sigmoid",
        "SharedGate::Weights",
        replace_argument("Rounded", 2, "product", touches="exp"),
        "shared_gate_test",
    ),
)

MUTATIONS = SCORES + CHOICE + AFTER_CHOICE + COMPETITION + PRODUCTS
