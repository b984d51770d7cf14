"""Shared experts that nodes compute: as right as the router's own, never in the way of an answer."""

import pytest

import reference
from arrays import assert_rows_close, assert_same_bits
from checkpoint import make_checkpoint
from expert_node import Node
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2
from mesh import Mesh, ProcessError, hidden_states
from test_failures import Load, link_is

# Plain ones, of one expert's width and of another, in their own tensors and fused; with a gate; and
# beside experts whose weights are applied to their input.
FAMILIES = ["deepseek_v3", "deepseek_v2", "qwen2_moe", "granitemoeshared", "llama4_text"]
SIZES = dict(d_model=256, experts=16, top_k=4, intermediate=160)
ROWS = "expertmesh_router_shared_expert_rows_total"
HOLDS = "--shared-experts"


def nodes_of(*holds):
    """Flags of nodes that share all experts, of which some hold the shared ones, too."""
    return [
        ["--shard", f"{i}/{len(holds)}", *([HOLDS] if held else [])] for i, held in enumerate(holds)
    ]


def rows_of(mesh, where):
    return mesh.router.metric(ROWS, where=where)


def check(mesh, checkpoint, tolerance, sizes=(1, 7, 100)):
    for layer in checkpoint.moe_layers:
        for tokens in sizes:
            x = hidden_states(tokens, checkpoint.d_model, seed=tokens).astype(checkpoint.dtype)
            result = mesh.client.forward(
                layer, x, ForwardOptions(return_routing=True, output_dtype="float32")
            )
            ids, weights = (
                array.reshape(tokens, -1) for array in (result.expert_ids, result.expert_weights)
            )
            expected = reference.combine(checkpoint, layer, x, ids, weights)
            assert_rows_close(result.output, expected, tolerance, f"layer {layer}, {tokens}")


@pytest.mark.parametrize("where", ["router", "nodes", "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32(mesh, tmp_path, family, where):
    checkpoint = make_checkpoint(tmp_path / "model", family, **SIZES)
    mesh.start(checkpoint.path, nodes_of(True, False, True), f"--shared-experts={where}")
    check(mesh, checkpoint.computed_by(mesh), 1e-5)
    tokens = 108 * len(checkpoint.moe_layers)
    assert rows_of(mesh, "router") + rows_of(mesh, "nodes") == tokens
    if where != "auto":
        assert rows_of(mesh, where) == tokens


def test_bfloat16(mesh, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "model", "qwen2_moe", dtype="BF16", **SIZES)
    mesh.start(checkpoint.path, nodes_of(True, True), "--shared-experts=nodes")
    check(mesh, checkpoint.computed_by(mesh), 1e-2)


def test_no_node_holds_them(mesh, checkpoints):
    checkpoint = checkpoints("granitemoeshared")
    mesh.start(checkpoint.path, nodes_of(False, False), "--shared-experts=nodes")
    check(mesh, checkpoint, 1e-5)
    assert rows_of(mesh, "nodes") == 0


def test_nodes_with_slices_hold_them_whole(mesh, checkpoints):
    checkpoint = checkpoints("qwen2_moe")
    mesh.start(
        checkpoint.path,
        [["--slice", "0/2", HOLDS], ["--slice", "1/2"]],
        "--shared-experts=nodes",
    )
    check(mesh, checkpoint, 1e-5)
    assert rows_of(mesh, "router") == 0


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_strict_bits_depend_on_no_holder(tmp_path, checkpoints, dtype):
    checkpoint = checkpoints("qwen2_moe", dtype=dtype)
    inputs = [
        hidden_states(tokens, checkpoint.d_model, seed=tokens).astype(checkpoint.dtype)
        for tokens in (1, 3, 64)
    ]
    inputs.append(inputs[-1][17:18])
    layer = checkpoint.moe_layers[0]
    first = None
    for number, (where, holds) in enumerate(
        [("nodes", [True]), ("nodes", [False, True]), ("auto", [True, True]), ("nodes", [False])]
    ):
        (tmp_path / str(number)).mkdir()
        with Mesh(tmp_path / str(number)) as mesh:
            mesh.start(checkpoint.path, nodes_of(*holds), "--strict", f"--shared-experts={where}")
            found = [
                mesh.client.forward(layer, x, ForwardOptions(output_dtype="float32")).output
                for x in inputs
            ]
        first = first or found
        for a, b in zip(found, first, strict=True):
            assert_same_bits(a, b, f"{where}, {holds}")
        assert_same_bits(found[3], found[2][17:18], "alone")


def test_kill_of_the_only_holder_under_load_fails_no_request(mesh, checkpoints):
    checkpoint = checkpoints("granitemoeshared")
    replicas = ["--replicas", "2"]
    mesh.start(
        checkpoint.path,
        [["--shard", f"{i}/3", *replicas, *([HOLDS] if i == 1 else [])] for i in range(3)],
        "--shared-experts=nodes",
    )
    holder = mesh.nodes[1]
    with Load(mesh, checkpoint) as load:
        load.wait_for(100)
        assert rows_of(mesh, "nodes") > 0
        holder.kill()
        mesh.watch(link_is(holder, control_pb2.NODE_LINK_DOWN), "the node is missed")
        load.wait_for(100)
        assert rows_of(mesh, "router") > 0
        holder.start()
        mesh.watch(link_is(holder, control_pb2.NODE_LINK_UP), "the node is back")
        given = rows_of(mesh, "nodes")
        load.wait_for(100)
        assert rows_of(mesh, "nodes") > given
    assert load.errors == []


def test_they_are_loaded_and_unloaded_under_load(mesh, checkpoints):
    checkpoint = checkpoints("granitemoeshared")
    mesh.start(checkpoint.path, nodes_of(False, True), "--shared-experts=nodes")
    # One past the routed ones.
    shared = [mesh.client.describe().layers[0].num_experts]
    with Load(mesh, checkpoint) as load, Node(mesh.nodes[0]) as a, Node(mesh.nodes[1]) as b:
        for to, away in [(a, b), (b, a)] * 3:
            load.wait_for(30)
            assert to.load(shared, checkpoint.moe_layers).loaded == len(checkpoint.moe_layers)
            load.wait_for(30)
            assert away.unload(shared, checkpoint.moe_layers).unloaded == len(checkpoint.moe_layers)
        load.wait_for(30)
        assert b.unload(shared, checkpoint.moe_layers).unloaded == len(checkpoint.moe_layers)
        load.wait_for(30)
    assert load.errors == []


def test_memory_counts_them(mesh, checkpoints):
    checkpoint = checkpoints("granitemoeshared")
    mesh.start_nodes(checkpoint.path, [["--experts", "0"], ["--experts", "0", HOLDS]])
    held = []
    for node in mesh.nodes:
        with Node(node) as described:
            held.append(described.describe().memory)
    shared = checkpoint.moe.shared_width * checkpoint.d_model * 3 * 4 * len(checkpoint.moe_layers)
    assert held[1].checkpoint_bytes - held[0].checkpoint_bytes == shared
    assert held[1].weights_bytes > held[0].weights_bytes


def test_a_model_without_them_has_none_to_hold(mesh, checkpoint):
    node = mesh.make_node(checkpoint.path, HOLDS)
    with pytest.raises(ProcessError):
        node.start()
    assert "--shared-experts=true: none of the selected layers has shared experts" in node.log()
