"""The expert service: batches as they come in, wait and are answered."""

from mutation import Mutation
from operators import delete_statement, force, replace_argument, replace_name, set_value

MUTATIONS = (
    Mutation(
        "frames may disagree about the type of partials",
        "BatchAssembler::CheckContinues",
        force(False, touches="partials_dtype"),
        "batch_assembly_test",
    ),
    Mutation(
        "partials come as float32 whatever was asked for",
        "ReplySender::SendPartials",
        delete_statement(within="dtype"),
        "node_test",
    ),
    Mutation(
        "strict: every assignment reads its token's neighbour",
        "MergedBatch::AddRows",
        replace_name("row", "(row + 1) % batch.total_rows", touches="first_row"),
        "executor_test",
    ),
    Mutation(
        "strict: the node's limit counts tokens",
        "BatchAssembler::CheckContinues",
        replace_name("assignments", "batch.total_rows", touches="max_batch_rows", nth=1),
        "batch_assembly_test",
    ),
    Mutation(
        "queue: a deadline that has passed is not looked at",
        "BatchQueue::TakeGroup",
        force(False, touches="deadline"),
        "batch_queue_test",
    ),
    Mutation(
        "queue: near deadlines do not go first",
        "BatchQueue::Add",
        replace_name("deadline", "times.complete"),
        "batch_queue_test",
    ),
    Mutation(
        "queue: a group has no limit",
        "BatchQueue::TakeGroup",
        force(False, touches="max_group_rows"),
        "batch_queue_test",
    ),
    Mutation(
        "every batch of a group gets the rows of the first",
        "Executor::SendPartials",
        delete_statement(within="first_row"),
        "executor_test",
    ),
    Mutation(
        "f16: partials beyond it are sent all the same",
        "ConvertRows",
        force(False, evaluated=True, touches="Encode"),
        "compute_response_test",
    ),
    Mutation(
        "the node does not look at checksums",
        "CheckChecksum",
        force(True, touches=("request", "has_tensor", "ChecksumOf")),
        "batch_assembly_test",
    ),
    Mutation(
        "a node that serves loads as fast as it can",
        "HostedExperts::PackAll",
        force(False, touches="gently", nth=1),
        "hosted_experts_test",
        "*RestsBetweenExperts",
    ),
    Mutation(
        "a rest is as long as for all that was loaded before",
        "HostedExperts::PackGently",
        set_value("begin", "absl::ZeroDuration()"),
        "hosted_experts_test",
        "GentleLoadTest.*",
    ),
    Mutation(
        "a rest that is due is forgotten",
        "HostedExperts::PackGently",
        delete_statement(within="rests_until_"),
        "hosted_experts_test",
        "GentleLoadTest.A*",
    ),
    Mutation(
        "a node that serves loads at the priority of its answers",
        "HostedExperts::PackAll",
        force(False, touches="gently", nth=2),
        "hosted_experts_test",
    ),
    Mutation(
        "shared experts are packed in the width of the others",
        "ExpertPacker::Read",
        replace_argument("hostable_expert", 1, "0"),
        "hosted_experts_test",
    ),
    Mutation(
        "a slice cuts shared experts as if they were as wide as the others",
        "node::CheckSlice",
        replace_name("expert", "0", nth=1),
        "hosted_experts_test",
    ),
    Mutation(
        "all experts count as large as the shared ones",
        "Executor::IsSmall",
        set_value("shared", "batch.expert_ids.size()"),
        "executor_test",
    ),
    Mutation(
        "an authority of the past is obeyed",
        "Node::CheckTerm",
        force(True, touches="highest_term_"),
        "node_term_test",
    ),
    Mutation(
        "a node forgets the term that it has seen",
        "Node::CheckTerm",
        delete_statement(touches=("highest_term_", "max")),
        "node_term_test",
    ),
    Mutation(
        "a term that has passed while a change waited is not noticed",
        "HostedExperts::Unload",
        force(False, touches="permit"),
        "node_term_test",
    ),
    Mutation(
        "a lost device leaves the node's state as it was",
        "Node::LoseDevice",
        delete_statement(touches="NODE_STATE_FAILED", nth=1),
        "device_loss_test",
    ),
    Mutation(
        "a node that drains says no more that its device is lost",
        "Node::SetState",
        force(False, touches="device_lost_"),
        "device_loss_test",
    ),
    Mutation(
        "a node without its device is still said to hold experts",
        "Node::Describe",
        force(True, touches="device_lost_"),
        "device_loss_test",
    ),
    Mutation(
        "a node without its device takes new experts",
        "Node::LoadExperts",
        force(False, touches="device_lost_"),
        "device_loss_test",
    ),
    Mutation(
        "a device is lost again and again",
        "DeviceLoss::Lost",
        force(False, touches="why_"),
        "device_loss_test",
    ),
    Mutation(
        "a node that starts does not hear of a device that is lost already",
        "DeviceLoss::Tell",
        force(False, touches="why_"),
        "device_loss_test",
    ),
    Mutation(
        "a module of another build is used",
        "OpenModule",
        force(False, touches="build"),
        "device_test",
    ),
    Mutation(
        "a number of a GPU is not compared with those that there are",
        "OpenGpu",
        force(False, touches="device"),
        "device_test",
    ),
    Mutation(
        "auto takes the CPU whatever is wrong with the GPU",
        "OpenDevice",
        force(False, touches="IsUnavailable"),
        "device_test",
    ),
)
