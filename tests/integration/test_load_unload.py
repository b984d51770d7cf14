"""Experts that are loaded and unloaded while the mesh serves."""

import os
import shutil

import grpc
import pytest

import expertmesh
import reference
from arrays import assert_rows_close
from expert_node import Node
from mesh import entry, hidden_states, shards
from test_errors import check, unary_status
from test_failures import Load


def code_of(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def test_experts_move_from_node_to_node_under_load(mesh, checkpoint):
    mesh.start(checkpoint.path, [["--experts", "0-5"], ["--experts", "6-11"]])
    moved = [6, 7, 8]
    with Load(mesh, checkpoint) as load, Node(mesh.nodes[0]) as to, Node(mesh.nodes[1]) as away:
        load.wait_for(50)
        weights_before = to.describe().memory.weights_bytes
        answer = to.load(moved)
        assert answer.loaded == 6
        assert answer.memory.weights_bytes > weights_before
        assert to.hosted() == {0: [0, 1, 2, 3, 4, 5, 6, 7, 8], 1: [0, 1, 2, 3, 4, 5, 6, 7, 8]}
        mesh.watch(
            lambda t: all(
                6 in hosted.experts for hosted in entry(t, mesh.nodes[0]).description.hosted
            ),
            "the router sees the replicas",
        )
        load.wait_for(50)
        weights_before = away.describe().memory.weights_bytes
        answer = away.unload(moved)
        assert answer.unloaded == 6
        assert answer.memory.weights_bytes < weights_before
        assert away.hosted() == {0: [9, 10, 11], 1: [9, 10, 11]}
        load.wait_for(50)
    assert load.errors == []
    assert mesh.client.topology().ready


def test_unloaded_experts_are_reported_missing(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(1))
    x = hidden_states(100, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 1, x)
    with Node(mesh.nodes[0]) as node:
        assert node.unload([2, 3], layers=[1]).unloaded == 2
        topology = mesh.watch(lambda t: not t.ready, "the loss is seen")
        assert [(m.layer, list(m.experts)) for m in topology.missing] == [(1, [2, 3])]
        with pytest.raises(expertmesh.Unavailable, match="layer 1"):
            mesh.client.forward(1, x)
        assert mesh.client.forward(0, x).output.shape == x.shape
        assert node.load([2, 3], layers=[1]).loaded == 2
        mesh.wait_ready()
    assert_rows_close(mesh.client.forward(1, x).output, expected, 1e-5)


def test_loading_what_is_held_and_unloading_what_is_not_changes_nothing(mesh, checkpoint):
    mesh.start_node(checkpoint.path, "--experts", "0-5")
    with Node(mesh.nodes[0]) as node:
        held = node.hosted()
        assert node.load([0, 1]).loaded == 0
        assert node.unload([9, 10]).unloaded == 0
        assert node.hosted() == held


def test_bad_loads_are_refused_whole(mesh, checkpoint):
    mesh.start_node(checkpoint.path, "--experts", "0-5")
    with Node(mesh.nodes[0]) as node:
        held = node.hosted()
        code, message = code_of(node.load, [1], layers=[9])
        assert code == grpc.StatusCode.NOT_FOUND and "9" in message
        code, message = code_of(node.load, [7, 12])
        assert code == grpc.StatusCode.NOT_FOUND and "12" in message
        code, _ = code_of(node.load, [0], slice_index=0, slice_count=2)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        code, _ = code_of(node.load, [7], slice_index=3, slice_count=2)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert node.hosted() == held


def test_an_authority_of_the_past_is_refused(mesh, checkpoint):
    mesh.start_node(checkpoint.path, "--experts", "0-5")
    with Node(mesh.nodes[0]) as node:
        assert node.load([6], term=5).loaded == 2
        held = node.hosted()
        for call in (node.load, node.unload):
            status = unary_status(lambda call=call: call([6, 7], term=4))
            assert "term is 4" in status.message and "in term 5" in status.message
            assert dict(check(status, "TERM_PASSED").metadata) == {"term": "4", "seen": "5"}
        assert node.hosted() == held
        assert node.unload([6], term=0).unloaded == 2


def test_a_checkpoint_that_is_shortened_in_place_ends_no_process(mesh, checkpoint, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(checkpoint.path, model)
    weights = model / "model.safetensors"
    size = weights.stat().st_size
    mesh.start(model, [["--experts", "0-5"], ["--experts", "6-11"]])
    x = hidden_states(50, checkpoint.d_model)
    before = [mesh.client.forward(layer, x).output for layer in (0, 1)]
    with Node(mesh.nodes[0]) as node:
        held = node.hosted()
        os.truncate(weights, size // 10)
        code, message = code_of(node.load, [6, 7])
        assert code == grpc.StatusCode.DATA_LOSS, message
        for part in (str(weights), f"has {size // 10} bytes", f"had {size}", "shortened"):
            assert part in message
        assert node.hosted() == held
    for layer in (0, 1):
        assert (mesh.client.forward(layer, x).output == before[layer]).all()


def test_memory_limit(mesh, checkpoint):
    # One expert is 3 * 64 * 32 floats: 24576 bytes, before packing.
    mesh.start_node(
        checkpoint.path, "--layers", "0", "--experts", "0-1", "--memory-limit-bytes", "100000"
    )
    with Node(mesh.nodes[0]) as node:
        description = node.describe()
        assert description.memory.limit_bytes == 100000
        assert 2 * 24576 <= description.memory.weights_bytes <= 100000
        code, message = code_of(node.load, list(range(2, 12)), layers=[0])
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and "100000" in message
        assert node.hosted() == {0: [0, 1]}
        assert node.load([2], layers=[0]).loaded == 1
