"""Machines that have only those files of a checkpoint that they need."""

import json
import os
import shutil

import grpc
import numpy as np
import pytest

from checkpoint import read_safetensors, write_safetensors
from expert_node import Node
from mesh import HOST, Mesh, ProcessError, cli, entry, hidden_states

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sharded(checkpoint, tmp_path_factory):
    """The checkpoint in four files: all but the routed experts, and the experts of three nodes."""
    folder = tmp_path_factory.mktemp("sharded")
    shutil.copy(checkpoint.path / "config.json", folder)
    files = {f"model-{i}.safetensors": {} for i in range(4)}
    for name, tensor in read_safetensors(checkpoint.weights_file).items():
        expert = name.partition(".experts.")[2].partition(".")[0]
        files[f"model-{1 + int(expert) // 4 if expert else 0}.safetensors"][name] = tensor
    for name, tensors in files.items():
        write_safetensors(folder / name, tensors)
    weight_map = {tensor: name for name, tensors in files.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture
def part(sharded, tmp_path):
    """part(1, 2): a folder with config.json, the index and these files."""

    def make(*numbers):
        folder = tmp_path / "-".join(["part", *map(str, numbers)])
        folder.mkdir()
        for name in ["config.json", INDEX, *(f"model-{i}.safetensors" for i in numbers)]:
            os.link(sharded / name, folder / name)
        return folder

    return make


def answers(mesh, checkpoint):
    x = hidden_states(40, checkpoint.d_model)
    return [mesh.client.forward(layer, x).output for layer in (0, 1)]


def assert_same(outputs, tmp_path, checkpoint, model, nodes):
    """A router of its own with this model gives the same bits from these nodes."""
    folder = tmp_path / "other"
    folder.mkdir()
    with Mesh(folder) as other:
        other.start_router(model, nodes=nodes)
        other.wait_ready()
        for one, two in zip(outputs, answers(other, checkpoint)):
            assert np.array_equal(one, two)


def start_parts(mesh, part):
    for i in range(3):
        mesh.start_node(part(i + 1), "--shard", f"{i}/3")


def test_nodes_and_router_need_only_what_they_use(mesh, part, checkpoint, tmp_path):
    start_parts(mesh, part)
    mesh.start_router(part(0))
    mesh.wait_ready()
    partial = answers(mesh, checkpoint)
    topology = mesh.client.topology()
    assert topology.fingerprint.startswith("partial:")
    assert all(node.reason == "" for node in topology.nodes)
    with Node(mesh.nodes[0]) as node:
        with pytest.raises(grpc.RpcError, match="model-2.safetensors.*tensor 'model.layers.0"):
            node.load([4], layers=[0])
        assert node.hosted() == {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}
    # Beside a router that has all.
    nodes = [node.address for node in mesh.nodes]
    assert_same(partial, tmp_path, checkpoint, checkpoint.path, nodes)


def test_a_router_without_all_files_takes_nodes_that_have_all(mesh, part, checkpoint, sharded):
    mesh.start_node(sharded)
    mesh.start_router(part(0))
    mesh.wait_ready()
    assert entry(mesh.client.topology(), mesh.nodes[0]).reason == ""
    # Whoever runs the rest of the model needs no experts either.
    inspected = json.loads(cli("checkpoint", "inspect", part(0, 1), "--json").stdout)
    assert mesh.client.describe().outline in inspected["weights"]["fingerprint"]


def test_what_is_missing_is_named(mesh, part):
    node = mesh.make_node(part(0, 1), "--shard", "1/3")
    assert "model-2.safetensors" in refusal(node)
    with pytest.raises(ProcessError, match="model-0.safetensors"):
        mesh.start_router(part(1, 2, 3), nodes=[f"{HOST}:1"])


def refusal(process):
    with pytest.raises(ProcessError) as caught:
        process.start()
    return str(caught.value)


def test_an_index_that_is_wrong_is_made_up_for_by_the_files(mesh, sharded, checkpoint, tmp_path):
    folder = tmp_path / "stale"
    shutil.copytree(sharded, folder)
    index = json.loads((folder / INDEX).read_text())
    weight_map = index["weight_map"]
    names = sorted(name for name in weight_map if ".experts." in name)
    weight_map[names[0]] = "model-0.safetensors"  # Not in that file.
    del weight_map[names[1]]  # Not listed.
    weight_map[names[2]] = "model-9.safetensors"  # No such file.
    (folder / INDEX).write_text(json.dumps(index))
    node = mesh.start_node(folder)
    mesh.start_router(folder)
    mesh.wait_ready()
    assert "warn" in node.log() and names[1] in node.log()
    stale = answers(mesh, checkpoint)
    (tmp_path / "right").mkdir()
    with Mesh(tmp_path / "right") as right:
        right.start_node(sharded)
        assert_same(stale, tmp_path, checkpoint, sharded, [right.nodes[0].address])
