"""Central management: how bias follows load within its budget, whom to believe, and what survives a kill."""

from mutation import Mutation
from operators import choose, delete_statement, force, replace_operator, set_value

BIAS = (
    Mutation(
        "the busiest experts get a higher bias",
        "balance::Direction",
        replace_operator("-", "+", touches=("mean", "load")),
        "bias_policy_test",
    ),
    Mutation(
        "the quality budget is no bound",
        "LayerBias::Step",
        force(False, touches=("wanted", "allowed"), nth=1),
        "bias_policy_test",
    ),
    Mutation(
        "what nothing is known of may grow",
        "LayerBias::AllowedDistance",
        force(False, touches="compared", nth=1),
        "bias_policy_test",
    ),
    Mutation(
        "a few tokens that may have changed by chance take a bias back",
        "LayerBias::BackOff",
        force(False, touches=("low", "quality_budget")),
        "bias_policy_test",
    ),
    Mutation(
        "a bias that was set waits for a step before it is held",
        "BiasSteering::StepLayer",
        force(False, touches="BackOffLayer"),
        "bias_steering_test",
    ),
    Mutation(
        "tokens of the bias before count for the next step",
        "BiasSteering::StepLayer",
        delete_statement(touches=("since", "totals"), nth=1),
        "bias_steering_test",
    ),
)

ROUTERS = (
    Mutation(
        "an authority that is over is followed",
        "balance_control::CheckSuccession",
        force(False, touches=("term", "last"), nth=2),
        "decision_test",
    ),
    Mutation(
        "of two authorities of one term any is followed",
        "balance_control::CheckSuccession",
        force(False, touches="authority_id"),
        "decision_test",
    ),
    Mutation(
        "a report that is overtaken takes counts back",
        "LoadTable::Report",
        force(True, touches="TokensOf"),
        "load_counts_test",
    ),
    Mutation(
        "a follower decides",
        "Controller::CheckDecides",
        force(True, touches="self"),
        "controller_following_test",
    ),
)

STATE = (
    Mutation(
        "damaged states are used",
        "balance_control::ReadState",
        force(False, touches="checksum"),
        "state_store_test",
    ),
    Mutation(
        "an authority that starts again uses epochs again",
        "Controller::Save",
        delete_statement(touches="set_next_epoch"),
        "controller_test",
    ),
)

PLANS = (
    Mutation(
        "redundancy that is held is kept above max_copies",
        "MakePlanningQuestion",
        force(False, touches=("min_copies", "max_copies")),
        "planning_input_test",
    ),
    Mutation(
        "the wider of two bounds says how fast nodes load",
        "balance_control::LoadRate",
        choose(True),
        "planning_input_test",
    ),
)

WATCHES = (
    Mutation(
        "every tick sends the topology to all who watch it",
        "BalanceWatch::Look",
        force(False, touches=("now", "told_")),
        "balance_watch_test",
    ),
)

SUMS = (
    Mutation(
        "an expert that is summed twice is not noticed",
        "SumCheck::Compare",
        set_value("extra", "false"),
        "sum_check_test",
    ),
    Mutation(
        "shared experts that are summed twice are not noticed",
        "SumCheck::Run",
        force(False, touches=("twice", "shared_")),
        "sum_check_test",
    ),
)

MUTATIONS = BIAS + ROUTERS + STATE + PLANS + WATCHES + SUMS
