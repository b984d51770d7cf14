"""Nodes that are up and serve badly: with replicas no request fails, and the node is out of use and named."""

import signal

import pytest

import bad_node
from bad_node import BadNode
from expertmesh.v1 import control_pb2
from mesh import entry
from test_failures import Load, link_is


@pytest.fixture(name="bad")
def _bad(mesh, checkpoint):
    """A bad node, and one that is well; both hold everything."""
    mesh.start_nodes(checkpoint.path, [[], []])
    with BadNode(mesh.nodes[0]) as bad:
        mesh.start_router(checkpoint.path, nodes=[bad.address, mesh.nodes[1].address])
        mesh.watch(
            lambda topology: all(node.link == control_pb2.NODE_LINK_UP for node in topology.nodes),
            "both are up",
        )
        yield bad
        # A router that outlives its nodes says so.
        mesh.router.stop()


WAYS = {f"code {code}": {"spoil": bad_node.error(code)} for code in range(1, 17)} | {
    "silent": {"spoil": bad_node.silent},
    "late": {"delay": 1.5},
    "half": {"spoil": bad_node.half},
    "other batch": {"spoil": bad_node.other_batch},
    "a third unreadable": {"spoil": bad_node.unreadable(3)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_node_costs_no_request_and_is_named(mesh, checkpoint, bad, way):
    with Load(mesh, checkpoint) as load:
        load.wait_for(30)
        for name, value in WAYS[way].items():
            setattr(bad, name, value)
        topology = mesh.watch(link_is(bad, control_pb2.NODE_LINK_EJECTED), "it is ejected")
        load.wait_for(100)
        assert entry(topology, bad).reason
        bad.heal()
        mesh.watch(link_is(bad, control_pb2.NODE_LINK_UP), "it is used again")
        load.wait_for(30)
    print(f"{way}: {load.answered} requests, {len(load.errors)} failed, longest {load.longest * 1e3:.0f} ms")
    assert not load.errors, load.errors[:3]
    assert entry(mesh.client.topology(), bad).ejections >= 1
    assert mesh.router.metric("expertmesh_router_node_ejections_total", node=bad.address) >= 1
    assert bad.address in mesh.router.log()


def test_a_stopped_node_is_out_of_use_before_its_heartbeat_is_missed(mesh, checkpoint):
    mesh.start(checkpoint.path, [[], []])
    stopped = mesh.nodes[0]
    with Load(mesh, checkpoint) as load:
        load.wait_for(30)
        stopped.signal(signal.SIGSTOP)
        mesh.watch(link_is(stopped, control_pb2.NODE_LINK_EJECTED), "it is ejected")
        load.wait_for(100)
        stopped.signal(signal.SIGCONT)
        mesh.watch(link_is(stopped, control_pb2.NODE_LINK_UP), "it is used again")
        load.wait_for(30)
    print(f"stopped: {load.answered} requests, longest {load.longest * 1e3:.0f} ms")
    assert not load.errors, load.errors[:3]


def absurd(description):
    description.max_batch_rows = 2**32 - 1
    description.max_frame_bytes = 2**64 - 1
    for hosted in description.hosted:
        hosted.slice_count = 2**32 - 1
        hosted.slice_index = 2**32 - 2


def test_absurd_numbers_cost_no_request(mesh, checkpoint):
    mesh.start_nodes(checkpoint.path, [[], []])
    with BadNode(mesh.nodes[0]) as bad:
        bad.describe = absurd
        mesh.start_router(checkpoint.path, nodes=[bad.address, mesh.nodes[1].address])
        mesh.wait_ready()
        with Load(mesh, checkpoint) as load:
            load.wait_for(50)
        assert not load.errors, load.errors[:3]
        mesh.router.stop()


def test_one_node_under_two_addresses_counts_once(mesh, checkpoint):
    mesh.start_nodes(checkpoint.path, [[]])
    address = mesh.nodes[0].address
    twin = address.replace("127.0.0.1", "localhost")
    mesh.start_router(checkpoint.path, nodes=[address, twin])
    topology = mesh.watch(
        lambda topology: sorted(node.link for node in topology.nodes)
        == [control_pb2.NODE_LINK_UP, control_pb2.NODE_LINK_REFUSED],
        "one of the two is used",
    )
    (refused,) = [node for node in topology.nodes if node.link == control_pb2.NODE_LINK_REFUSED]
    assert "list it once" in refused.reason
    assert "are one process" in mesh.router.log()
