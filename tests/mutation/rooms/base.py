"""What everything else is built from; it lies in headers."""

from mutation import Mutation
from operators import delete_statement, replace_operator

MUTATIONS = (
    Mutation(
        "queue: growing turns the order",
        "RingQueue::Grow",
        delete_statement(within="first_"),
        "ring_queue_test",
    ),
    Mutation(
        "pool: one object less is kept than may be",
        "SharedPool::Core::TakeSurplus",
        replace_operator("<=", "<", touches=("size", "objects")),
        "shared_pool_test",
    ),
)
