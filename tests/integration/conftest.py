"""Fixtures of the suites: checkpoints made once, and a mesh that is always cleaned up."""

import pytest

from checkpoint import make_checkpoint
from mesh import Mesh


@pytest.fixture
def mesh(tmp_path):
    with Mesh(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """checkpoints(family, dtype="F32", ...): a checkpoint, made on first use."""
    made = {}

    def get(family="qwen3_moe", **options):
        key = (family, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / family
            made[key] = make_checkpoint(folder, family, **options)
        return made[key]

    return get


@pytest.fixture(scope="session")
def checkpoint(checkpoints):
    return checkpoints("qwen3_moe")
