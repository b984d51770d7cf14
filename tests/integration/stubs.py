"""Stubs and examples of client/stubs, generated and built once in build/stubs."""

import os
import pathlib
import subprocess

import pytest

from mesh import PATIENCE

ROOT = pathlib.Path(__file__).parents[2]
STUBS = ROOT / "build" / "stubs"
LANGUAGES = os.environ.get("EXPERTMESH_STUBS", "cpp python go node connect java rust").split()
# Without their toolchains a test fails; those of the other languages may be missing.
REQUIRED = ("cpp", "python", "node")
# A bound on installing from registries and compiling.
BUILD_SECONDS = 8 * PATIENCE


def run(*argv, seconds=PATIENCE, **options):
    argv = [str(argument) for argument in argv]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds, check=False, **options
    )


def example(language, *arguments):
    return run(ROOT / "client/stubs/example.sh", language, STUBS, *arguments)


def build(language):
    """Generates the stubs of a language and builds its examples; skips where it cannot be."""
    for argv in (
        [ROOT / "client/stubs/generate.sh", "--language", language, STUBS],
        [ROOT / "client/stubs/example.sh", language, STUBS, "none"],
    ):
        done = run(*argv, seconds=BUILD_SECONDS)
        if done.returncode == 3 and language not in REQUIRED:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
    return language
