"""Nodes whose weights are not the model's: named, and never used beside right ones."""

import json
import shutil

import numpy as np
import pytest

import expertmesh
import reference
from arrays import assert_rows_close
from checkpoint import write_safetensors
from expertmesh.v1 import control_pb2
from mesh import cli, entry, hidden_states, wait_until
from test_failures import Load

LAYER, EXPERT = 1, 5
DIGESTS = ".expertmesh-digests.json"


@pytest.fixture
def noisy(checkpoint, tmp_path):
    """Path of the checkpoint with one expert's weights replaced by noise."""
    path = tmp_path / "noisy"
    shutil.copytree(checkpoint.path, path, ignore=shutil.ignore_patterns(DIGESTS))
    tensors = dict(checkpoint.tensors)
    (name,) = [
        name
        for name in tensors
        if f"layers.{LAYER}." in name and f"experts.{EXPERT}.up_proj" in name
    ]
    noise = np.random.default_rng(9).standard_normal(tensors[name].shape)
    tensors[name] = noise.astype(tensors[name].dtype)
    write_safetensors(path / "model.safetensors", tensors)
    return path


def damaged(topology, node):
    return [(told.layer, list(told.experts)) for told in entry(topology, node).damaged]


def is_named(node):
    """The node is up, and its expert is named for good."""

    def condition(topology):
        known = entry(topology, node)
        return damaged(topology, node) == [(LAYER, [EXPERT])] and (
            "not those of this router's checkpoint" in known.damaged[0].reason
        )

    return condition


def check_answers(mesh, checkpoint, count=10):
    for seed in range(count):
        x = hidden_states(40, checkpoint.d_model, seed=seed)
        for layer in checkpoint.moe_layers:
            expected, _ = reference.forward(checkpoint, layer, x)
            assert_rows_close(mesh.client.forward(layer, x).output, expected, 1e-5)


@pytest.mark.parametrize("first", ["noise", "right"])
def test_noise_is_named_and_not_used(mesh, checkpoint, noisy, first):
    order = [noisy, checkpoint.path] if first == "noise" else [checkpoint.path, noisy]
    for path in order:
        mesh.start_node(path, "--expert-metrics", "full")
    bad = mesh.nodes[order.index(noisy)]
    mesh.start_router(checkpoint.path)
    mesh.watch(is_named(bad), "the damaged expert is named")
    topology = mesh.wait_ready()
    (good,) = [node for node in mesh.nodes if node is not bad]
    assert damaged(topology, good) == []
    check_answers(mesh, checkpoint)
    # It got no tokens for this expert; it may serve the others.
    assert bad.metric("expertmesh_expert_tokens_total", expert=str(EXPERT), layer=str(LAYER)) == 0
    assert good.metric("expertmesh_expert_tokens_total", expert=str(EXPERT), layer=str(LAYER)) > 0
    count = "expertmesh_router_damaged_experts"
    assert mesh.router.metric(count, node=bad.address) == 1
    assert mesh.router.metric(count, node=good.address) == 0
    assert f"node {bad.address}: layer {LAYER} expert {EXPERT}: the weights" in mesh.router.log()
    where = ["--router", mesh.router.address]
    assert f"DAMAGED layer {LAYER}: experts {EXPERT} are not used" in cli("topology", *where).stdout
    nodes = json.loads(cli("topology", "--json", *where).stdout)["nodes"]
    (told,) = [node for node in nodes if node["address"] == bad.address]
    assert told["damaged"][0]["experts"] == [EXPERT]


def test_noise_that_joins_under_load_changes_no_answer(mesh, checkpoint, noisy):
    mesh.start_node(checkpoint.path)
    late = mesh.start_node(noisy)
    late.kill()
    mesh.start_router(checkpoint.path)
    mesh.wait_ready()
    with Load(mesh, checkpoint) as load:
        load.wait_for(50)
        late.start()
        mesh.watch(is_named(late), "the damaged expert is named")
        load.wait_for(100)
    assert load.errors == []


def test_noise_without_a_replica_is_missing(mesh, checkpoint, noisy):
    mesh.start_node(noisy)
    mesh.start_router(checkpoint.path)
    topology = mesh.watch(is_named(mesh.nodes[0]), "the damaged expert is named")
    assert not topology.ready
    assert [(m.layer, list(m.experts)) for m in topology.missing] == [(LAYER, [EXPERT])]
    x = hidden_states(100, checkpoint.d_model)
    with pytest.raises(expertmesh.Unavailable, match=f"layer {LAYER}: no ready node holds"):
        mesh.client.forward(LAYER, x)


def test_slices_are_verified_too(mesh, checkpoint, noisy):
    mesh.start_nodes(checkpoint.path, [["--slice", "0/2"], ["--slice", "1/2"]])
    bad = mesh.start_node(noisy, "--slice", "1/2")
    mesh.start_router(checkpoint.path)
    mesh.watch(is_named(bad), "the damaged slice is named")
    mesh.wait_ready()
    check_answers(mesh, checkpoint, count=5)


def test_digests_are_kept_beside_the_checkpoint(mesh, checkpoint, tmp_path):
    path = tmp_path / "kept"
    shutil.copytree(checkpoint.path, path, ignore=shutil.ignore_patterns(DIGESTS))
    mesh.start_node(path)
    mesh.start_router(path)
    kept = path / DIGESTS

    def complete():
        # The node may still be loading when the first are written.
        if not kept.exists() or kept.read_text() == "{":
            return None
        digests = json.loads(kept.read_text())["digests"]
        wanted = len(checkpoint.moe_layers) * checkpoint.moe.experts
        return digests if len(digests) == wanted else None

    found = wait_until(complete, "the digests are written")
    mesh.router.stop()
    # The router replaces a damaged file.
    kept.write_text("{")
    mesh.router.start()
    assert wait_until(complete, "they are written again") == found
    assert f"{kept}: is no cache of digests" in mesh.router.log()
    check_answers(mesh, checkpoint, count=1)


def test_healthy_replicas_agree_in_cross_checks(mesh, checkpoint):
    # One computes in float32, the other in bf16: rounding is no damage.
    mesh.start_nodes(checkpoint.path, [["--compute-dtype=f32"], ["--compute-dtype=bf16"]])
    mesh.start_router(checkpoint.path, "--cross-check-interval=10ms")
    mesh.watch(
        lambda t: all(node.link == control_pb2.NODE_LINK_UP for node in t.nodes), "both are up"
    )
    x = hidden_states(8, checkpoint.d_model)

    def checked():
        mesh.client.forward(0, x)
        return mesh.router.metric("expertmesh_router_cross_checks_total", result="agree") >= 5

    wait_until(checked, "five checks")
    assert all(node.disagreements == 0 for node in mesh.client.topology().nodes)
