"""deploy/local.sh's second half, with fake programs: what it prints, how it ends, and that nothing is left."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from fakes import PATIENCE, SUPERVISOR, FakeClock, make_build
from supervisor import local_mesh
from supervisor.process import HOST, poll_until, stop_all
from supervisor.state import State

PORT = 50050


class Command:
    """deploy/supervisor on a state folder and fake programs."""

    def __init__(self, folder):
        self.build = make_build(folder / "build")
        self.state = State(folder / "state")
        self.model = folder / "model"
        self.model.mkdir()
        # Makes it a model that text can be written with.
        (self.model / "tokenizer.json").touch()

    def _argv(self, action, *flags):
        argv = [sys.executable, SUPERVISOR, action, "--state", self.state.folder, *flags]
        if action in ("up", "status"):
            argv += ["--build", self.build]
        if action in ("up", "claim"):
            argv += ["--port", PORT, "--nodes", 2]
        if action == "up":
            argv += ["--model", self.model, "--compute-dtype", "f32"]
            argv += ["--prompt=-x", "--replicas", 2]
        return list(map(str, argv))

    def _environment(self, changes):
        return {**os.environ, "FAKE_STATE": str(self.state.folder), **changes}

    def run(self, action, *flags, code=0, pass_fds=(), **environment):
        done = subprocess.run(
            self._argv(action, *flags),
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            pass_fds=pass_fds,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextlib.contextmanager
    def serving(self, after="Serving", **environment):
        """(`up`, what it has printed), once it has printed `after`."""
        with subprocess.Popen(
            self._argv("up"),
            env=self._environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            # The end of what it prints is waited for, too.
            watchdog = threading.Timer(PATIENCE, process.kill)
            watchdog.start()
            try:
                said = ""
                for line in process.stdout:
                    said += line
                    if line.startswith(after):
                        break
                assert after in said, said
                yield process, said
            finally:
                watchdog.cancel()
                process.kill()

    def recorded(self, name):
        (found,) = [each for each in self.state.recorded() if each.name == name]
        return found


@pytest.fixture(name="command")
def command_and_nothing_left(tmp_path):
    command = Command(tmp_path)
    yield command
    left = stop_all(command.state.running(), 0)
    assert left == []


@pytest.fixture(autouse=True)
def signals_are_not_ignored():
    """A shell starts what runs in the background, and so its tests, with SIGINT ignored."""
    numbers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def nothing_is_left(command, started):
    assert len(started) == 3 and not any(each.running() for each in started)
    assert sorted(path.name for path in command.state.folder.iterdir()) in (
        ["logs"],
        ["logs", "stopping"],
    )
    return True


def test_life_of_a_detached_mesh(command):
    up = command.run("up", "--detach")
    started = command.state.running()
    assert [each.name for each in started] == ["node0", "node1", "router"]
    assert f"Starting 2 nodes and a router on {HOST}:{PORT}\n" in up.stdout
    # In the order in which things happen, though other processes print in between.
    order = ("Starting", "generate --router", "The mesh serves", "Try next", "Python", "background")
    assert re.search(".*".join(order), up.stdout, re.DOTALL), up.stdout
    assert f"kill -9 {started[0].pid}    # node0; " in up.stdout
    assert " --prompt -x " in up.stdout
    assert command.state.mesh() == {
        "router": f"{HOST}:{PORT}",
        "nodes": [f"{HOST}:{PORT + 1}", f"{HOST}:{PORT + 2}"],
        "metrics": f"{HOST}:{PORT + 100}",
        "node_metrics": [f"{HOST}:{PORT + 101}", f"{HOST}:{PORT + 102}"],
        "model": str(command.model),
    }
    status = command.run("status").stdout
    assert f"router  pid {started[2].pid}\n\ntopology of {HOST}:{PORT}\n" in status

    assert "Stopped the mesh" in command.run("down").stdout
    assert nothing_is_left(command, started)
    assert "Nothing is running" in command.run("down").stdout
    assert "Nothing is running" in command.run("status", code=3).stdout


def test_a_node_that_ended_is_reported(command):
    command.run("up", "--detach")
    victim = command.recorded("node1")
    victim.signal(signal.SIGKILL)
    assert poll_until(lambda: not victim.running(), PATIENCE)
    said = command.run("status", code=1).stdout
    assert f"node1  ended; see {command.state.logs}/node1.log" in said
    command.run("down")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_how_serving_ends(command, number):
    with command.serving() as (up, _):
        started = command.state.running()
        up.send_signal(number)
        assert "Stopping." in up.stdout.read()
        assert up.wait(PATIENCE) == 0
    assert nothing_is_left(command, started)


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_breaks_off_a_start(command, number, code):
    with command.serving(after="Starting", FAKE_HEALTH="hang") as (up, _):
        assert poll_until((command.state.logs / "health.log").exists, PATIENCE)
        started = command.state.running()
        up.send_signal(number)
        assert up.wait(PATIENCE) == code
    assert nothing_is_left(command, started)


def test_a_signal_that_is_ignored_stays_so(command):
    # As nohup has it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with command.serving(after="Starting", FAKE_HEALTH="hang") as (up, _):
        assert poll_until((command.state.logs / "health.log").exists, PATIENCE)
        up.send_signal(signal.SIGHUP)
        up.send_signal(signal.SIGINT)
        # 143 when the first counted.
        assert up.wait(PATIENCE) == 130


def test_a_signal_breaks_off_the_main_job(command):
    with command.serving(after="generate", FAKE_GENERATE="hang") as (up, _):
        started = command.state.running()
        up.send_signal(signal.SIGINT)
        # Ends only when no program holds the pipe any more.
        up.stdout.read()
        assert up.wait(PATIENCE) == 130
    assert nothing_is_left(command, started)


def test_a_second_signal_breaks_off_no_cleaning_up(command, tmp_path):
    release = tmp_path / "release"
    with command.serving(FAKE_EXPERT=f"--linger-until '{release}'") as (up, _):
        started = command.state.running()
        up.send_signal(signal.SIGINT)
        log = command.state.logs / "node0.log"
        assert poll_until(lambda: "asked to end" in log.read_text(), PATIENCE)
        up.send_signal(signal.SIGINT)
        up.send_signal(signal.SIGTERM)
        release.touch()
        assert up.wait(PATIENCE) == 0
    assert nothing_is_left(command, started)


def test_down_ends_one_that_serves_elsewhere(command):
    with command.serving() as (up, _):
        started = command.state.running()
        command.run("down")
        assert "Stopped by deploy/local.sh down." in up.stdout.read()
        assert up.wait(PATIENCE) == 0
    assert nothing_is_left(command, started)


def test_one_that_dies_while_serving(command):
    with command.serving() as (up, _):
        started = command.state.running()
        command.recorded("node0").signal(signal.SIGKILL)
        said = up.stdout.readline()
        assert said.startswith("node0 ended by SIGKILL (log: ") and "the rest goes on" in said
        command.recorded("router").signal(signal.SIGKILL)
        said = up.stdout.read()
        assert said.startswith("started\n")
        assert "local.sh: the router ended by SIGKILL" in said
        assert up.wait(PATIENCE) == 1
    assert nothing_is_left(command, started)


def test_one_that_dies_while_starting(command):
    flags = "--exit 7 --say 'the weights are damaged'"
    failed = command.run("up", code=1, FAKE_HEALTH="hang", FAKE_EXPERT=flags)
    assert failed.stderr.startswith("the weights are damaged\n")
    # Whichever was first.
    said = r"^local.sh: node[01] ended with exit status 7 while starting"
    assert re.search(said, failed.stderr, re.MULTILINE)
    assert not command.state.running() and command.state.mesh() is None


def test_a_mesh_that_does_not_become_ready(command):
    failed = command.run("up", code=1, FAKE_HEALTH="1")
    assert failed.stderr.startswith("health --router")
    assert "local.sh: the mesh was not ready after 600 s" in failed.stderr
    assert not command.state.running() and command.state.mesh() is None


def test_the_wait_has_a_deadline_whatever_the_probe_does(command, monkeypatch):
    monkeypatch.setenv("FAKE_HEALTH", "hang")
    clock = FakeClock()
    options = local_mesh.Options(command.build, str(command.model), "f32", "x", 2, 1, PORT, False)
    command.state.prepare()
    mesh = local_mesh.LocalMesh(options, command.state, clock)
    try:
        mesh.start()
        with pytest.raises(local_mesh.Failure, match="not ready after 600 s"):
            mesh.wait_healthy()
        assert 600 <= clock.time < 620
    finally:
        mesh.stop()


def test_batches_where_no_text_can_be_written(command):
    said = command.run("up", "--detach", FAKE_GENERATE="3").stdout
    assert "No text of this model" in said and "\ndemo --router" in said
    assert "Try next" not in said
    command.run("down")
    (command.model / "tokenizer.json").unlink()
    said = command.run("up", "--detach", FAKE_GENERATE="1").stdout
    assert "generate" not in said and "\ndemo --router" in said
    command.run("down")


def test_a_main_job_that_fails(command):
    failed = command.run("up", "--detach", code=1, FAKE_GENERATE="1")
    assert "local.sh: the main job failed (logs: " in failed.stderr
    assert not command.state.running() and command.state.mesh() is None


def test_a_state_that_a_killed_mesh_left(command):
    command.run("up", "--detach")
    for each in command.state.running():
        each.signal(signal.SIGKILL)
        assert poll_until(lambda each=each: not each.running(), PATIENCE)
    command.state.announce_stop()
    # No mesh, but files that speak of one.
    assert command.state.mesh() is not None
    assert "Nothing is running" in command.run("status", code=3).stdout
    command.run("up", "--detach")
    assert len(command.state.running()) == len(command.state.recorded()) == 3
    for each in command.state.running():
        each.signal(signal.SIGKILL)
        assert poll_until(lambda each=each: not each.running(), PATIENCE)
    assert "Nothing is running" in command.run("down").stdout
    assert not command.state.recorded() and command.state.mesh() is None


def test_a_reader_that_goes_away(command):
    with command.serving(after="Starting", FAKE_HEALTH="hang") as (up, _):
        assert poll_until((command.state.logs / "health.log").exists, PATIENCE)
        started = command.state.running()
        up.stdout.close()
        # What it would print now has no reader.
        up.send_signal(signal.SIGINT)
        assert up.wait(PATIENCE) == 128 + signal.SIGPIPE
    assert nothing_is_left(command, started)


def test_down_kills_what_does_not_end(command, monkeypatch, capsys):
    command.run("up", "--detach", FAKE_EXPERT="--ignore-term")
    started = command.state.running()
    monkeypatch.setattr(local_mesh, "GRACE_SECONDS", 0.1)
    assert local_mesh.down(command.state.folder) == 0
    assert "Stopped the mesh" in capsys.readouterr().out
    assert nothing_is_left(command, started)


def test_programs_must_have_been_built(command):
    for path in command.build.rglob("expertmesh-expert"):
        path.chmod(0o644)
    failed = command.run("up", code=1)
    assert f"no program expertmesh-expert in {command.build}" in failed.stderr
    assert not command.state.recorded()


# --- Before the build --------------------------------------------------------------------------------


@pytest.fixture(name="lock")
def open_lock(command):
    command.state.prepare()
    with open(command.state.lock_file, "ab") as lock:
        yield lock.fileno()


def test_claim_takes_the_lock_for_its_caller(command, lock, monkeypatch):
    monkeypatch.setattr(local_mesh, "_refuse_ports_in_use", lambda base, nodes: None)
    folder = command.state.folder
    assert local_mesh.claim(folder, PORT, 2, lock) == 0
    with open(command.state.lock_file, "ab") as other:
        with pytest.raises(local_mesh.Failure, match="another deploy/local.sh up is at work"):
            local_mesh.claim(folder, PORT, 2, other.fileno(), lock_seconds=0)
    # `down` has nothing to stop yet, and says who is at work.
    with pytest.raises(local_mesh.Failure, match="another deploy/local.sh up is at work"):
        local_mesh.down(folder)


def test_claim_refuses_a_mesh_that_runs(command, lock):
    command.run("up", "--detach")
    failed = command.run("claim", "--lock-fd", lock, pass_fds=[lock], code=1)
    assert "a mesh is running in " in failed.stderr and "deploy/local.sh down" in failed.stderr
    command.run("down")


@pytest.mark.parametrize("offset", [0, 2, 100, 102])
def test_claim_refuses_ports_in_use(command, lock, offset):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(local_mesh.Failure, match=r"port \d+ of 127.0.0.1 is in use"):
            local_mesh.claim(command.state.folder, port - offset, 2, lock)
