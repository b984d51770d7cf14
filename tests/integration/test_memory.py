"""Nodes that host more experts than they have memory for."""

import pytest

from arrays import assert_same_bits
from checkpoint import make_checkpoint
from mesh import Mesh, ProcessError, cli, hidden_states

SIZES = dict(d_model=256, experts=16, top_k=4, intermediate=160)
EXPERT_BYTES = 3 * 256 * 160 * 4
POLICIES = ["lru", "frequency", "predictive"]


def cache(node, name):
    return node.metric(f"expertmesh_expert_cache_{name}")


@pytest.fixture(name="checkpoint", scope="module")
def fixture_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    return make_checkpoint(folder / "model", "qwen3_moe", layers=4, **SIZES)


@pytest.fixture(name="everything", scope="module")
def fixture_everything(checkpoint, tmp_path_factory):
    """A mesh whose node has memory for all."""
    with Mesh(tmp_path_factory.mktemp("everything")) as mesh:
        yield mesh.start(checkpoint.path, [[]])


@pytest.mark.parametrize("policy", POLICIES)
def test_answers_are_those_of_a_node_that_has_everything(mesh, checkpoint, everything, policy):
    limit = 18 * EXPERT_BYTES
    mesh.start(checkpoint.path, [["--memory", limit, "--memory-policy", policy]])
    (node,) = mesh.nodes
    cli("verify", "--router", mesh.router.address, "--model", checkpoint.path)
    for step in range(20):
        for layer in checkpoint.moe_layers:
            x = hidden_states(1 + step % 3, checkpoint.d_model, seed=step)
            answer, expected = (m.client.forward(layer, x).output for m in (mesh, everything))
            assert_same_bits(answer, expected)
        assert cache(node, "resident_bytes") <= limit
    assert cache(node, "limit_bytes") == limit
    assert cache(node, "hits_total") > 0
    assert cache(node, "misses_total") > 0
    assert cache(node, "loaded_bytes_total") % EXPERT_BYTES == 0
    assert cache(node, "stall_seconds_count") > 0


def test_a_layer_must_fit(mesh, checkpoint):
    with pytest.raises(ProcessError, match="layer 0 takes .* --memory .* is 7372800;"):
        mesh.start_node(checkpoint.path, "--memory", 15 * EXPERT_BYTES)


def test_there_are_three_policies(mesh, checkpoint):
    with pytest.raises(ProcessError, match="lru, frequency, predictive"):
        mesh.start_node(
            checkpoint.path, "--memory", 16 * EXPERT_BYTES, "--memory-policy", "clock"
        )
