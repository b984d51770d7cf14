"""deploy/local.sh, the whole way: it builds (nothing, when the tests run), starts, serves and cleans up."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest

import expertmesh
import reference
from arrays import assert_rows_close
from checkpoint import make_checkpoint
from mesh import HOST, PATIENCE, hidden_states, wait_until

ROOT = pathlib.Path(__file__).parents[2]
LOCAL = ROOT / "deploy" / "local.sh"
# A bound on one run, on a machine on which everything is built.
SECONDS = 4 * PATIENCE


def free_base(nodes=4):
    """A BASE for --port: all ports that follow from it are free."""
    for base in range(21000, 32000, 250):
        try:
            for port in [*range(base, base + nodes + 1), *range(base + 100, base + 101 + nodes)]:
                socket.create_server((HOST, port)).close()
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def local(*arguments, code=0, cwd="/"):
    done = subprocess.run(
        [LOCAL, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def processes_of(base):
    """Pids of services whose command line names one of the ports that follow from `base`."""
    addresses = {f"{HOST}:{base + i}".encode() for i in range(6)}
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # A zombie has an empty one.
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"expertmesh-" in command[0] and addresses & set(command):
            found.append(int(entry.name))
    return found


@pytest.fixture
def base():
    chosen = free_base()
    yield chosen
    left = processes_of(chosen)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state"
    yield path
    if path.exists():
        local("down", "--state", path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("local") / "model")


def test_life_of_a_detached_mesh(base, state, tmp_path):
    # Without --model: the demo model, which writes on from the prompt.
    start = ["up", "--detach", "--port", base, "--state", "state", "--nodes", 3]
    up = local(*start, "--prompt", "And Moses ", cwd=tmp_path)
    assert re.search(r"^And Moses [\w,;:.' ]{40}", up.stdout, re.MULTILINE), up.stdout
    for word in ("tokens/s", "attention", "p50", "MaxVio", "█", "Python", "C++", "grpcurl"):
        assert word in up.stdout
    for word in ("--prompt", "--chat", "kill -9", f"{HOST}:{base}"):
        assert word in up.stdout
    assert "\x1b" not in up.stdout
    mesh = json.loads((state / "mesh.json").read_text())
    assert mesh["router"] == f"{HOST}:{base}"
    assert mesh["nodes"] == [f"{HOST}:{base + i}" for i in (1, 2, 3)]
    assert mesh["metrics"] == f"{HOST}:{base + 100}"
    assert (pathlib.Path(mesh["model"]) / "config.json").exists()
    assert len(processes_of(base)) == 4
    with expertmesh.Client(mesh["router"]) as client:
        model = client.describe()
        assert (model.family, model.d_model, len(model.layers)) == ("deepseek_v3", 128, 4)
        assert client.forward(1, hidden_states(3, 128)).output.shape == (3, 128)

        status = local("status", "--state", state)
        for node in mesh["nodes"]:
            assert node in status.stdout

        # A second start, on the same state or on the same ports, leaves the first alone.
        again = local("up", "--detach", "--port", base, "--state", state, code=1)
        assert "running" in again.stderr and "down" in again.stderr
        other = local("up", "--detach", "--port", base, "--state", tmp_path / "other", code=1)
        assert f"port {base} " in other.stderr and "in use" in other.stderr
        assert client.forward(1, hidden_states(3, 128)).output.shape == (3, 128)
        # What it says to try: the experts of a node that is killed have a replica.
        os.kill(int(re.search(r"kill -9 (\d+)", up.stdout)[1]), signal.SIGKILL)
        assert client.forward(1, hidden_states(3, 128)).output.shape == (3, 128)

    local("down", "--state", state)
    assert processes_of(base) == []
    assert not (state / "mesh.json").exists()
    assert "Nothing" in local("down", "--state", state).stdout
    assert "Nothing" in local("status", "--state", state, code=3).stdout


def test_serves_until_interrupted(base, state, model):
    with subprocess.Popen(
        [LOCAL, "--model", model.path, "--port", str(base), "--state", state, "--nodes", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        # A model without a tokenizer.
        said = ""
        for line in running.stdout:
            said += line
            if line.startswith("Serving"):
                break
        else:
            raise AssertionError(said)
        assert "tokens checked against the reference" in said
        with expertmesh.Client(f"{HOST}:{base}") as client:
            x = hidden_states(4, model.d_model)
            expected, _ = reference.forward(model, 1, x)
            output = client.forward(1, x).output
            assert_rows_close(output, expected, 1e-5)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(SECONDS) == 0
    assert processes_of(base) == []
    assert not (state / "mesh.json").exists()


def test_down_ends_a_mesh_that_serves_in_another_terminal(base, state, model):
    with subprocess.Popen(
        [LOCAL, "--model", model.path, "--port", str(base), "--state", state, "--nodes", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        wait_until(lambda: running.stdout.readline().startswith("Serving"), "serving", SECONDS)
        local("down", "--state", state)
        assert "Stopped" in running.stdout.read()
        assert running.wait(SECONDS) == 0


def test_failed_start_leaves_nothing(base, state, model, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(model.path, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    failed = local(
        "--model", damaged, "--port", base, "--state", state, "--nodes", 2, "--detach", code=1
    )
    assert "model.safetensors" in failed.stderr
    assert processes_of(base) == []
    assert not (state / "mesh.json").exists()


def test_node_that_dies_is_reported(base, state, model):
    local("--model", model.path, "--port", base, "--state", state, "--nodes", 2, "--detach")
    pids = dict(line.split()[:2] for line in (state / "pids").read_text().splitlines())
    os.kill(int(pids["node1"]), signal.SIGKILL)
    wait_until(lambda: len(processes_of(base)) == 2, "the node is gone")
    assert "node1  ended" in local("status", "--state", state, code=1).stdout
    local("down", "--state", state)


@pytest.mark.parametrize(
    "arguments,word",
    [
        (["--frobnicate"], "--frobnicate"),
        (["sideways"], "sideways"),
        (["up", "down"], "down"),
        (["--nodes"], "--nodes"),
        (["--nodes", "0"], "--nodes is 0"),
        (["--nodes", "many"], "--nodes is many"),
        (["--nodes", "2", "--replicas", "3"], "--replicas is 3"),
        (["--prompt", ""], "--prompt is empty"),
        (["--port", "80"], "--port is 80"),
        (["--port", "65500"], "--port is 65500"),
        (["--model", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_arguments(arguments, word):
    wrong = local(*arguments, code=2)
    assert word in wrong.stderr and "--detach" in wrong.stderr
