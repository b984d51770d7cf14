"""Real programs on loopback (expertmesh-router, expertmesh-expert, expertmesh): started on port 0, watched,
killed, restarted, and always cleaned up."""

import os
import pathlib
import re
import subprocess
import sys
import urllib.request

import grpc
import numpy as np

import expertmesh
from expertmesh.v1 import control_pb2, control_pb2_grpc

# The supervisor of deploy/local.sh, whose process handling the suites share.
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy"))

# pylint: disable-next=wrong-import-position
from supervisor.process import HOST, ProcessError, Service, poll_until

SCALE = float(os.environ.get("EXPERTMESH_TIMEOUT_SCALE", "1"))
# A bound on waiting, never a duration that a test needs to pass: on a slow machine whose cores others keep busy,
# what takes a second here may take a minute.
PATIENCE = 300 * SCALE
# Nothing outlives a test run that was itself killed.
OPTIONS = {"patience": PATIENCE, "die_with_parent": True}


def program(name):
    """Path of router, expert or cli, from the environment that ctest sets."""
    variable = f"EXPERTMESH_{name.upper()}"
    path = os.environ.get(variable)
    if not path or not os.access(path, os.X_OK):
        raise RuntimeError(f"{variable} is {path!r}; run the suites through tests/run.sh or ctest")
    return path


def wait_until(condition, what, timeout=None):
    """Polls for what no event reports (files, processes). Returns the condition's truthy value."""
    value = poll_until(condition, timeout or PATIENCE)
    assert value, f"not within {timeout or PATIENCE:g} s: {what}"
    return value


def cli(*arguments, code=0, text=None):
    """Runs `expertmesh` with `text` as its input, and checks its exit status. Returns what subprocess.run does."""
    done = subprocess.run(
        [program("cli"), *map(str, arguments)],
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Program(Service):
    """A router or a node of a test."""

    def __init__(self, name, argv, folder):
        super().__init__(name, argv, folder, **OPTIONS)

    def check_log(self):
        found = re.search(r"\w+Sanitizer|runtime error:|check failed", self.log(), re.IGNORECASE)
        assert not found, f"{self.name}:\n{self.log()}"

    def metric(self, name, **labels):
        """Sum of the samples of a metric whose labels include `labels`."""
        url = f"http://{HOST}:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            text = answer.read().decode()
        total, seen = 0.0, False
        for line in text.splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(
                f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()
            ):
                total, seen = total + float(match[2]), True
        assert seen, f"no sample of {name} {labels} in\n{text}"
        return total


class Mesh:
    """A router and its nodes. Use as a context manager (or the `mesh` fixture)."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.nodes = []
        self.router = None
        self.programs = []
        # Put before the commands of programs, such as prlimit.
        self.launcher = []
        self._client = None

    def _add(self, name, argv):
        made = Program(name, [*self.launcher, *argv], self.folder)
        self.programs.append(made)
        return made

    def make_node(self, model, *flags):
        """A node that is not started."""
        name = f"node{len(self.nodes)}"
        node = self._add(
            name, [program("expert"), "--model", model, "--node-id", name, "--threads", "1", *flags]
        )
        self.nodes.append(node)
        return node

    def start_node(self, model, *flags):
        return self.make_node(model, *flags).start()

    def start_nodes(self, model, node_flags):
        """One node for each list of flags."""
        for node in [self.make_node(model, *flags).spawn() for flags in node_flags]:
            # Spawned together, they load together.
            node.wait_bound()

    def start_router(self, model, *flags, nodes=None):
        addresses = nodes or [node.address for node in self.nodes]
        self.router = self._add(
            "router", [program("router"), "--model", model, "--nodes", ",".join(addresses), *flags]
        ).start()
        return self.router

    def start(self, model, node_flags, *router_flags):
        """One node for each list of flags, and a router; returns when all is ready."""
        self.start_nodes(model, node_flags)
        self.start_router(model, *router_flags)
        self.wait_ready()
        return self

    @property
    def client(self):
        if self._client is None:
            self._client = expertmesh.Client(self.router.address, timeout=PATIENCE)
        return self._client

    def watch(self, condition, what):
        """Follows WatchTopology until `condition(topology)`; returns that topology."""
        stub = control_pb2_grpc.ControlStub(self.client.channel)
        stream = stub.WatchTopology(
            control_pb2.WatchTopologyRequest(), timeout=PATIENCE, wait_for_ready=True
        )
        topology = None
        try:
            for response in stream:
                topology = response.topology
                if condition(topology):
                    return topology
        except grpc.RpcError as error:
            raise AssertionError(f"{what}: {error.details()}; last topology:\n{topology}") from None
        finally:
            stream.cancel()
        raise AssertionError(f"{what}: the stream ended; last topology:\n{topology}")

    def wait_ready(self):
        return self.watch(lambda topology: topology.ready, "ready")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self._client is not None:
            self._client.close()
        problems = []
        # The router first, so that it does not see its nodes go.
        for running in reversed(self.programs):
            try:
                running.stop()
                running.check_log()
            except (AssertionError, ProcessError) as error:
                problems.append(str(error))
            finally:
                if running.running():
                    running.kill()
        if kind is not None:
            for running in self.programs:
                print(f"--- {running.name}: {' '.join(running.argv)}\n{running.log()[-4000:]}")
        elif problems:
            raise AssertionError("\n".join(problems))


def entry(topology, node):
    """What a topology says of a node. (Its order is the router's, not the test's.)"""
    (found,) = [known for known in topology.nodes if known.address == node.address]
    return found


def shards(count, *flags):
    """Flags of `count` nodes that share all experts."""
    return [["--shard", f"{i}/{count}", *flags] for i in range(count)]


def hidden_states(tokens, d_model, seed=0):
    return np.random.default_rng(seed).standard_normal((tokens, d_model), dtype=np.float32)
