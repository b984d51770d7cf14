"""What client/stubs/generate.sh promises, whatever the language, and that the golden vectors are what their
generators make."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import json_format

import internal_proto
from arrays import assert_rows_close, assert_same_bits
from expertmesh.v1 import router_pb2
from mesh import PATIENCE, Mesh, shards

ROOT = pathlib.Path(__file__).parents[2]
FORWARD = ROOT / "tests" / "golden" / "forward"
WIRE = ROOT / "tests" / "golden" / "wire"
GENERATE = pathlib.Path("client") / "stubs" / "generate.sh"
EXAMPLE = ROOT / "client" / "stubs" / "example.sh"

sys.path += [str(FORWARD), str(WIRE)]
import make_forward_golden  # noqa: E402
import make_wire_golden as wire  # noqa: E402


def run(*argv, **options):
    argv = [str(argument) for argument in argv]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, **options)


def test_messages_are_what_their_generator_makes():
    for file, messages in (
        ("messages.txt", wire.MESSAGES),
        ("internal_messages.txt", wire.INTERNAL_MESSAGES),
    ):
        kept = (WIRE / file).read_text(encoding="utf-8").splitlines(keepends=True)
        made = "".join(wire.lines(messages)).splitlines(keepends=True)
        for number, (line, wanted) in enumerate(zip(made, kept), 1):
            assert line == wanted, f"{file}, line {number}"
        assert len(made) == len(kept)


@pytest.mark.parametrize("name, direction, data, content", wire.INTERNAL_MESSAGES)
def test_internal_messages_have_the_bytes_of_the_contract(name, direction, data, content):
    """Clients have no stubs of these; those of the public contract are checked by the stubs' programs."""
    kind = internal_proto.message(name)
    wanted = json_format.ParseDict(content, kind())
    assert direction == "both" and wanted.SerializeToString() == data
    assert kind.FromString(data) == wanted


def test_forward_vectors_are_what_their_generator_makes(tmp_path):
    make_forward_golden.main(tmp_path)
    for kept in FORWARD.glob("*.f32"):
        old, new = np.fromfile(kept, "<f4"), np.fromfile(tmp_path / kept.name, "<f4")
        assert old.shape == new.shape
        if kept.name == "hidden_states.f32":
            assert_same_bits(new, old, kept.name)
        else:
            # Summed by another numpy, perhaps.
            assert_rows_close(new.reshape(5, -1), old.reshape(5, -1), 1e-6, kept.name)


def test_the_router_takes_and_gives_the_bytes_of_the_contract(tmp_path):
    """No generated code on the way in: the router parses what was put together by hand, in any order."""
    make_forward_golden.make_checkpoint(tmp_path / "checkpoint")
    x = np.fromfile(FORWARD / "hidden_states.f32", "<f4").reshape(-1, 32)
    data = wire.blob(1000, x.tobytes())
    shape = wire.numbers(2, x.shape)
    dtype = wire.number(1, wire.F32)
    in_order = wire.number(2, 1) + wire.number(6, 1) + wire.blob(1000, dtype + shape + data)
    shuffled = (
        wire.blob(1000, data + shape + dtype)
        + wire.blob(15, b"of a later version")
        + wire.number(6, 1)
        + wire.number(2, 1)
    )
    with Mesh(tmp_path) as mesh:
        mesh.start(tmp_path / "checkpoint", shards(2))
        call = mesh.client.channel.unary_unary("/expertmesh.v1.Router/Forward")
        answers = [call(request, timeout=PATIENCE) for request in (in_order, shuffled)]
    expected = np.fromfile(FORWARD / "output.f32", "<f4").reshape(x.shape)
    for answer in answers:
        parsed = router_pb2.ForwardResponse.FromString(answer)
        # The router writes tensors with code of its own: the bytes are those of generated code.
        assert_same_bits(answer, parsed.SerializeToString(deterministic=True))
        output = np.frombuffer(parsed.output.data, "<f4").reshape(parsed.output.shape)
        assert_rows_close(output, expected, 1e-5)


@pytest.fixture
def tree(tmp_path):
    """A copy of what generate.sh reads."""
    copied = tmp_path / "tree"
    for folder in ("client/stubs", "proto"):
        shutil.copytree(ROOT / folder, copied / folder)
    (copied / "client/python").mkdir()
    shutil.copy(ROOT / "client/python/pyproject.toml", copied / "client/python")
    return copied


def test_stubs_follow_the_contract(tree):
    header = tree / "out/cpp/expertmesh/v1/tensor.pb.h"
    generate = [tree / GENERATE, "--language", "cpp", tree / "out"]
    first = run(*generate)
    assert first.returncode == 0 and "cpp" in first.stdout, first.stderr
    assert "set_of_a_test" not in header.read_text()
    again = run(*generate)
    assert (again.returncode, again.stdout) == (0, "")

    proto = tree / "proto/expertmesh/v1/tensor.proto"
    text = proto.read_text()
    assert "message Tensor {" in text
    proto.write_text(text.replace("message Tensor {", "message Tensor {\n  bool of_a_test = 99;"))
    assert run(*generate).returncode == 0
    assert "set_of_a_test" in header.read_text()

    # A contract that does not compile is told, and is not taken for done the next time.
    proto.write_text("nonsense")
    for _ in range(2):
        failed = run(*generate)
        assert failed.returncode == 1
        assert "nonsense" in failed.stderr or "tensor.proto" in failed.stderr
    proto.write_text(text)
    assert run(*generate).returncode == 0
    assert "set_of_a_test" not in header.read_text()


def path_without(folder, *hidden):
    """A PATH with all programs of this machine but some."""
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in pathlib.Path(place).glob("*"):
            link = folder / program.name
            if program.name not in hidden:
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(folder)


def test_only_the_public_contract_is_generated(tree):
    assert run(tree / GENERATE, "--language", "cpp", tree / "out").returncode == 0
    made = {path.name.split(".")[0] for path in (tree / "out/cpp").rglob("*.pb.h")}
    assert made == {path.stem for path in (ROOT / "proto/expertmesh/v1").glob("*.proto")}


def test_another_plugin_makes_it_again(tree, tmp_path):
    """Debian's plugin says no version, so what counts is its bytes."""
    plugin = tmp_path / "grpc_cpp_plugin"
    env = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for release in (1, 2):
        plugin.write_text(f'#!/bin/sh\n# {release}\nexec {shutil.which(plugin.name)} "$@"\n')
        plugin.chmod(0o755)
        for made in (True, False):
            done = run(tree / GENERATE, "--language", "cpp", tree / "out", env=env)
            assert done.returncode == 0, done.stderr
            assert ("cpp: " in done.stdout) == made


def test_a_missing_toolchain_is_named(tree, tmp_path):
    without = os.environ | {"PATH": path_without(tmp_path / "bin", "go", "protoc-gen-go", "ninja")}
    languages = ["--language", "go", "--language", "cpp"]
    done = run(tree / GENERATE, *languages, tree / "out", env=without)
    assert done.returncode == 3
    assert "go: the toolchain is missing: no go on PATH" in done.stderr
    assert "deploy/packages.sh install --stubs" in done.stderr
    # The other language is there all the same.
    assert (tree / "out/cpp/expertmesh/v1/router.grpc.pb.h").exists()
    assert not (tree / "out/go").exists()

    done = run(EXAMPLE, "cpp", tree / "out", "none", env=without)
    assert done.returncode == 3
    assert "cpp: the toolchain is missing: no ninja on PATH" in done.stderr


@pytest.mark.parametrize(
    "language, tool, said, told",
    [
        ("node", "protoc", "libprotoc 3.12.4", "protoc is 3.12.4, 3.15 or later is needed"),
        ("connect", "node", "v18.20.0", "node is 18.20.0, 20 or later is needed"),
        ("go", "go", "go version go1.19.8 linux/amd64", "go is 1.19.8, 1.24 or later is needed"),
        ("rust", "cargo", "cargo 1.63.0", "cargo is 1.63.0, 1.88 or later is needed"),
        ("java", "mvn", "\033[1mApache Maven 3.6.3\033[m", "mvn is 3.6.3, 3.8 or later is needed"),
    ],
)
def test_a_toolchain_that_is_too_old_is_told_in_one_line(
    tree, tmp_path, language, tool, said, told
):
    words = {
        "protoc": "libprotoc 3.21.12",
        "node": "v20.0.0",
        "npm": "10.0.0",
        "go": "go version go1.24.0 linux/amd64",
        "cargo": "cargo 1.88.0",
        "javac": "javac 17.0.1",
        "mvn": "Apache Maven 3.8.7",
    }
    (tmp_path / "bin").mkdir()
    for name, version in (words | {tool: said}).items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho '{version}'\n")
        program.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"}
    done = run(tree / GENERATE, "--language", language, tree / "out", env=env)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert f"{language}: the toolchain is missing: {told}" in line
    assert not (tree / "out" / language).exists()


@pytest.mark.skipif(not shutil.which("go"), reason="needs Go")
def test_plugins_of_the_system_are_taken_only_when_asked_for(tree, tmp_path):
    without = path_without(tmp_path / "bin", "protoc-gen-go", "protoc-gen-go-grpc")
    env = os.environ | {"PATH": without}
    done = run(tree / GENERATE, "--language", "go", "--system-plugins", tree / "out", env=env)
    assert done.returncode == 3
    assert "go: the toolchain is missing: no protoc-gen-go protoc-gen-go-grpc" in done.stderr

    python = tmp_path / "bin" / "python3"
    python.unlink()
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.11.2\n')
    python.chmod(0o755)
    done = run(tree / GENERATE, "--language", "python", "--system-plugins", tree / "out", env=env)
    assert done.returncode == 3
    assert "python: the toolchain is missing: python3 has no grpc_tools" in done.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "OUTPUT_DIR is missing"),
        (["--language"], "--language needs a value"),
        (
            ["--language", "cobol", "out"],
            "--language is cobol; known: cpp python go node connect java rust",
        ),
        (["--fast", "out"], "unknown flag --fast"),
        (["one", "two"], "more than one OUTPUT_DIR: one and two"),
    ],
)
def test_bad_usage_of_generate(arguments, told, tmp_path):
    done = run(ROOT / GENERATE, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr and "generate.sh [--language LANGUAGE]" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["cpp", "out"], "PROGRAM is missing"),
        (["cobol", "out", "wire"], "LANGUAGE is cobol"),
        (["cpp", "out", "run"], "PROGRAM is run"),
        (["cpp", "out", "wire"], "run client/stubs/generate.sh --language cpp out"),
    ],
)
def test_bad_usage_of_example(arguments, told, tmp_path):
    done = run(EXAMPLE, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr and "example.sh LANGUAGE STUBS_DIR PROGRAM" in done.stderr
