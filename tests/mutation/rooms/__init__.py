"""The mutations, by the room of the code that they make wrong."""

from rooms import (
    base,
    batch,
    checkpoint,
    decoder,
    experts,
    gate,
    matmul,
    mesh,
    node,
    plan,
    tensor,
    wire,
)

MUTATIONS = (
    base.MUTATIONS
    + gate.MUTATIONS
    + experts.MUTATIONS
    + matmul.MUTATIONS
    + tensor.MUTATIONS
    + checkpoint.MUTATIONS
    + wire.MUTATIONS
    + plan.MUTATIONS
    + mesh.MUTATIONS
    + batch.MUTATIONS
    + node.MUTATIONS
    + decoder.MUTATIONS
)
