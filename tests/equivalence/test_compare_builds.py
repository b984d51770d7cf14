"""compare_builds.py on the real programs: a build equals itself, and one that rounds elsewhere does not."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parent / "compare_builds.py"
sys.path.insert(0, str(SCRIPT.parents[1] / "integration"))

from mesh import program  # pylint: disable=wrong-import-position

PLACES = {"router": "router_service/expertmesh-router", "expert": "expert_service/expertmesh-expert"}


def make_build(folder, **flags):
    """A build folder whose programs are this build's with further flags."""
    for name, place in PLACES.items():
        path = folder / place
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/sh\nexec "{program(name)}" "$@" {flags.get(name, "")}\n')
        path.chmod(0o755)
    return folder


def compare(old, new, *flags):
    command = [sys.executable, SCRIPT, "--old", old, "--new", new, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.fixture(name="build")
def plain_build(tmp_path):
    return make_build(tmp_path / "plain")


def test_a_build_equals_itself(build):
    done = compare(
        build, build, "--models", "^(qwen2_moe|switch_transformers) (f32|bf16)$", "--self-check"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Two models in two types, on seven layouts, with --strict and without.
    assert "56 cells" in done.stdout and "0 different" in done.stdout
    assert "flipped bits: 56, found in their place: 56" in done.stdout
    assert "killed while requests were under way: 8 times each" in done.stdout


def test_other_bits_are_found(build, tmp_path):
    other = make_build(tmp_path / "other", router="--wire-partials=bf16")
    done = compare(build, other, "--models", "^qwen3_moe f32$", "--layouts", "^two nodes$")
    assert done.returncode == 1, done.stdout + done.stderr
    for kind in ("plain", "strict"):
        text = f"different: qwen3_moe f32, two nodes, {kind}, unary, request 1000 (layer 0, 1 tokens): output: row 0"
        assert text in done.stdout, done.stdout


def test_a_program_that_does_not_start_is_told(build, tmp_path):
    other = make_build(tmp_path / "other", expert="--no-such-flag")
    done = compare(build, other, "--models", "^qwen3_moe f32$", "--layouts", "^one node$")
    assert done.returncode == 1
    assert "different: qwen3_moe f32, one node: " in done.stdout and "no-such-flag" in done.stdout


def test_a_missing_build_is_named(build, tmp_path):
    done = compare(build, tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path} has neither" in done.stderr
