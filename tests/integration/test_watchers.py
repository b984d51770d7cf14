"""Many who watch, and slow ones who scrape, keep others from nothing: router, node and metrics answer."""

import socket
import time
import urllib.request

import grpc
import pytest

from expert_node import Node
from expertmesh.v1 import control_pb2, control_pb2_grpc
from internal_proto import ExpertStub, message
from mesh import HOST, PATIENCE, Mesh, hidden_states, shards, wait_until

WATCHERS = 300


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(1))


def threads(program):
    """How many threads a program has."""
    with open(f"/proc/{program.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


class Watchers:
    """Streams of one method that have each had their first answer, and read no more."""

    def __init__(self, program, open_watch):
        # Streams of one connection, as a client that leaks its watches makes them.
        self._channel = grpc.insecure_channel(program.address)
        self.streams = []
        for _ in range(WATCHERS):
            stream = open_watch(self._channel)
            next(stream)
            self.streams.append(stream)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._channel.close()


def watch_topology(channel):
    stub = control_pb2_grpc.ControlStub(channel)
    return stub.WatchTopology(control_pb2.WatchTopologyRequest(), timeout=PATIENCE)


def watch_status(channel):
    return ExpertStub(channel).WatchStatus(message("WatchStatusRequest")(), timeout=PATIENCE)


def test_a_router_with_many_watchers_answers_and_starts_no_thread_for_them(serving):
    before = threads(serving.router)
    with Watchers(serving.router, watch_topology):
        assert serving.client.describe().layers
        assert serving.client.topology().ready
        # Those that serve calls may come and go.
        assert threads(serving.router) <= before + 8
    assert serving.client.describe().layers


def test_a_router_becomes_ready_though_many_watch_its_node(serving, checkpoint):
    (node,) = serving.nodes
    before = threads(node)
    with Watchers(node, watch_status):
        with Node(node) as direct:
            assert direct.describe().node_id == "node0"
        assert threads(node) <= before + 8
        with Mesh(serving.folder / "late") as late:
            late.folder.mkdir()
            late.start_router(checkpoint.path, nodes=[node.address])
            late.wait_ready()
            layer = checkpoint.moe_layers[0]
            late.client.forward(layer, hidden_states(3, checkpoint.d_model))


class SlowScrapers:
    """Connections to /metrics that send half a request, or read no answer."""

    def __init__(self, program, count):
        self._sockets = []
        for i in range(count):
            connection = socket.create_connection((HOST, program.metrics_port), timeout=PATIENCE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.sendall([b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][i % 3])
            self._sockets.append(connection)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for connection in self._sockets:
            connection.close()


@pytest.mark.parametrize("count", [6, 60])
def test_slow_scrapers_block_no_other(serving, count):
    for program in [serving.router, *serving.nodes]:
        url = f"http://{HOST}:{program.metrics_port}/metrics"
        with SlowScrapers(program, count):
            begin = time.monotonic()
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                assert b"expertmesh_process_resident_bytes" in answer.read()
            # A scrape that is given 10 s, as Prometheus does, is well within them.
            assert time.monotonic() - begin < 8
