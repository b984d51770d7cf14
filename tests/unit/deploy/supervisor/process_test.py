"""Programs are started, watched and ended, and what went wrong with one is said."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from fakes import FAKE, PATIENCE, SUPERVISOR, FakeClock
from supervisor.process import HOST, Process, ProcessError, Service, poll_until, stop_all
from supervisor.state import started_at


@pytest.fixture(name="service")
def make_service(tmp_path):
    """service(flag, ...): one that is not started. What runs at the end is killed."""
    made = []

    def make(*flags, patience=PATIENCE, **options):
        argv = [*FAKE, "expert", *flags]
        made.append(Service(f"node{len(made)}", argv, tmp_path, patience=patience, **options))
        return made[-1]

    yield make
    for each in made:
        if each.running():
            each.kill()


class Recorder:
    """A process that ends after so many seconds of SIGTERM's coming, or at once of SIGKILL's."""

    def __init__(self, name, clock, seconds, events):
        self.name = name
        self._clock, self._seconds, self._events = clock, seconds, events
        self._end = float("inf")

    def running(self):
        return self._clock.now() < self._end

    def signal(self, number):
        self._events.append((self.name, number.name, round(self._clock.now())))
        if number == signal.SIGTERM:
            self._end = self._clock.now() + self._seconds
        if number == signal.SIGKILL:
            self._end = self._clock.now()


def test_ports_are_known_once_it_is_bound_and_kept_by_a_restart(service):
    node = service()
    node.start()
    host, port = node.address.split(":")
    assert host == HOST and int(port) == node.grpc_port != node.metrics_port
    for each in (node.grpc_port, node.metrics_port):
        socket.create_connection((HOST, each)).close()
    ports = node.grpc_port, node.metrics_port
    node.kill()
    assert node.ending() == "ended by SIGKILL" and not node.running()
    assert node.command()[-5] == f"{HOST}:{ports[0]}" and node.command()[-3] == f"{HOST}:{ports[1]}"


def test_the_log_goes_on_over_a_restart(service):
    node = service("--say", "first")
    node.start().stop()
    node.argv[-1] = "second"
    node.spawn().wait_bound()
    assert node.log() == "first\nasked to end\nsecond\n"
    assert node.last_words(2) == "asked to end\nsecond\n"


def test_one_that_ends_while_starting_says_why(service):
    node = service("--say", "the weights are damaged", "--exit", "7")
    said = "node0 ended with exit status 7:\nthe weights are damaged"
    with pytest.raises(ProcessError, match=said):
        node.start()


def test_one_that_never_binds_has_a_deadline(service):
    clock = FakeClock()
    node = service("--unbound", patience=60, clock=clock)
    with pytest.raises(ProcessError, match="node0 has not bound its ports within 60 s"):
        node.start()
    assert 60 <= clock.time < 61


def test_stop_ends_it_in_good_order(service):
    node = service()
    node.start().stop()
    assert node.wait() == 0 and "asked to end" in node.log()
    # Once more is no error, nor before it was ever started.
    node.stop()
    service().stop()


def test_stop_of_one_that_is_suspended(service):
    node = service().start()
    node.signal(signal.SIGSTOP)
    node.stop()
    assert node.wait() == 0


def test_stop_kills_one_that_does_not_listen(service):
    clock = FakeClock()
    node = service("--ignore-term", patience=30).start()
    node.clock = clock
    with pytest.raises(ProcessError, match="node0 did not end on SIGTERM:\nstarted"):
        node.stop()
    assert not node.running() and node.ending() == "ended by SIGKILL"
    assert clock.time >= 30


def test_stop_reports_an_error_at_the_end(service, tmp_path):
    script = "trap 'echo a leak; exit 23' TERM; echo ready; while :; do sleep 0.01; done"
    process = Process("node", ["bash", "-c", script], tmp_path / "log", patience=PATIENCE).spawn()
    assert poll_until(process.log, PATIENCE) == "ready\n"
    with pytest.raises(ProcessError, match="node: ended with exit status 23:\nready\na leak"):
        process.stop()


def test_all_are_asked_in_order_and_killed_only_after_the_grace():
    clock, events = FakeClock(), []
    router = Recorder("router", clock, 1, events)
    node = Recorder("node", clock, 100, events)
    assert stop_all([router, node], 15, clock) == [node]
    assert events == [
        ("router", "SIGTERM", 0),
        ("router", "SIGCONT", 0),
        ("node", "SIGTERM", 0),
        ("node", "SIGCONT", 0),
        ("node", "SIGKILL", 15),
    ]


def test_no_longer_than_it_takes():
    clock, events = FakeClock(), []
    assert stop_all([Recorder("node", clock, 2, events)], 15, clock) == []
    assert clock.time < 3


def test_one_that_nothing_ends_is_named(monkeypatch):
    class Stuck(Recorder):
        def running(self):
            return True

    monkeypatch.setattr("supervisor.process.KILL_SECONDS", 0)
    with pytest.raises(ProcessError, match="after SIGKILL: stuck"):
        stop_all([Stuck("stuck", FakeClock(), 0, [])], 0, FakeClock())


def test_poll_until():
    clock = FakeClock()
    assert poll_until(lambda: clock.time >= 3 and "found", 10, clock) == "found"
    clock = FakeClock()
    assert not poll_until(lambda: None, 10, clock)
    assert 10 <= clock.time < 11


def test_nothing_outlives_a_parent_that_is_killed():
    # A kill that comes before setpriv has done its work goes unnoticed, so it waits until that is `sleep`.
    parent = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(SUPERVISOR.parent)!r})
from supervisor.process import Process, poll_until
child = Process("child", ["sleep", "1000"], die_with_parent=True).spawn(stdout=2)
name = pathlib.Path(f"/proc/{{child.pid}}/comm")
assert poll_until(lambda: name.read_text() == "sleep\\n", {PATIENCE})
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=False
    )
    child = int(done.stdout)
    try:
        assert done.returncode == -signal.SIGKILL
        assert poll_until(lambda: started_at(child) is None, PATIENCE)
    finally:
        if started_at(child) is not None:
            os.kill(child, signal.SIGKILL)
