"""Recorded requests, sent to the programs of one build: its nodes on loopback, and two routers before them, one of
them with --strict."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import queue
import signal
import subprocess
import threading

import grpc

from answers import Answer, answer_of
from expertmesh import codec
from expertmesh.v1 import control_pb2, control_pb2_grpc, node_pb2, router_pb2
from mesh import PATIENCE, Program, wait_until

PLAIN, STRICT = "plain", "strict"
KINDS = (PLAIN, STRICT)
UNARY, STREAMED = "unary", "streamed"
# A node is killed while it has work of requests on a stream.
KILLED = "in flight"
UNARY_AFTER, STREAMED_AFTER = "unary after", "streamed after"
# The node has come back.
BACK = "back"
MODES = (UNARY, STREAMED, KILLED, UNARY_AFTER, STREAMED_AFTER, BACK)
# Requests of a stream that are under way together.
WINDOW = 8
# The same requests come again and again until a node has died among them.
ROUNDS = 3
ATTEMPTS = 20


@dataclasses.dataclass(frozen=True)
class Build:
    """The programs of a build folder, or of a checkout with build/release."""

    path: pathlib.Path

    def program(self, name):
        place = {"router": "router_service/expertmesh-router", "expert": "expert_service/expertmesh-expert"}
        for folder in (self.path, self.path / "build" / "release"):
            if os.access(folder / place[name], os.X_OK):
                return folder / place[name]
        raise FileNotFoundError(
            f"{self.path} has neither {place[name]} nor build/release/{place[name]}; build it first"
        )

    def describe(self):
        """Digests of its programs, and the commit of the checkout where there is one."""
        digests = [
            f"{name} {hashlib.sha256(self.program(name).read_bytes()).hexdigest()[:12]}"
            for name in ("router", "expert")
        ]
        commit = subprocess.run(
            ["git", "-C", self.path, "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        if commit.returncode == 0:
            digests.insert(0, f"commit {commit.stdout.strip()}")
        return ", ".join(digests)


class _Node(Program):
    """Nodes have addresses of their own, 127.0.0.10 and on: partials are summed in the order of addresses, which
    must not be that of the ports that the system happens to give."""

    def __init__(self, number, argv, folder):
        super().__init__(f"node{number}", [*argv, "--node-id", f"node{number}"], folder)
        self._host = f"127.0.0.{10 + number}"
        self.listen = f"{self._host}:0"

    @property
    def address(self):
        return f"{self._host}:{self.grpc_port}"

    def restart(self):
        self.listen = self.address
        return self.start()


class _Router:
    """Raw bytes to one router, and answers from it."""

    def __init__(self, address):
        # Two routers and two builds must not share a connection's state.
        options = [*codec.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address, options)
        self._control = control_pb2_grpc.ControlStub(self._channel)
        self._forward = self._channel.unary_unary("/expertmesh.v1.Router/Forward")
        self._open_stream = self._channel.stream_stream("/expertmesh.v1.Router/ForwardStream")
        self._to_send = queue.SimpleQueue()
        self._stream = None

    def close(self):
        self._channel.close()

    def topology(self):
        return self._control.GetTopology(control_pb2.GetTopologyRequest(), timeout=PATIENCE).topology

    def watch(self, condition):
        """Returns when a topology is so."""
        stream = self._control.WatchTopology(
            control_pb2.WatchTopologyRequest(), timeout=PATIENCE, wait_for_ready=True
        )
        try:
            next(said.topology for said in stream if condition(said.topology))
        finally:
            stream.cancel()

    def work_of(self, node):
        (found,) = [known for known in self.topology().nodes if known.address == node.address]
        return found.batches_in_flight

    def _wait_idle(self):
        wait_until(
            lambda: not any(node.rows_in_flight for node in self.topology().nodes), "nodes are idle"
        )

    def _with_one_placement(self, replay):
        """What replay(epoch) returns when nodes neither came nor went meanwhile; else it is asked again. A link
        can be up a moment before what its node holds is placed."""
        for _ in range(ATTEMPTS):
            epoch = self.topology().epoch
            found = replay(epoch)
            if self.topology().epoch == epoch:
                return found
        raise RuntimeError(f"nodes came or went in each of {ATTEMPTS} attempts")

    def unary(self, requests, idle):
        """One after the other. idle: each when all nodes are: whose turn it is among replicas depends on their
        work."""

        def one(request, epoch):
            if idle:
                self._wait_idle()
            try:
                return answer_of(self._forward(request, timeout=PATIENCE), epoch)
            except grpc.RpcError as error:
                return Answer(error.code().value[0], error.details())

        return self._with_one_placement(lambda epoch: [one(request, epoch) for request in requests])

    def streamed(self, requests, window, idle):
        """On the one stream that there is, at most `window` at a time."""
        return self._with_one_placement(
            lambda epoch: self._on_stream(requests, window, epoch, idle)
        )

    def streamed_while_nodes_die(self, requests):
        """The same; epochs are not compared."""
        return self._on_stream(requests, WINDOW, None, idle=False)

    def _on_stream(self, requests, window, epoch, idle):
        if self._stream is None:
            self._stream = self._open_stream(iter(self._to_send.get, None), timeout=PATIENCE)
        answers, under_way = [None] * len(requests), {}

        def receive():
            answer = answer_of(next(self._stream), epoch)
            answers[under_way.pop(answer.response.request_id)] = answer

        for place, request in enumerate(requests):
            request_id = router_pb2.ForwardRequest.FromString(request).request_id
            while len(under_way) >= window or request_id in under_way:
                receive()
            if idle:
                self._wait_idle()
            under_way[request_id] = place
            self._to_send.put(request)
        while under_way:
            receive()
        return answers


def _ready(topology):
    """Every node has loaded all of its experts: some of them are enough for readiness."""
    return topology.ready and all(
        node.link == control_pb2.NODE_LINK_UP
        and node.description.state == node_pb2.NODE_STATE_READY
        for node in topology.nodes
    )


class _Mesh:
    """The programs of one build."""

    def __init__(self, build, model, layout, checkpoint, folder):
        self._stack = contextlib.ExitStack()
        self._programs = []
        folder.mkdir(parents=True)
        try:
            expert = [build.program("expert"), "--model", checkpoint, *model.node_flags, "--threads", "1"]
            self.nodes = [
                self._spawn(_Node(number, [*expert, *flags], folder))
                for number, flags in enumerate(layout.nodes)
            ]
            addresses = ",".join(node.wait_bound().address for node in self.nodes)
            router = [build.program("router"), "--model", checkpoint, "--nodes", addresses, "--threads", "2"]
            # Rows that are compared between nodes, and weights that are read, come when they come.
            router += ["--cross-check-interval=0", "--verify-bytes-per-second=0", *model.router_flags]
            extra = {PLAIN: [], STRICT: ["--strict"]}
            started = {
                kind: self._spawn(Program(kind, [*router, *extra[kind]], folder)) for kind in KINDS
            }
            self.routers = {}
            for kind, program in started.items():
                self.routers[kind] = _Router(program.wait_bound().address)
                self._stack.callback(self.routers[kind].close)
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _spawn(self, program):
        self._programs.append(program.spawn())
        # Nothing is written that outlives it: no need to ask it to end.
        self._stack.callback(program.kill)
        return program

    def close(self):
        self._stack.close()

    def wait_ready(self):
        for router in self.routers.values():
            router.watch(_ready)

    def wait_missed(self, node):
        """Until both routers have placed everything without a node that died."""

        def missed(topology):
            (found,) = [known for known in topology.nodes if known.address == node.address]
            return found.link == control_pb2.NODE_LINK_DOWN

        for router in self.routers.values():
            router.watch(missed)

    def logs(self):
        return "\n".join(f"--- {one.name}\n{one.log()[-2000:]}" for one in self._programs)


class _Kill:
    """Holds a node, waits until it was sent work that it will never answer, and kills it. Use as a context manager
    around the requests; it is dead at the end in any case."""

    def __init__(self, router, node):
        self._router, self._node = router, node
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        # There was such work.
        self.lost_work = False

    def _watch(self):
        while not self.lost_work and not self._done.wait(0.001):
            self.lost_work = self._router.work_of(self._node) > 0
        self._node.kill()

    def __enter__(self):
        self._node.signal(signal.SIGSTOP)
        self._watcher.start()
        return self

    def __exit__(self, *exception):
        self._done.set()
        self._watcher.join()


def _has_choice(layout, kind):
    """Bits depend on which replica serves."""
    return layout.replicated and kind == PLAIN


def _calm(mesh, requests, layout):
    """Unary and streamed, while nodes neither come nor go."""
    for kind, router in mesh.routers.items():
        choice = _has_choice(layout, kind)
        yield (kind, UNARY), router.unary(requests, choice)
        yield (kind, STREAMED), router.streamed(requests, 1 if choice else WINDOW, choice)


def replay(build, model, layout, checkpoint, requests, folder):
    """({(kind, mode): answers}, whether the node had work when it was killed; None where it had none to have).

    Without --strict bits depend on which replica serves: requests go one at a time then where there are several,
    and none is under way when a node dies."""
    mesh = _Mesh(build, model, layout, checkpoint, folder)
    try:
        answers = dict(_calm(mesh, requests, layout))
        victim, lost_work = mesh.nodes[layout.victim], None
        if layout.survives:
            router = mesh.routers[STRICT]
            with _Kill(router, victim) as kill:
                answers[STRICT, KILLED] = router.streamed_while_nodes_die(requests * ROUNDS)
            lost_work = kill.lost_work
        else:
            victim.kill()
        mesh.wait_missed(victim)
        after = {UNARY: UNARY_AFTER, STREAMED: STREAMED_AFTER}
        for (kind, mode), found in _calm(mesh, requests, layout):
            answers[kind, after[mode]] = found
        victim.restart()
        mesh.wait_ready()
        for kind, router in mesh.routers.items():
            answers[kind, BACK] = router.unary(requests, _has_choice(layout, kind))
        return answers, lost_work
    except Exception as error:
        raise RuntimeError(f"{type(error).__name__}: {error}\n{mesh.logs()}") from error
    finally:
        mesh.close()
