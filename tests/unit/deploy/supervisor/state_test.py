"""The state folder says what runs, and is not taken in by what an earlier mesh left."""

import json
import os
import signal
import subprocess

import pytest

from fakes import PATIENCE, FakeClock
from supervisor.process import Process, poll_until
from supervisor.state import State, started_at, try_lock


@pytest.fixture(name="state")
def prepared_state(tmp_path):
    state = State(tmp_path / "state")
    state.prepare()
    return state


@pytest.fixture(name="sleeper")
def running_process():
    process = Process("sleeper", ["sleep", "1000"]).spawn()
    yield process
    process.kill()


def test_what_was_recorded_runs_until_it_ends(state, sleeper):
    state.record(sleeper)
    (recorded,) = State(state.folder).running()
    assert (recorded.name, recorded.pid) == ("sleeper", sleeper.pid)
    recorded.signal(signal.SIGKILL)
    # Before its parent has noticed, too.
    assert poll_until(lambda: not recorded.running(), PATIENCE)
    assert sleeper.process.returncode is None
    assert state.running() == []
    assert [each.name for each in state.recorded()] == ["sleeper"]
    # To one that ended nothing is sent.
    recorded.signal(signal.SIGKILL)


def test_a_pid_that_another_process_has_now_is_left_alone(state, sleeper):
    start = started_at(sleeper.pid)
    (state.folder / "pids").write_text(f"node0 {sleeper.pid} {start - 1}\n")
    (recorded,) = state.recorded()
    assert not recorded.running()
    recorded.signal(signal.SIGKILL)
    assert sleeper.running()


def test_damaged_lines_are_passed_over(state, sleeper):
    state.record(sleeper)
    with open(state.folder / "pids", "a", encoding="utf-8") as pids:
        pids.write("\nnode1 12\nnode2 x y\nnode3 99")
    assert [each.name for each in state.recorded()] == ["sleeper"]


def test_prepare_takes_away_what_an_earlier_mesh_left(state):
    (state.logs / "node0.log").write_text("why it ended")
    for name in ("pids", "mesh.json", "targets.json", "stopping", "node0.port", "node1.port.new"):
        (state.folder / name).write_text("node0 1 1\n")
    State(state.folder).prepare()
    assert sorted(path.name for path in state.folder.iterdir()) == ["logs"]
    assert (state.logs / "node0.log").exists()


def test_mesh_json_holds_any_path(state):
    mesh = {"router": "127.0.0.1:1", "nodes": ["a", "b"], "model": '/models/"ü\\ \udcff'}
    mesh |= {"metrics": "127.0.0.1:2", "node_metrics": ["127.0.0.1:3", "127.0.0.1:4"]}
    state.write_mesh(mesh)
    assert state.mesh() == mesh
    text = (state.folder / "mesh.json").read_text()
    assert json.loads(text) == mesh and '\n  "nodes": ["a", "b"],\n' in text
    state.clear()
    assert state.mesh() is None


def test_targets_are_those_of_prometheus(state):
    state.write_mesh({"metrics": "127.0.0.1:2", "node_metrics": ["127.0.0.1:3", "127.0.0.1:4"]})
    targets = state.folder / "targets.json"
    assert json.loads(targets.read_text()) == [
        {"targets": ["127.0.0.1:2"], "labels": {"job": "expertmesh-router"}},
        {"targets": ["127.0.0.1:3", "127.0.0.1:4"], "labels": {"job": "expertmesh-expert"}},
    ]
    state.clear()
    assert not targets.exists()


def test_one_holder_of_the_lock(state):
    with open(state.lock_file, "ab") as first, open(state.lock_file, "ab") as second:
        assert try_lock(first.fileno(), 0)
        clock = FakeClock()
        assert not try_lock(second.fileno(), 10, clock)
        assert clock.time >= 10
        first.close()
        assert try_lock(second.fileno(), 0)


def test_the_lock_outlives_the_process_that_took_it_where_the_descriptor_stays_open(state):
    with open(state.lock_file, "ab") as kept, open(state.lock_file, "ab") as other:
        subprocess.run(["flock", str(kept.fileno())], pass_fds=[kept.fileno()], check=True)
        assert not try_lock(other.fileno(), 0)


def test_no_process_has_no_start():
    assert started_at(os.getpid()) > 0
    assert started_at(2**30) is None
