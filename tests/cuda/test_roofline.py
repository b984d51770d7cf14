"""The roofline on paper: the README has what the script prints, and the model is right where it can be known."""

import math
import pathlib
import subprocess
import sys

import pytest

import roofline

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "common/experts/cuda/README.md"
QWEN, MIXTRAL, DEEPSEEK = roofline.SHAPES
H100, H200 = roofline.GPUS


def test_the_readme_has_what_the_script_prints():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/cuda/roofline.py"], capture_output=True, text=True, check=True
    )
    text = README.read_text(encoding="utf-8")
    for table in done.stdout.strip().split("\n\n"):
        assert table in text, f"{README} lacks this, of tests/cuda/roofline.py:\n{table}"


def test_one_token_hits_its_experts_and_reads_their_weights_once():
    assert roofline.experts_hit(QWEN, 1) == pytest.approx(8)
    work = roofline.stages(QWEN, 1)
    weights = 8 * 3 * 2048 * 768 * 2
    assert sum(stage.memory_bytes for stage in work) == pytest.approx(weights, rel=0.01)
    assert sum(stage.flops for stage in work) == pytest.approx(weights)  # Two FLOPs for two bytes.


@pytest.mark.parametrize("shape", roofline.SHAPES)
@pytest.mark.parametrize("tokens", roofline.TOKENS)
def test_probabilities_and_assignments_add_up(shape, tokens):
    rows = roofline.rows_of_an_expert(shape, tokens)
    assert math.fsum(rows) == pytest.approx(1)
    assert sum(n * p for n, p in enumerate(rows)) * shape.experts == pytest.approx(tokens * shape.top_k)
    assert roofline.experts_hit(shape, tokens) <= min(shape.experts, tokens * shape.top_k) + 1e-6


@pytest.mark.parametrize("gpu", roofline.GPUS)
@pytest.mark.parametrize("shape", roofline.SHAPES)
@pytest.mark.parametrize("tokens", roofline.TOKENS)
def test_nothing_is_quicker_than_the_device(shape, tokens, gpu):
    found = roofline.predict(shape, tokens, gpu)
    assert found.memory_share <= roofline.MEMORY_SHARE and found.flops_share <= roofline.MMA_SHARE
    assert found.us >= roofline.launches(shape, tokens) * roofline.LAUNCH_US
    for stage in roofline.stages(shape, tokens):
        assert stage.executed_flops >= stage.flops


def test_few_and_many_rows_of_an_expert_have_launches_of_their_own():
    assert roofline.launches(QWEN, 1) == 3  # Few alone.
    assert roofline.launches(QWEN, 512) == 3  # Many alone.
    assert roofline.launches(QWEN, 64) == 5


def test_enough_is_on_its_way_to_keep_memory_busy():
    """Else the share of the memory's speed that is reckoned with could not be reached."""
    for line in roofline.kernels().splitlines()[2:]:
        on_its_way, *needed = (int(cell) for cell in line.split("|")[6:-1])
        assert all(on_its_way >= each for each in needed), line


def test_the_aim_for_fine_grained_experts():
    """More than half of what the device can, wherever there is more than a token."""
    for shape in (QWEN, DEEPSEEK):
        for gpu in roofline.GPUS:
            assert all(roofline.predict(shape, tokens, gpu).roof_share > 0.5 for tokens in roofline.TOKENS)
