"""Placement plans: how copies are placed, loads levelled, budgets and promises kept."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    replace_constant,
    replace_operator,
    replace_statement,
    set_value,
)

PROPERTIES = "placement_planner_property_test"

LEVELLING = (
    Mutation(
        "rows go only to nodes that share an expert",
        "LoadLevelling::Search",
        delete_statement(touches=("push_back", "next")),
        "load_levelling_test",
    ),
    Mutation(
        "rows that cannot leave their nodes do not raise the level",
        "LoadLevelling::LevelOut",
        force(True, touches=("rows", "rate", "kRounding")),
        "load_levelling_test",
    ),
    Mutation(
        "a copy gives rows that it does not have",
        "LoadLevelling::PushTo",
        delete_statement(touches=("min", "from", "copy")),
        "load_levelling_test",
    ),
)

PLACING = (
    Mutation(
        "an expert is twice on a node",
        "LayerCopies::MayGet",
        replace_operator("&&", "||"),
        PROPERTIES,
    ),
    Mutation(
        "a copy goes that its expert must have",
        "LayerCopies::MayGo",
        replace_operator(">", ">=", touches="min_copies"),
        PROPERTIES,
    ),
    Mutation(
        "a copy goes that its expert needs for another zone",
        "LayerCopies::MayGo",
        force(True, touches="ZonesOf"),
        PROPERTIES,
    ),
    Mutation(
        "copies that must be there may share a zone",
        "CopyPlacing::FitsSpread",
        force(True, touches="ZonesOf"),
        PROPERTIES,
    ),
    Mutation(
        "no copies move to make room",
        "CopyPlacing::PlaceExpert",
        replace_statement("node = LayerCopies::kNone;", touches="MakeRoom"),
        PROPERTIES,
    ),
    Mutation(
        "what has no slot any more stays",
        "CopyPlacing::Place",
        delete_statement(touches="DropWhatHasNoSlot"),
        PROPERTIES,
    ),
    Mutation(
        "no slots are kept for levelling",
        "CopyPlacing::LimitNodes",
        set_value("kept", "0"),
        "placement_planner_test",
    ),
    Mutation(
        "experts as large as several nodes are not split at first",
        "CopyPlacing::Pieces",
        force(True, touches="mean_rate_"),
        PROPERTIES,
    ),
)

BOUNDS = (
    Mutation(
        "the bound counts an expert's copies on all nodes",
        "FullestNodeBound::Of",
        set_value("most_copies", "1"),
        PROPERTIES,
    ),
    Mutation(
        "the bound counts as many copies as there are slots, and one",
        "CopiesFor",
        replace_constant("1e-12", "-0.5"),
        PROPERTIES,
    ),
    Mutation(
        "the bound has nodes with few slots do no rows",
        "FullestNodeBound::ByRows",
        delete_statement(touches=("rows", "most_rows")),
        PROPERTIES,
    ),
)

PLANS = (
    Mutation(
        "a copy goes whose rows others have no room for",
        "LayerCopies::RoomOfOthers",
        replace_operator("==", "!=", touches=("at", "copy")),
        PROPERTIES,
    ),
    Mutation(
        "any gain is worth a change",
        "PlanningRun::IsWorthwhile",
        replace_constant("1", "2", touches="hysteresis"),
        "placement_planner_test",
    ),
    Mutation(
        "a budget is not kept",
        "LayerPlanner::MayLoad",
        replace_operator("+", "-"),
        PROPERTIES,
    ),
    Mutation(
        "what is held is loaded again",
        "LayerPlanner::CostOf",
        choose(False),
        PROPERTIES,
    ),
    Mutation(
        "needless copies are loaded",
        "LayerPlanner::ImproveInRounds",
        delete_statement(touches="DropNeedless"),
        PROPERTIES,
    ),
    Mutation(
        "a node gets a copy after another went there",
        "LayerPlanner::Improve",
        force(False, touches="GiveCopy"),
        PROPERTIES,
    ),
    Mutation(
        "a layer that lost a copy is whole",
        "PlanningRun::IsWhole",
        force(False, touches="kShareRounding"),
        PROPERTIES,
    ),
    Mutation(
        "freed bytes are not counted",
        "AppendMovesOf",
        delete_statement(touches="bytes_freed"),
        PROPERTIES,
    ),
    Mutation(
        "layers that are short get no slots of others",
        "SlotTable::Fill",
        force(False, touches="HelpOut"),
        "slot_table_test",
    ),
    Mutation(
        "every node starts its turns with the first layer",
        "SlotTable::FillByBytes",
        set_value("turn_", "0"),
        "slot_table_test",
    ),
)

MUTATIONS = LEVELLING + PLACING + BOUNDS + PLANS
