"""The mutations, by the room of the code that they make wrong.

`tests/mutation/run.py build/release --only NAME --show` prints what one changes.
"""

from rooms import (
    balance,
    base,
    batch,
    checkpoint,
    client_library,
    controller,
    cuda,
    decoder,
    expert_cache,
    experts,
    gate,
    matmul,
    mesh,
    moves,
    net,
    node,
    plan,
    replay,
    telemetry,
    tensor,
    tokenizer,
    trace,
    wire,
)

MUTATIONS = (
    base.MUTATIONS
    + gate.MUTATIONS
    + experts.MUTATIONS
    + expert_cache.MUTATIONS
    + cuda.MUTATIONS
    + matmul.MUTATIONS
    + tensor.MUTATIONS
    + tokenizer.MUTATIONS
    + checkpoint.MUTATIONS
    + wire.MUTATIONS
    + balance.MUTATIONS
    + plan.MUTATIONS
    + replay.MUTATIONS
    + mesh.MUTATIONS
    + moves.MUTATIONS
    + batch.MUTATIONS
    + controller.MUTATIONS
    + net.MUTATIONS
    + node.MUTATIONS
    + client_library.MUTATIONS
    + decoder.MUTATIONS
    + telemetry.MUTATIONS
    + trace.MUTATIONS
)
