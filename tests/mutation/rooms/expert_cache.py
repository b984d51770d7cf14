"""Experts beyond the memory for them: what is kept, and what waits."""

from mutation import Mutation
from operators import delete_statement, force, replace_operator

MUTATIONS = (
    Mutation(
        "cache: what is worth most goes first",
        "ExpertCache::MakeRoom",
        replace_operator(">", "<", touches="first"),
        "expert_cache_test",
    ),
    Mutation(
        "cache: experts in use may go",
        "ExpertCache::MakeRoom",
        replace_operator("!=", "==", touches="layer", nth=1),
        "expert_cache_test",
    ),
    Mutation(
        "cache: what went still counts",
        "ExpertCache::Remove",
        delete_statement(touches="bytes_"),
        "expert_cache_test",
    ),
    Mutation(
        "memory: what is set aside does not count",
        "WeightMemory::TryReserve",
        delete_statement(touches=("used_", "bytes"), within="used_"),
        "weight_memory_test",
    ),
    Mutation(
        "memory: there is always room",
        "WeightMemory::TryReserve",
        force(False, touches="Fits"),
        "weight_memory_test",
    ),
    Mutation(
        "resident: what was missing is not kept",
        "ResidentExperts::FindMissing",
        delete_statement(within="Add"),
        "node_memory_test",
    ),
    Mutation(
        "resident: a deadline that has passed is not looked at",
        "ResidentExperts::Serve",
        force(False, touches="deadline"),
        "node_memory_test",
    ),
    Mutation(
        "resident: other bytes than at the start are used",
        "ResidentExperts::Pack",
        force(False, touches="digest"),
        "node_memory_test",
    ),
    Mutation(
        "resident: a batch keeps none of its experts",
        "Executor::OnExperts",
        delete_statement(touches="lease", within="lease"),
        "node_memory_test",
    ),
    Mutation(
        "resident: an unloaded expert stays known",
        "ResidentExperts::Forget",
        force(True, touches="hosted"),
        "node_memory_test",
    ),
    Mutation(
        "resident: a layer that does not fit is taken",
        "HostedExperts::CheckLayersFit",
        force(False, touches="limit_bytes"),
        "node_memory_test",
    ),
    Mutation(
        "queue: what is parked does not count",
        "BatchQueue::Park",
        delete_statement(within="Count"),
        "batch_queue_test",
    ),
)
