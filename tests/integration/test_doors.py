"""Programs whose descriptors run out, and callers that take more than their share."""

import contextlib
import signal
import time

import expertmesh
from expertmesh.v1 import control_pb2
from mesh import PATIENCE, entry, hidden_states, shards, wait_until
from neighbours import ALL, Idle, disconnects

DESCRIPTORS = 96
OPEN = "expertmesh_process_connections"
REFUSED = "expertmesh_process_connections_refused_total"


@contextlib.contextmanager
def exhausted(program):
    """Meanwhile `program` has as many connections as it has descriptors for."""
    before = program.metric(REFUSED, reason="descriptors")
    with Idle(program.grpc_port, 2 * DESCRIPTORS):
        wait_until(
            lambda: program.metric(REFUSED, reason="descriptors") > before + DESCRIPTORS / 2,
            f"{program.name} refuses connections",
        )
        yield
    wait_until(lambda: program.metric(OPEN) < DESCRIPTORS / 4, f"{program.name} knows of the end")


def send_thousand(router, checkpoint):
    with expertmesh.Client(router.address, timeout=PATIENCE) as client:
        x = hidden_states(2, checkpoint.d_model)
        for _ in range(1000):
            client.forward(checkpoint.moe_layers[0], x)


def test_a_router_whose_descriptors_ran_out_answers_afterwards(mesh, checkpoint):
    mesh.start_nodes(checkpoint.path, shards(2))
    mesh.launcher = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    router = mesh.start_router(checkpoint.path)
    mesh.wait_ready()
    x = hidden_states(2, checkpoint.d_model)
    mesh.client.forward(checkpoint.moe_layers[0], x)
    with exhausted(router):
        mesh.client.forward(checkpoint.moe_layers[0], x)
        # Its own connections have descriptors kept for them.
        node = mesh.nodes[1]
        node.kill()
        mesh.watch(
            lambda topology: entry(topology, node).link == control_pb2.NODE_LINK_DOWN, "the node is missed"
        )
        mesh.launcher = []
        node.start()
        mesh.wait_ready()
        mesh.client.forward(checkpoint.moe_layers[0], x)
    send_thousand(router, checkpoint)
    assert "refuses connections" in router.log()


def test_a_node_whose_descriptors_ran_out_serves_afterwards(mesh, checkpoint):
    mesh.launcher = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    mesh.start_nodes(checkpoint.path, shards(1))
    mesh.launcher = []
    mesh.start_router(checkpoint.path)
    mesh.wait_ready()
    with exhausted(mesh.nodes[0]):
        mesh.client.forward(checkpoint.moe_layers[0], hidden_states(2, checkpoint.d_model))
    later = mesh.start_router(checkpoint.path)
    send_thousand(later, checkpoint)


def test_more_connections_than_allowed_are_closed(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(1), "--max-connections=8")
    with Idle(mesh.router.grpc_port, 20):
        wait_until(lambda: mesh.router.metric(REFUSED, reason="number") > 0, "refused")
        assert mesh.router.metric(OPEN) <= 8
    wait_until(lambda: mesh.router.metric(OPEN) <= 1, "closed")
    send_thousand(mesh.router, checkpoint)


def test_the_limit_of_descriptors_is_raised(mesh, checkpoint):
    mesh.launcher = ["prlimit", "--nofile=128:512"]
    mesh.start(checkpoint.path, shards(1))
    for program in mesh.programs:
        with open(f"/proc/{program.pid}/limits", encoding="ascii") as limits:
            (line,) = [line for line in limits if line.startswith("Max open files")]
        assert line.split()[3:5] == ["512", "512"]


def test_bad_neighbours_cost_no_node_and_no_request(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4, "--replicas", "2"))
    x = hidden_states(2, checkpoint.d_model)
    mesh.client.forward(checkpoint.moe_layers[0], x)
    for misbehave in ALL:
        with misbehave(mesh.router, checkpoint) as over:
            answered = 0
            while not over() or answered < 20:
                mesh.client.forward(checkpoint.moe_layers[0], x)
                answered += 1
        assert disconnects(mesh) == 0, misbehave


def test_a_router_that_stood_still_keeps_its_nodes(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2))
    mesh.router.signal(signal.SIGSTOP)
    time.sleep(5)  # Longer than a node may be silent.
    mesh.router.signal(signal.SIGCONT)
    mesh.client.forward(checkpoint.moe_layers[0], hidden_states(2, checkpoint.d_model))
    assert disconnects(mesh) == 0
