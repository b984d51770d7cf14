"""Nodes that die, stall, come late and come back."""

import concurrent.futures
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest

import expertmesh
import reference
from arrays import assert_rows_close, assert_same_bits, relative_error
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2
from mesh import HOST, entry, hidden_states, shards, wait_until


class Load:
    """Callers that send requests until told to stop, and check every answer."""

    def __init__(self, mesh, checkpoint, callers=6):
        self._mesh, self._stop = mesh, threading.Event()
        self._inputs = [hidden_states(1 + i % 7, checkpoint.d_model, seed=i) for i in range(20)]
        self._expected = [
            [reference.forward(checkpoint, layer, x)[0] for x in self._inputs]
            for layer in checkpoint.moe_layers
        ]
        self._lock = threading.Lock()
        self.answered = 0
        self.longest = 0.0  # Seconds of one request; for people, never for a test's outcome.
        self.errors = []
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call, caller) for caller in range(callers)]

    def _call(self, caller):
        turn = caller
        while not self._stop.is_set():
            turn += 1
            layer, which = turn % len(self._expected), turn % len(self._inputs)
            began = time.monotonic()
            try:
                output = self._mesh.client.forward(layer, self._inputs[which]).output
            except expertmesh.ExpertmeshError as error:
                with self._lock:
                    self.errors.append(error)
                continue
            error = relative_error(output, self._expected[layer][which]).max()
            with self._lock:
                self.answered += 1
                self.longest = max(self.longest, time.monotonic() - began)
                if error > 1e-5:
                    self.errors.append(AssertionError(f"relative error {error}"))

    def wait_for(self, more):
        """Returns when so many more requests were answered."""
        target = self.answered + more
        wait_until(lambda: self.answered >= target or self.errors, f"{more} more answers")

    def stop(self):
        self._stop.set()
        for caller in self._callers:
            caller.result()
        self._pool.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


def link_is(node, link):
    return lambda topology: entry(topology, node).link == link


def test_kill_of_a_replica_under_load_fails_no_request(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4, "--replicas", "2"))
    with Load(mesh, checkpoint) as load:
        for victim in (mesh.nodes[2], mesh.nodes[0]):
            load.wait_for(100)
            # On a busy machine a link may have been lost before.
            before = entry(mesh.client.topology(), victim).disconnects
            victim.kill()
            topology = mesh.watch(link_is(victim, control_pb2.NODE_LINK_DOWN), "the node is missed")
            assert topology.ready and not topology.missing
            assert entry(topology, victim).reason
            load.wait_for(100)
            victim.start()
            topology = mesh.watch(link_is(victim, control_pb2.NODE_LINK_UP), "the node is back")
            assert entry(topology, victim).disconnects > before
        load.wait_for(100)
    assert load.errors == []
    assert mesh.router.metric("expertmesh_router_requests_total", code="OK") == load.answered


def test_kill_without_replicas_names_what_is_missing(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4))
    # Shard 1 of 4 over 12 experts.
    lost = {3, 4, 5}
    x = hidden_states(200, checkpoint.d_model)
    expected, chosen = reference.forward(checkpoint, 0, x)
    needs_lost = np.isin(chosen.ids, list(lost)).any(axis=1)
    assert needs_lost.any() and not needs_lost.all()

    mesh.nodes[1].kill()
    topology = mesh.watch(lambda t: not t.ready, "the loss is seen")
    assert [(m.layer, set(m.experts)) for m in topology.missing] == [(0, lost), (1, lost)]
    assert mesh.client.health() is expertmesh.Health.NOT_SERVING
    with pytest.raises(expertmesh.Unavailable) as caught:
        mesh.client.forward(0, x[needs_lost])
    assert "layer 0" in caught.value.message
    needed = lost & set(chosen.ids[needs_lost].ravel())
    assert all(str(expert) in caught.value.message for expert in needed)

    # Tokens that need none of the lost experts are served all the same.
    served = mesh.client.forward(0, x[~needs_lost]).output
    assert_rows_close(served, expected[~needs_lost], 1e-5)

    mesh.nodes[1].start()
    mesh.wait_ready()
    assert mesh.client.health() is expertmesh.Health.SERVING
    assert_rows_close(mesh.client.forward(0, x).output, expected, 1e-5)


def test_requests_in_flight_when_a_node_dies_are_all_answered(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4))
    x = hidden_states(50, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 0, x)
    answered = 0

    def requests():
        for i in range(300):
            if i == 100:
                mesh.nodes[3].kill()
            yield 0, x

    for answer in mesh.client.forward_many(requests(), max_in_flight=16):
        answered += 1
        if answer.error is not None:
            assert isinstance(answer.error, expertmesh.Unavailable), answer.error
        else:
            assert_rows_close(answer.result.output, expected, 1e-5, f"request {answer.index}")
    assert answered == 300


def free_ports(count):
    """Ports that are free now, and below those that outgoing connections are given."""
    found, port = [], 12000 + os.getpid() % 8000
    while len(found) < count:
        port += 1
        try:
            socket.create_server((HOST, port)).close()
        except OSError:
            continue
        found.append(port)
    return found


def test_router_starts_before_its_nodes(mesh, checkpoint):
    ports = free_ports(2)
    mesh.start_router(checkpoint.path, nodes=[f"{HOST}:{port}" for port in ports])
    topology = mesh.client.topology()
    assert not topology.ready
    assert [(m.layer, list(m.experts)) for m in topology.missing] == [
        (0, list(range(12))),
        (1, list(range(12))),
    ]
    assert [node.link for node in topology.nodes] == [control_pb2.NODE_LINK_DOWN] * 2
    assert mesh.client.health() is expertmesh.Health.NOT_SERVING
    assert mesh.client.describe().d_model == checkpoint.d_model
    x = hidden_states(3, checkpoint.d_model)
    with pytest.raises(expertmesh.Unavailable, match="layer 1"):
        mesh.client.forward(1, x)

    for i, port in enumerate(ports):
        node = mesh.make_node(checkpoint.path, "--shard", f"{i}/2")
        node.listen = f"{HOST}:{port}"
        node.start()
        if i == 0:
            halfway = mesh.watch(link_is(node, control_pb2.NODE_LINK_UP), "the first node is seen")
            assert not halfway.ready
    assert mesh.wait_ready().epoch > topology.epoch
    assert mesh.client.health() is expertmesh.Health.SERVING
    expected, _ = reference.forward(checkpoint, 1, x)
    assert_rows_close(mesh.client.forward(1, x).output, expected, 1e-5)


def test_stalled_replica_fails_no_request(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(3, "--replicas", "2"))
    with Load(mesh, checkpoint) as load:
        load.wait_for(50)
        mesh.nodes[1].signal(signal.SIGSTOP)
        mesh.watch(link_is(mesh.nodes[1], control_pb2.NODE_LINK_DOWN), "the stalled node is missed")
        load.wait_for(100)
        mesh.nodes[1].signal(signal.SIGCONT)
        mesh.watch(link_is(mesh.nodes[1], control_pb2.NODE_LINK_UP), "the node goes on")
        load.wait_for(50)
    assert load.errors == []


def test_stalled_node_without_replica_keeps_no_caller_waiting(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2))
    x = hidden_states(50, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 0, x)
    mesh.nodes[0].signal(signal.SIGSTOP)
    # The node is missed after three seconds, in which a caller's own deadline holds. Where this process itself
    # was held up for as long, the second error comes at once.
    with pytest.raises((expertmesh.DeadlineExceeded, expertmesh.Unavailable)):
        mesh.client.forward(0, x, ForwardOptions(timeout=0.5))
    mesh.watch(lambda t: not t.ready, "the stalled node is missed")
    with pytest.raises(expertmesh.Unavailable, match="layer 0"):
        mesh.client.forward(0, x)
    mesh.nodes[0].signal(signal.SIGCONT)
    mesh.wait_ready()
    assert_rows_close(mesh.client.forward(0, x).output, expected, 1e-5)


def test_node_that_drains_fails_no_request(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2, "--replicas", "2"))
    with Load(mesh, checkpoint) as load:
        load.wait_for(100)
        mesh.nodes[0].stop()
        load.wait_for(100)
    assert load.errors == []


def test_router_that_restarts_finds_its_nodes(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2))
    x = hidden_states(4, checkpoint.d_model)
    before = mesh.client.forward(0, x).output
    mesh.router.kill()
    with pytest.raises(expertmesh.Unavailable):
        mesh.client.forward(0, x)
    mesh.router.start()
    mesh.wait_ready()
    assert_same_bits(mesh.client.forward(0, x).output, before)
