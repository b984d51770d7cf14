"""Placement plans: how copies are placed, loads levelled, budgets and promises kept."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    keep_left,
    keep_right,
    replace_constant,
    replace_operator,
    replace_statement,
    set_value,
)

PROPERTIES = "placement_planner_property_test"
HELD = "placement_planner_held_test"

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

HELD_COPIES = (
    Mutation(
        "copies in one zone stay beside those in zones that were missing",
        "CopyPlacing::DropAbove",
        keep_left("+", touches=("count_of_expert", "MissingZones")),
        HELD,
    ),
    Mutation(
        "slots are short, and copies that take none go first",
        "CopyPlacing::DropAbove",
        set_value("takes_none", "false"),
        HELD,
    ),
    Mutation(
        "room is not looked for a second time with fewer copies",
        "LayerPlanner::PlaceRequired",
        force(True, touches="PlaceTightly"),
        HELD,
    ),
    Mutation(
        "zones that accept no copies are required",
        "PlanningRun::NumberZones",
        force(True, touches="accepts_copies"),
        HELD,
    ),
    Mutation(
        "copies on nodes that accept none need slots",
        "PlanningRun::NeedsSlots",
        delete_statement(touches=("needs", "in_zones")),
        HELD,
    ),
    Mutation(
        "hysteresis 1 keeps experts without copies",
        "PlanningRun::IsWorthwhile",
        keep_right("||"),
        "placement_planner_test",
    ),
)

SLOTS = (
    Mutation(
        "slots that are not enough are lost",
        "SlotTable::HelpOut",
        delete_statement(touches=("AddSlot", "taken")),
        "slot_table_test",
    ),
    Mutation(
        "slots that are taken needlessly are lost",
        "SlotTable::HelpOut",
        force(False, touches=("expert_bytes", "free_")),
        "slot_table_test",
    ),
    Mutation(
        "a helper goes short in a zone",
        "SlotTable::MayGive",
        set_value("is_short", "false"),
        "slot_table_test",
    ),
    Mutation(
        "slots in any zone will do",
        "SlotTable::Short",
        set_value("usable", "slots", touches="needs"),
        HELD,
    ),
)

BUDGETS = (
    Mutation(
        "copies bring single nodes to the mean, not all to a step's level",
        "LayerPlanner::StepTo",
        replace_statement("goal_ = bound_;", touches=("goal_", "pow")),
        "layer_planner_test",
    ),
    Mutation(
        "a step goes on from the one before",
        "LayerPlanner::StepTo",
        delete_statement(touches=("copies_", "CopyFrom", "first_")),
        "layer_planner_test",
    ),
    Mutation(
        "what one layer used is left for the next",
        "PlanningRun::PlanWithin",
        delete_statement(touches=("left", "bytes_loaded", "choice")),
        HELD,
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

MUTATIONS = LEVELLING + PLACING + HELD_COPIES + SLOTS + BUDGETS + BOUNDS + PLANS
