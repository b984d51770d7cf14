"""Which node serves what, and how plans are cut."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    keep_left,
    off_by_one,
    replace_argument,
    replace_call,
    replace_constant,
    replace_name,
    replace_operator,
    unwrap,
)

MUTATIONS = (
    Mutation(
        "planning: any node in use will do for a replica",
        "ReplicaChoice::NewRows",
        delete_statement(touches="popcount"),
        "replica_choice_test",
    ),
    Mutation(
        "planning: a replica joins where most rows are new",
        "ReplicaChoice::JoinChosen",
        replace_operator("<", ">", touches="cost"),
        "replica_choice_test",
    ),
    Mutation(
        "planning: the node that covers least is chosen",
        "ReplicaChoice::MostCovering",
        replace_operator(">", "<", touches=("a", "b", "coverable")),
        "planner_test",
    ),
    Mutation(
        "planning: work in flight is ignored",
        "ReplicaChoice::MostCovering",
        choose(False, touches="Work"),
        "planner_test",
    ),
    Mutation(
        "planning: hits of one batch stay for the next",
        "ReplicaChoice::CollectDemands",
        unwrap("exchange", touches="hits_"),
        "planner_test",
    ),
    Mutation(
        "planning: pieces of a cut plan count from the first row",
        "CopyRows",
        keep_left("-", touches="row_begin"),
        "node_plan_test",
    ),
    Mutation(
        "planning: node plans do not come back",
        "NodePlanPool::Keep",
        replace_call("push_back", "NodePlan"),
        "planner_allocation_test",
    ),
    Mutation(
        "planning: a uniform choice is the first replica",
        "UniformTransfers",
        replace_argument("Draw", 1, "1"),
        "planner_test",
    ),
    Mutation(
        "shared experts: work in flight is ignored",
        "SharedPlacement::CollectHolders",
        keep_left("+", touches=("planned", "work")),
        "shared_placement_test",
    ),
    Mutation(
        "shared experts: rows travel although they need not",
        "SharedPlacement::KeepTogether",
        force(False, touches="limit"),
        "shared_placement_test",
    ),
    Mutation(
        "shared experts: rows stay on a node however full it is",
        "SharedPlacement::KeepTogether",
        force(True, touches="limit"),
        "shared_placement_test",
    ),
    Mutation(
        "shared experts: the level is that of the emptiest holder alone",
        "SharedPlacement::Level",
        force(True, touches=("level", "holders_")),
        "shared_placement_test",
    ),
    Mutation(
        "shared experts: a row that the node has is sent twice",
        "SharedPlacement::AddRows",
        replace_operator("<=", "<", touches=("rows", "added")),
        "shared_placement_test",
    ),
    Mutation(
        "strict: the second piece of a row is lost",
        "CutToAssignments",
        off_by_one("at", within="row"),
        "node_plan_test",
    ),
    Mutation(
        "shares: what was served is not taken from what is owed",
        "ReplicaChoice::ServeByShares",
        delete_statement(touches=("owed", "at")),
        "share_accounts_test",
    ),
    Mutation(
        "shares: what a part takes stays owed",
        "ReplicaChoice::Divide",
        delete_statement(touches=("owed", "part", "i", "static_cast")),
        "share_accounts_test",
    ),
    Mutation(
        "shares: no share is too small for a part",
        "kLeastPart",
        replace_constant("16", "0"),
        "share_accounts_test",
    ),
    Mutation(
        "shares: any replica in use will do",
        "ReplicaChoice::MostOwed",
        replace_operator("-", "-1e9f *", touches="kSlack"),
        "share_accounts_test",
    ),
    Mutation(
        "shares: a part begins where the one before began",
        "ReplicaChoice::ServePartBy",
        replace_operator("<", "<=", touches=("at", "before", "part")),
        "share_accounts_test",
    ),
    Mutation(
        "shares: a part is one assignment longer",
        "ReplicaChoice::ServingNext",
        delete_statement(touches=("part", "assignments")),
        "share_accounts_test",
    ),
    Mutation(
        "shares: accounts of a layer are those of another",
        "ShareAccounts::Of",
        replace_name("layer", "0", nth=3),
        "share_accounts_test",
    ),
)
