"""Experts that change their nodes while the mesh serves, by calls to the nodes themselves; and callers that notice
how late their answers are meanwhile."""

import concurrent.futures
import contextlib
import dataclasses
import statistics
import subprocess
import sys
import threading
import time
import types

import grpc
import numpy as np

import expertmesh
from arrays import relative_error
from expert_node import Node
from expertmesh.v1 import control_pb2, control_pb2_grpc
from mesh import PATIENCE, hidden_states, wait_until

# How many answers before and after one are its neighbours.
NEIGHBOURS = 20


@dataclasses.dataclass
class Answer:
    ended: float
    took: float
    moving: bool


class TimedLoad:
    """Callers that send requests one after the other until told to stop, and compare every answer with that of the
    mesh at rest. `moving` says whether experts are moving now."""

    def __init__(self, mesh, d_model, layers, callers=4, tokens=4):
        self._mesh, self._stop, self.moving = mesh, threading.Event(), False
        self._inputs = [
            (layer, hidden_states(tokens, d_model, seed=i)) for i in range(5) for layer in layers
        ]
        self._expected = [mesh.client.forward(layer, x).output for layer, x in self._inputs]
        # Requests that said what is right.
        self.asked_first = len(self._inputs)
        self._lock = threading.Lock()
        self.answers, self.errors = [], []
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call, caller) for caller in range(callers)]

    def _call(self, turn):
        while not self._stop.is_set():
            turn += 1
            which = turn % len(self._inputs)
            layer, x = self._inputs[which]
            moving, began = self.moving, time.monotonic()
            try:
                output = self._mesh.client.forward(layer, x).output
            except expertmesh.ExpertmeshError as error:
                with self._lock:
                    self.errors.append(error)
                continue
            ended = time.monotonic()
            error = relative_error(output, self._expected[which]).max()
            with self._lock:
                # One that began or ended while experts moved.
                self.answers.append(Answer(ended, ended - began, moving or self.moving))
                if error > 1e-5:
                    self.errors.append(AssertionError(f"layer {layer}: relative error {error}"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for caller in self._callers:
            caller.result()
        self._pool.shutdown()

    def figures(self):
        """p99 in seconds at rest and while experts moved, and how much later than the median of its neighbours the
        latest answer was, likewise."""
        answers = sorted(self.answers, key=lambda answer: answer.ended)
        took = [answer.took for answer in answers]
        late = [
            answer.took - statistics.median(took[max(0, at - NEIGHBOURS) : at + NEIGHBOURS + 1])
            for at, answer in enumerate(answers)
        ]
        result = {}
        for name, moving in (("rest", False), ("move", True)):
            chosen = [at for at, answer in enumerate(answers) if answer.moving == moving]
            result[name] = {
                "answers": len(chosen),
                "p50": float(np.quantile([took[at] for at in chosen], 0.5)),
                "p99": float(np.quantile([took[at] for at in chosen], 0.99)),
                "latest": max(late[at] for at in chosen),
            }
        return result


def third_of_all(nodes):
    """(from, to, layer, experts): every third expert goes on to the next node."""
    moves = []
    for at, node in enumerate(nodes):
        for layer, experts in node.hosted().items():
            moves.append((at, (at + 1) % len(nodes), layer, experts[::3]))
    return moves


def move(nodes, moves, chunk, seen):
    """As a router does: new copies first, then, when the router has `seen` them, the old ones go."""

    def load(to):
        for _, target, layer, experts in moves:
            for first in range(0, len(experts) if target == to else 0, chunk):
                part = experts[first : first + chunk]
                assert nodes[to].load(part, layers=[layer]).loaded == len(part)

    def unload(away):
        for source, _, layer, experts in moves:
            if source == away:
                assert nodes[away].unload(experts, layers=[layer]).unloaded == len(experts)

    with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(load, range(len(nodes))))
        seen()
        list(pool.map(unload, range(len(nodes))))


def _await_offered(stub, addresses, moves):
    """Until the router says that the nodes offer what was moved to them."""

    def held(topology, at, layer):
        (node,) = [node for node in topology.nodes if node.address == addresses[at]]
        return {
            expert
            for hosted in node.description.hosted
            if hosted.layer == layer
            for expert in hosted.experts
        }

    def offered(topology):
        return all(set(experts) <= held(topology, to, layer) for _, to, layer, experts in moves)

    wait_until(
        lambda: offered(stub.GetTopology(control_pb2.GetTopologyRequest()).topology),
        "the router sees the new copies",
    )


class Mover:
    """A process that moves a third of all experts when it is told to: in that of the callers it would make them
    late by itself. Use as a context manager."""

    def __init__(self, mesh, chunk=4):
        addresses = [node.address for node in mesh.nodes]
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(chunk), mesh.router.address, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say("ready")

    def _say(self, expected):
        line = self._process.stdout.readline().strip()
        assert line == expected, f"{line!r} instead of {expected!r}"

    def move(self):
        self._process.stdin.write("move\n")
        self._process.stdin.flush()
        self._say("moved")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE)


def main(chunk, router, *addresses):
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(Node(types.SimpleNamespace(address=address)))
            for address in addresses
        ]
        stub = control_pb2_grpc.ControlStub(stack.enter_context(grpc.insecure_channel(router)))
        stub.GetTopology(control_pb2.GetTopologyRequest())
        print("ready", flush=True)
        for _ in sys.stdin:
            moves = third_of_all(nodes)
            move(nodes, moves, int(chunk), lambda: _await_offered(stub, addresses, moves))
            print("moved", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
