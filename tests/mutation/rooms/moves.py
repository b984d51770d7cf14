"""Experts that move between nodes: in what order, how fast, and what becomes of it when something fails."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    keep_left,
    replace_name,
    replace_operator,
    set_value,
)

MUTATIONS = (
    Mutation(
        "old copies go before every router follows the plan",
        "PlacementMove::StepSwitching",
        force(False, touches="confirmed_"),
        "placement_move_test",
    ),
    Mutation(
        "a copy is its own backup",
        "PlacementMove::HasBackup",
        force(True, touches=("copy", "node_id"), nth=1),
        "placement_move_property_test",
    ),
    Mutation(
        "a copy that is on its way out is a backup",
        "NodeTable::Holds",
        keep_left("&&", touches="leaving"),
        "node_table_test",
    ),
    Mutation(
        "a node loads as fast as it can",
        "NodeTable::Begin",
        delete_statement(touches=("pace", "node_bytes_per_second")),
        "placement_move_test",
    ),
    Mutation(
        "the mesh loads as fast as it can",
        "NodeTable::Begin",
        delete_statement(touches=("pace_", "bytes_per_second")),
        "placement_move_test",
    ),
    Mutation(
        "nodes are asked for more than they have room for",
        "NodeTable::FreeBytes",
        force(True, touches="limit_bytes"),
        "placement_move_property_test",
    ),
    Mutation(
        "routers stay on the plan of a move that is taken back",
        "PlacementMove::Fail",
        force(False, touches="kSwitching"),
        "placement_move_failure_test",
    ),
    Mutation(
        "a move that failed leaves its new copies",
        "PlacementMove::Send",
        delete_statement(touches=("loaded_", "insert")),
        "placement_move_failure_test",
    ),
    Mutation(
        "what a move that failed let go of stays away",
        "PlacementMove::FreeSome",
        delete_statement(touches=("freed_", "emplace")),
        "placement_move_failure_test",
    ),
    Mutation(
        "an authority of the past goes on",
        "PlacementMove::OnVerdict",
        delete_statement(within="fenced_"),
        "placement_move_failure_test",
    ),
    Mutation(
        "a node that restarted is believed to work on what it was asked before",
        "NodeTable::Update",
        force(False, touches="instance_id", nth=1),
        "node_table_test",
    ),
    Mutation(
        "nodes are not brought back to the plan",
        "PlacementMove::StepIdle",
        force(True, touches="due", nth=1),
        "placement_move_failure_test",
    ),
    Mutation(
        "a confirmation of another switch counts",
        "PlacementMove::Confirm",
        replace_operator("==", "!=", touches="switch_id"),
        "placement_move_test",
    ),
    Mutation(
        "links cost nothing",
        "MakePlanningQuestion",
        set_value("link_cost", "0"),
        "planning_input_test",
    ),
    Mutation(
        "a plan in force for a layer without load keeps the planner from planning",
        "OnlyLayers",
        force(True, touches=("layer", "placed")),
        "planning_input_test",
    ),
    Mutation(
        "a move waits for a node that drains to load what it holds",
        "PlacementMove::Missing",
        replace_name("Holds", "HasCopy"),
        "placement_move_failure_test",
    ),
    Mutation(
        "shared experts take no room on a node that moves experts",
        "FleetNodes::Read",
        delete_statement(within="other_units"),
        "fleet_nodes_test",
    ),
    Mutation(
        "shared experts make the others larger when moves are paced",
        "NodeTable::Update",
        set_value("held_units", "0", touches="other_units"),
        "node_table_test",
    ),
    Mutation(
        "shared experts are as large as others to the planner",
        "HeldBy",
        choose(False, touches="shared"),
        "planning_input_test",
    ),
    Mutation(
        "a plan is made while a node is ejected",
        "AwaitedNode",
        force(False, touches="NODE_LINK_EJECTED"),
        "placement_steering_test",
    ),
    Mutation(
        "a plan is made while a node loads after a restart",
        "AwaitedNode",
        force(False, touches="NODE_STATE_LOADING"),
        "placement_steering_test",
    ),
    Mutation(
        "a node that drains gets copies",
        "MakeNode",
        delete_statement(within="accepts_copies"),
        "planning_input_test",
    ),
    Mutation(
        "automatic plans empty a node that drains",
        "PlacementSteering::Tick",
        replace_name("kKeepCopies", "kLeaveOut"),
        "placement_steering_test",
    ),
    Mutation(
        "a node that drains keeps copies that an operator had routers leave",
        "KeepPlanned",
        force(True, touches=("present", "nullptr")),
        "planning_input_test",
    ),
)
