"""The router's nodes: what they hold, how it speaks to them, whether it believes them."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    keep_left,
    replace_name,
    replace_operator,
    replace_statement,
    set_value,
)

LINKS = (
    Mutation(
        "hidden states have the type of partials",
        "WireEncodings::For",
        replace_name("hidden_states_", "partials_"),
        "wire_encoding_test",
    ),
    Mutation(
        "exceptions for a node's address have no effect",
        "WireEncodings::Choose",
        choose(True, touches="exception"),
        "wire_encoding_test",
    ),
    Mutation(
        "rows that came narrow are lost when a wide one comes",
        "Receive",
        replace_statement(
            "std::memset(wider->data(), 0, received_elements * sizeof(float));",
            touches=("ConvertElements", "wider"),
        ),
        "router_wire_test",
    ),
    Mutation(
        "the router does not look at checksums",
        "NodeLink::CheckChecksum",
        force(False, touches="has_checksum"),
        "router_trust_test",
        "*Flipped*",
    ),
    Mutation(
        "damaged experts are used",
        "Collect",
        force(False, touches=("binary_search", "excluded")),
        "router_trust_test",
    ),
)

NODES = (
    Mutation(
        "a node that moved is another node",
        "Fleet::RecogniseNodes",
        delete_statement(touches=("swap", "nodes_")),
        "fleet_test",
    ),
    Mutation(
        "a node that moved is no longer drained",
        "Fleet::RecogniseNodes",
        delete_statement(touches="ContinueFrom"),
        "fleet_test",
    ),
    Mutation(
        "two nodes of one name are one node",
        "Fleet::RecogniseNodes",
        force(True, touches="kDown"),
        "fleet_test",
    ),
    Mutation(
        "an address that was let go is known for ever",
        "Fleet::Reap",
        delete_statement(touches=("erase", "index_of_address_")),
        "fleet_test",
    ),
)

HEALTH = (
    Mutation(
        "a silent node is not ejected",
        "NodeHealth::WhyEject",
        force(False, touches="silent_"),
        "node_health_test",
    ),
    Mutation(
        "a node may fail as often as it likes",
        "NodeHealth::WhyEject",
        force(False, touches="failed_share_"),
        "node_health_test",
    ),
    Mutation(
        "a node may refuse everything",
        "NodeHealth::WhyEject",
        force(False, touches="refused_in_a_row_"),
        "node_health_test",
    ),
    Mutation(
        "a large batch has no more time than a small one",
        "NodeHealth::Limit",
        replace_operator("*", "/", touches="assignments"),
        "node_health_test",
    ),
    Mutation(
        "what is overdue is waited for",
        "NodeLink::TakeOverdue",
        delete_statement(touches=("elsewhere", "push_back")),
        "node_link_test",
    ),
    Mutation(
        "a pause of the router is a silence of its nodes",
        "NodeLink::TakeOverdue",
        replace_name("max", "min", touches="awake_since"),
        "node_link_test",
    ),
    Mutation(
        "a node that was ejected is never tried",
        "NodeLink::Judge",
        force(False, touches="try_again"),
        "router_health_test",
        "*SilentNodeOwes*",
    ),
    Mutation(
        "one process under two addresses is two replicas",
        "MarkTwins",
        set_value("twin", "std::string()"),
        "fleet_test",
    ),
)

TRUST = (
    Mutation(
        "of replicas that differ the newest is used",
        "WeightTrust::Choose",
        force(False, touches=("in_use", "CountOf")),
        "weight_trust_test",
    ),
    Mutation(
        "one of two is a majority",
        "WeightTrust::Choose",
        replace_operator(">", ">=", touches="size"),
        "weight_trust_test",
    ),
    Mutation(
        "the checkpoint is not believed",
        "WeightTrust::Judge",
        choose(False, touches="checkpoint"),
        "weight_trust_test",
    ),
    Mutation(
        "weights are verified as fast as the disk can",
        "WeightVerifier::Run",
        force(False, touches=("hurried", "bytes"), nth=1),
        "weight_trust_test",
        "*BoundedRate*",
    ),
    Mutation(
        "cross-checks always agree",
        "CrossChecker::Compare",
        set_value("agree", "true"),
        "router_cross_check_test",
        "*WhoComputesSomethingElse*",
    ),
    Mutation(
        "cross-checks are due at every batch",
        "CrossChecker::Begin",
        keep_left("||", touches="next"),
        "router_cross_check_test",
        "*AsOftenAsIsAsked",
    ),
)

PLANS = (
    Mutation(
        "a plan is not looked at",
        "Placement::Placement",
        force(True, touches="replicas", nth=1),
        "planned_placement_test",
    ),
    Mutation(
        "shares of copies that are not ready are lost",
        "PlannedCopies::Replicas",
        replace_operator("/", "*", touches=("share", "sum")),
        "planned_placement_test",
    ),
    Mutation(
        "a planned copy on a node that drains is used",
        "Placement::Placement",
        set_value("offered", "&everyone[layer.layer].experts[expert]"),
        "planned_placement_test",
    ),
    Mutation(
        "what a plan says is used whether or not it is offered",
        "PlannedCopies::NodeOf",
        force(True, touches=("find", "offering")),
        "planned_placement_test",
    ),
)

TIMES = (
    Mutation(
        "what computing takes is the link's",
        "NodeLink::TakeAnswered",
        set_value("there", "0"),
        "node_link_test",
    ),
    Mutation(
        "the hop of every batch is time of its assignments",
        "LinkTime::MicrosPerAssignment",
        set_value("slope", "mean_y_ / mean_x_"),
        "link_time_test",
    ),
    Mutation(
        "what may be chance is told of a link",
        "LinkTime::MicrosPerAssignment",
        set_value("error", "0"),
        "link_time_test",
    ),
)

MUTATIONS = TIMES + PLANS + LINKS + NODES + HEALTH + TRUST
