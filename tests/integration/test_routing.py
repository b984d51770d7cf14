"""--routing on the real programs: every router of router_service/README.md, and what a caller sees of it."""

import pathlib
import re
import subprocess

import expertmesh
import numpy as np
import pytest

import reference
from arrays import assert_rows_close, assert_same, assert_same_bits
from checkpoint import make_checkpoint, read_safetensors, write_safetensors
from expertmesh import ForwardOptions
from mesh import HOST, PATIENCE, Mesh, hidden_states, program, shards

README = pathlib.Path(__file__).parents[2] / "router_service/README.md"


def readme_routers():
    section = README.read_text().split("\n## Routers\n")[1].split("\n## ")[0]
    return re.findall(r"^\| ([^|]*) \| `(\{.*\})` \|$", section, re.MULTILINE)


def run(*argv, code=0):
    done = subprocess.run(
        [*map(str, argv)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == code, f"{argv} ended with {done.returncode}:\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Enough experts for every router of the page."""
    return make_checkpoint(tmp_path_factory.mktemp("wide") / "model", experts=16, layers=1)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, wide):
    """Two nodes; tests bring their routers."""
    with Mesh(tmp_path_factory.mktemp("nodes")) as mesh:
        mesh.start_nodes(wide.path, shards(2))
        yield mesh


@pytest.fixture
def routed(tmp_path, nodes, wide):
    """routed(JSON): a ready mesh whose router has these options."""
    meshes = []

    def start(routing):
        mesh = Mesh(tmp_path)
        meshes.append(mesh)
        addresses = [node.address for node in nodes.nodes]
        mesh.start_router(wide.path, "--routing", routing, nodes=addresses)
        mesh.wait_ready()
        return mesh

    yield start
    for mesh in meshes:
        mesh.__exit__(None, None, None)


def by_token(result, tokens):
    """Ids and weights [tokens, most experts of a token]; what a token lacks weighs 0."""
    counts = result.assignments_per_token
    if counts is None:
        return result.expert_ids, result.expert_weights
    ids = np.zeros((tokens, max(1, counts.max())), np.uint32)
    weights = np.zeros(ids.shape, np.float32)
    used = np.arange(ids.shape[1]) < counts[:, None]
    ids[used], weights[used] = result.expert_ids, result.expert_weights
    return ids, weights


def test_the_page_has_routers():
    assert len(readme_routers()) >= 12


@pytest.mark.parametrize("name,routing", readme_routers())
def test_every_router_of_the_page_serves(routed, wide, name, routing):
    mesh = routed(routing)
    layer = wide.moe_layers[0]
    x = hidden_states(24, wide.d_model)
    options = {"token_ids": np.arange(24), "routing_seed": 3, "return_routing": True}
    first = mesh.client.forward(layer, x, ForwardOptions(**options))
    again = mesh.client.forward(layer, x, ForwardOptions(**options))
    assert_same_bits(first.output, again.output)
    assert_same(first.expert_ids, again.expert_ids)
    ids, weights = by_token(first, len(x))
    expected = reference.combine(wide, layer, x, ids, weights)
    if "pass_through" in routing:
        expected = expected + (1 - weights.sum(axis=1, keepdims=True)) * x
    assert_rows_close(first.output, expected, 1e-5)


def test_dropped_assignments_are_told_and_counted(routed, wide, tmp_path):
    mesh = routed('{"top_k": 1, "capacity_tokens": 1}')
    layer = wide.moe_layers[0]
    x = np.repeat(hidden_states(1, wide.d_model), 6, axis=0)  # All want one expert.
    result = mesh.client.forward(layer, x, ForwardOptions(group_sizes=[2, 4], return_routing=True))
    assert_same(result.assignments_per_token, [1, 0, 1, 0, 0, 0])
    expert = result.expert_ids[0]
    assert_same(result.dropped, [[t, expert] for t in (1, 3, 4, 5)])
    assert np.any(result.output[0]) and not np.any(result.output[1])
    assert mesh.router.metric("expertmesh_router_dropped_assignments_total") == 4

    write_safetensors(tmp_path / "x.safetensors", {"hidden_states": x})
    command = [program("cli"), "forward", "--router", mesh.router.address, "--layer", layer]
    files = ["--input", tmp_path / "x.safetensors", "--output", tmp_path / "y.safetensors"]
    said = run(*command, *files, "--routing").stdout
    assert "5 assignments dropped" in said
    written = read_safetensors(tmp_path / "y.safetensors")
    assert_same(written["assignments_per_token"], [1, 0, 0, 0, 0, 0])
    assert written["expert_ids"].shape == written["expert_weights"].shape == (1,)
    with pytest.raises(expertmesh.InvalidArgument, match="group_sizes add up to 5"):
        mesh.client.forward(layer, x, ForwardOptions(group_sizes=[2, 3]))


@pytest.mark.parametrize(
    "routing,words",
    [
        ("top-1", "must be one JSON object"),
        ('{"topk": 1}', "unknown routing option topk"),
        ('{"num_experts": 4}', "belongs to the checkpoint's weights"),
        ('{"choice": "hash"}', "top_k is 3 with choice = hash; it must be 1"),
        ('{"noise": "learned_normal"}', "noise weight is missing"),
    ],
)
def test_routing_that_cannot_work_refuses_the_start(wide, routing, words):
    router = [program("router"), "--model", wide.path, "--nodes", f"{HOST}:1"]
    said = run(*router, "--listen", f"{HOST}:0", "--routing", routing, code=1).stderr
    assert "layer 0" in said and words in said, said
