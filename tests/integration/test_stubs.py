"""The examples of client/stubs, in every language, against the same golden vectors: what their stubs write and
read, and what a real mesh answers them.

EXPERTMESH_STUBS names the languages, all by default. Built programs stay in build/stubs.
"""

import re
import shutil
import sys

import numpy as np
import pytest

import stubs
from mesh import Mesh, shards
from stubs import ROOT, example

FORWARD = ROOT / "tests" / "golden" / "forward"
MESSAGES = ROOT / "tests" / "golden" / "wire" / "messages.txt"
COLUMNS = ("unary", "stream", "watch", "health", "reflection", "big", "errors", "bits")

sys.path.append(str(FORWARD))
import make_forward_golden  # noqa: E402


@pytest.fixture(scope="session", params=stubs.LANGUAGES)
def language(request):
    """A language whose stubs are generated and whose examples are built."""
    return stubs.build(request.param)


@pytest.fixture(scope="session")
def router(tmp_path_factory):
    """Address of a router that serves the checkpoint of the golden vectors from two nodes."""
    folder = tmp_path_factory.mktemp("golden")
    make_forward_golden.make_checkpoint(folder / "checkpoint")
    with Mesh(folder) as mesh:
        # 60 MB of so narrow a model are 468,750 tokens in one request.
        nodes = shards(2, "--max-queue-rows", "1000000")
        mesh.start(folder / "checkpoint", nodes, "--max-tokens-in-flight", "1000000")
        yield mesh.router.address


def copy_of_golden(folder, name, change):
    """The golden folder with one file changed: change(values) edits it in place."""
    copied = folder / "golden"
    shutil.copytree(FORWARD, copied, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    values = np.fromfile(FORWARD / name, "<f4")
    changed = change(values)
    (values if changed is None else changed).astype("<f4").tofile(copied / name)
    return copied


def test_golden_messages_byte_for_byte(language):
    count = len(MESSAGES.read_text().splitlines())
    done = example(language, "wire", MESSAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} messages, 0 wrong" in done.stdout


# One is right.
DOUBTFUL = """\
Tensor both 080212020008 {"dtype":"DTYPE_BF16","shape":["0","8"]}
Tensor both 080212020009 {"dtype":"DTYPE_BF16","shape":["0","8"]}
DrainNodeRequest both 0a01611801 {"address":"a","resume":true}
DrainNodeRequest read 0a0161 {"address":"b"}
ForwardRequest both - {"timeoutUs":"0"}
"""


def test_wrong_bytes_are_told(language, tmp_path):
    (tmp_path / "messages.txt").write_text(DOUBTFUL)
    done = example(language, "wire", tmp_path / "messages.txt")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 messages, 4 wrong" in done.stdout
    for name in ("Tensor", "DrainNodeRequest", "ForwardRequest"):
        assert f"{name}: " in done.stdout


CASE = r"DTYPE_(\w+) to DTYPE_(\w+): error (\S+) at token (\d+), at most (\S+): (.*)"


def cases(done):
    """[(types, error, token, tolerance, verdict)] that a run of `forward` printed."""
    return [
        (match[1] + " " + match[2], float(match[3]), int(match[4]), float(match[5]), match[6])
        for match in re.finditer(CASE, done.stdout)
    ]


def test_forward_equals_the_golden_output(language, router):
    done = example(language, "forward", router, FORWARD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{router}: deepseek_v3, d_model 32, first MoE layer 1" in done.stdout
    said = cases(done)
    assert [(case[0], case[3]) for case in said] == [
        ("F32 F32", 1e-5),
        ("BF16 F32", 1e-5),
        ("BF16 BF16", 1e-2),
    ]
    for types, error, _, tolerance, verdict in said:
        # Another order of sums, or a rounding of the answer to bf16, never leaves it equal.
        assert 0 < error <= tolerance and verdict == "ok", types


@pytest.mark.parametrize("value", [1.001, np.nan], ids=["scaled", "nan"])
def test_forward_tells_a_wrong_answer(language, router, tmp_path, value):
    def change(values):
        row = values.reshape(-1, 32)[3]
        row[np.argmax(np.abs(row))] *= value

    done = example(language, "forward", router, copy_of_golden(tmp_path, "output.f32", change))
    assert done.returncode == 1, done.stdout + done.stderr
    first, *others = cases(done)
    assert first[0] == "F32 F32" and first[2] == 3 and first[4] == "TOO LARGE"
    assert not first[1] <= first[3]
    assert [case[4] for case in others] == ["ok", "ok"]


def test_forward_tells_what_the_router_refused(language, router, tmp_path):
    golden = copy_of_golden(tmp_path, "hidden_states.f32", lambda values: values[:33])
    done = example(language, "forward", router, golden)
    assert done.returncode == 1, done.stdout
    assert "hidden_states" in done.stderr
    assert cases(done) == []


def test_forward_tells_another_model(language, router, tmp_path):
    golden = copy_of_golden(tmp_path, "output.f32", lambda values: values[:32])
    done = example(language, "forward", router, golden)
    assert done.returncode == 1, done.stdout
    assert "does the router serve the golden checkpoint?" in done.stderr


def test_forward_without_a_router(language):
    done = example(language, "forward", "127.0.0.1:1", FORWARD)
    assert done.returncode == 1, done.stdout
    assert done.stderr.strip()


def test_the_check_of_all_columns(language, router):
    done = example(language, "check", router, FORWARD)
    assert done.stdout.splitlines() == [f"{column} yes" for column in COLUMNS], done.stderr
    assert done.returncode == 0


def test_the_check_tells_a_wrong_answer(language, router, tmp_path):
    golden = copy_of_golden(tmp_path, "output.f32", lambda values: values * 1.001)
    done = example(language, "check", router, golden)
    assert done.returncode == 1, done.stdout + done.stderr
    # Those that compare outputs.
    wrong = {"stream", "big", "bits"}
    for column, line in zip(COLUMNS, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{column} no: " if column in wrong else f"{column} yes"), line


def test_quickstart(language, router):
    done = example(language, "quickstart", router)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "128 bytes" in done.stdout
    done = example(language, "quickstart", "127.0.0.1:1")
    assert done.returncode != 0, done.stdout


def test_quickstart_tells_the_reason(language, tmp_path):
    """The one error that it knows by its reason: half of the experts have no node."""
    make_forward_golden.make_checkpoint(tmp_path / "checkpoint")
    with Mesh(tmp_path) as mesh:
        mesh.start_nodes(tmp_path / "checkpoint", shards(2)[:1])
        mesh.start_router(tmp_path / "checkpoint")
        done = example(language, "quickstart", mesh.router.address)
    assert done.returncode != 0, done.stdout
    assert "no node holds experts" in done.stdout + done.stderr


def test_bad_usage(language):
    for program in ("forward", "wire", "check"):
        done = example(language, program)
        assert done.returncode == 2
        assert "usage: " in done.stderr
