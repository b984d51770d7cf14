"""A batch on its way through the router: its layers, its stages, its retries and its answer."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    keep_left,
    replace_argument,
    replace_return,
    replace_statement,
    set_value,
)

LAYERS = (
    Mutation(
        "gates round to what the checkpoint is stored as",
        "batch::LoadLayer",
        replace_argument("Create", 3, "checkpoint.model().dtype", touches="Gate"),
        "router_routing_test",
    ),
    Mutation(
        "shared gates round to what the checkpoint is stored as",
        "SharedExperts::Load",
        replace_argument("Create", 3, "checkpoint.model().dtype", touches="SharedGate"),
        "router_routing_test",
    ),
    Mutation(
        "shared gate ignored",
        "SharedExperts::Weights",
        force(False, touches="gate_"),
        "router_routing_test",
    ),
    Mutation(
        "nothing passes by",
        "CombineStage::Sum",
        force(False, touches="kComplement"),
        "router_routing_test",
    ),
)

QUEUE = (
    Mutation(
        "requests whose caller went away are computed",
        "LayerBatcher::Close",
        set_value("cancelled", "false"),
        "router_test",
    ),
)

DISPATCH = (
    Mutation(
        "the wrong rows are converted on their way to a node",
        "Convert",
        replace_argument("EncodeRows", 3, "plan.rows.size()"),
        "router_wire_test",
    ),
    Mutation(
        "strict: answers of more rows than the node takes",
        "AssignmentPartials::Cut",
        replace_argument("CutToAssignments", 2, "0"),
        "router_strict_test",
    ),
    Mutation(
        "f16: hidden states beyond it are sent all the same",
        "SendAsItFits",
        force(False, touches="CanOverflow"),
        "router_wire_test",
    ),
    Mutation(
        "f16: a batch with a row beyond it is wide as a whole",
        "SendAsItFits",
        set_value(
            "beyond",
            "RowsBeyond(order.batch, plan, narrow).empty() ? std::vector<uint32_t>() : plan.rows",
        ),
        "router_wire_test",
    ),
)

RETRY = (
    Mutation(
        "rows that are planned again are booked to the first layer",
        "PlanStage::PlanAgain",
        replace_return(
            "Plan(batch, view, replicas,"
            " {lost.rows, lost.row_begin, lost.expert_ids, lost.expert_weights})"
        ),
        "plan_stage_test",
    ),
    Mutation(
        "a node that lost a batch is asked again",
        "LeaveOutNodesThatFailed",
        delete_statement(touches="lost_by"),
        "router_test",
    ),
    Mutation(
        "a lost part is retried without end",
        "AsksAgain",
        force(False, touches="last_attempt"),
        "router_test",
    ),
    Mutation(
        "NaN of a node is passed on",
        "DoubtsAnswer",
        force(True, touches="nonfinite_rows"),
        "router_trust_test",
    ),
    Mutation(
        "NaN of a row that came so is the node's fault",
        "DoubtfulRows",
        keep_left("&&", touches="HasNonFinite"),
        "router_trust_test",
    ),
    Mutation(
        "a node is blamed for what its replicas say, too",
        "IsFinite",
        force(False, touches=("contributes", "doubtful")),
        "router_trust_test",
    ),
)

COMBINE = (
    Mutation(
        "strict: every assignment is taken for slice 0",
        "AssignmentSum::FindSlots",
        set_value("slice", "0"),
        "partials_layout_test",
    ),
    Mutation(
        "a range of rows is summed from the first row that a node has",
        "RowSum::Sum",
        replace_argument("lower_bound", 3, "size_t{0}"),
        "partials_layout_test",
    ),
    Mutation(
        "partials are read as if all links had the first one's type",
        "RowSum::Sum",
        replace_argument(
            "AddElements", 1, "contributions_.front().partials.dtype", touches="contribution"
        ),
        "partials_layout_test",
    ),
    Mutation(
        "strict: shared experts come first",
        "AssignmentSum::Sum",
        replace_statement(
            "std::copy_n(shared == nullptr ? sum : shared + token * d_model_, d_model_, sum);",
            touches="fill_n",
        ),
        "partials_layout_test",
    ),
    Mutation(
        "the answer's epoch is another view's",
        "AnswerStage::WriteResponse",
        replace_argument("set_epoch", 1, "batch.view->epoch() + 1"),
        "router_test",
    ),
    Mutation(
        "an output beyond its type is infinite",
        "AnswerStage::Output",
        delete_statement(touches="ToStatus"),
        "router_wire_test",
    ),
)

SHARED = (
    Mutation(
        "shared experts: what the only holder lost is an error",
        "SharedStage::TakeLost",
        set_value("shared", "false"),
        "router_shared_test",
    ),
    Mutation(
        "shared experts: a node that refused them is asked again",
        "FreshReplicas",
        force(False, touches="refused_by"),
        "router_shared_test",
    ),
    Mutation(
        "shared experts: after the last attempt there is no router",
        "AsksAgain",
        force(True, touches="last_attempt", nth=2),
        "router_shared_test",
    ),
    Mutation(
        "shared experts, strict: the router does not round as links do",
        "SharedStage::ComputeRows",
        delete_statement(touches="SendAndReceive"),
        "router_shared_test",
    ),
    Mutation(
        "shared experts, strict: the router computes from rows that nodes never see",
        "SharedStage::Receive",
        delete_statement(touches="SendAndReceive"),
        "router_shared_test",
    ),
    Mutation(
        "shared experts, strict: those of nodes are left out",
        "AssignmentSum::Sum",
        force(False, touches="of_shared_"),
        "partials_layout_test",
    ),
    Mutation(
        "shared experts: no holder makes the mesh not ready",
        "Placement::Placement",
        set_value("shared", "false"),
        "placement_test",
    ),
)

MUTATIONS = SHARED + LAYERS + QUEUE + DISPATCH + RETRY + COMBINE
