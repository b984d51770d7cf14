"""`expertmesh top`: a mesh watched while it works, loses a node, and has its router started again."""

import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import termios
import threading
import time

import numpy as np
import pytest

from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2
from mesh import PATIENCE, Mesh, cli, entry, hidden_states, program, shards

INTERVAL = "0.2"
# What a terminal is told before the first frame and after the last.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(2), "--trace-ratio=1")


@contextlib.contextmanager
def frames(mesh, *flags):
    """The frames of a `top --json` that runs meanwhile, one after the other."""
    argv = [program("cli"), "top", "--router", mesh.router.address, "--json", "--interval", INTERVAL]
    with subprocess.Popen([*argv, *flags], stdout=subprocess.PIPE, text=True) as running:
        watchdog = threading.Timer(PATIENCE, running.kill)
        watchdog.start()
        try:
            yield map(json.loads, running.stdout)
            running.terminate()
            assert running.wait(PATIENCE) == 0
        finally:
            watchdog.cancel()
            running.kill()


def node_of(frame, node):
    (found,) = [each for each in frame["nodes"] if each["address"] == node.address]
    return found


def layer_of(frame, layer):
    (found,) = [each for each in frame["layers"] if each["layer"] == layer]
    return found


def test_rates_agree_with_counters(serving, checkpoint):
    layer = checkpoint.moe_layers[0]
    states = hidden_states(64, checkpoint.d_model)
    with frames(serving) as following:
        first = next(following)
        assert first["interval_s"] is None and first["tokens_per_second"] is None
        assert layer_of(first, layer)["tokens_per_second"] is None
        # What was counted within the last seconds is known from the second look of the router on.
        first = next(frame for frame in following if frame["window_s"] > 0)
        for _ in range(3):
            routed = serving.client.forward(layer, states, ForwardOptions(return_routing=True))
        assignments = 3 * routed.expert_ids.size
        tokens = 0
        while tokens < 3 * 64:
            frame = next(following)
            counted = layer_of(frame, layer)
            tokens += round(counted["tokens_per_second"] * frame["interval_s"])
            assert counted["tokens"] - layer_of(first, layer)["tokens"] == tokens
            assert frame["tokens_per_second"] == max(
                each["tokens_per_second"] for each in frame["layers"]
            )
        assert tokens == 3 * 64
        counts = 3 * np.bincount(routed.expert_ids.reshape(-1))
        last = next(frame for frame in following if frame["hottest_experts"])
    hottest = last["hottest_experts"][0]
    assert (hottest["layer"], hottest["expert"]) == (layer, np.argmax(counts))
    even = counts.sum() / len(serving.client.get_load().layers[0].assignments)
    assert hottest["over_even"] == pytest.approx(max(counts) / even)
    computed = [
        node_of(last, node)["computed_assignments"] - node_of(first, node)["computed_assignments"]
        for node in serving.nodes
    ]
    assert sum(computed) == assignments
    assert last["stages"]["traces"] >= 1 and last["stages"]["kept"].keys() <= {"sampled", "slow"}
    stages = last["stages"]
    assert 0 < stages["nodes"]["longest_us"] <= stages["all"]["longest_us"]


def test_one_frame_has_rates(serving):
    (frame,) = map(json.loads, cli("top", "--router", serving.router.address, "--once", "--json").stdout.splitlines())
    assert frame["interval_s"] > 0 and frame["tokens_per_second"] is not None


def test_text_keeps_to_80_columns(serving):
    said = cli("top", "--router", serving.router.address, "--count", "2", "--interval", "0.1").stdout
    first, second = said.strip().split("\n\nexpertmesh top")
    assert "rates come with the next frame" in first and "tokens/s" in second.splitlines()[1]
    for line in said.splitlines():
        assert len(line) <= 80
    assert "\x1b" not in said
    for node in serving.nodes:
        assert re.search(rf"^{node.name} +up ", second, re.MULTILINE)


def test_a_dead_node_shows_at_once_and_a_router_may_go_and_come_back(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2))
    with frames(mesh) as following:
        assert node_of(next(following), mesh.nodes[0])["link"] == "up"
        mesh.nodes[1].kill()
        mesh.watch(
            lambda topology: entry(topology, mesh.nodes[1]).link == control_pb2.NODE_LINK_DOWN, "down"
        )
        now = time.time() * 1000
        frame = next(frame for frame in following if frame["unix_ms"] > now)
        assert node_of(frame, mesh.nodes[1])["link"] == "down"
        assert node_of(frame, mesh.nodes[1])["reason"]
        assert frame["nodes"][0]["address"] == mesh.nodes[1].address and not frame["ready"]
        mesh.nodes[1].start()
        mesh.wait_ready()
        mesh.router.stop()
        away = next(frame for frame in following if frame["error"])
        assert "nodes" not in away
        mesh.router.start()
        back = next(frame for frame in following if not frame["error"])
        assert back["interval_s"] is None
        assert next(following)["interval_s"] > 0


def test_a_router_that_never_answers(tmp_path):
    nowhere = ("--router", f"unix:{tmp_path}/nothing")
    assert "NO ANSWER yet" in cli("top", *nowhere, "--count", "2", "--interval", "0.1").stdout
    assert "nothing" in cli("top", *nowhere, "--once", "--interval", "0.1", code=1).stderr


class Terminal:
    """A terminal of its own with `top` in it."""

    def __init__(self, mesh, columns, lines):
        self.master, slave = os.openpty()
        self.resize(columns, lines)
        argv = ["setsid", "--ctty", program("cli"), "top", "--router", mesh.router.address]
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            [*argv, "--interval", INTERVAL], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self.said = ""
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.start()

    def resize(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self):
        """Reads more; False at the end."""
        try:
            self.said += os.read(self.master, 65536).decode()
        except OSError:  # The end of a terminal on Linux.
            return False
        return True

    def next_frame(self):
        """The lines of the next frame, which ends by wiping what is below."""
        while not (end := re.search(r"\x1b\[H(.*?)\x1b\[J", self.said, re.DOTALL)):
            assert self.read(), self.said
        self.said = self.said[end.end() :]
        # The terminal makes "\r\n" of each "\n" once more.
        return end[1].replace("\x1b[K", "").replace("\r", "").split("\n")

    def close(self):
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_a_terminal_is_used_and_given_back(serving):
    terminal = Terminal(serving, 80, 24)
    try:
        while ENTER not in terminal.said:
            assert terminal.read(), terminal.said
        for columns, lines in ((80, 24), (50, 12)):
            terminal.resize(columns, lines)
            frame = terminal.next_frame()
            while max(map(len, frame)) > columns or len(frame) > lines:
                frame = terminal.next_frame()
            assert frame[0].startswith("expertmesh top")
            assert any(line.startswith("node") for line in frame)
            assert "\x1b" not in "".join(frame)
        os.write(terminal.master, b"\x03")
        while terminal.read():
            pass
        assert terminal.said.endswith(LEAVE)
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()
