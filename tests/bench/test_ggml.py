"""The comparison with ggml's RPC backend: without the network it says so, and with it figures are there.

What needs the peer itself is skipped unless EXPERTMESH_BENCH_GGML is the program that ggml/build.sh made.
"""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import plan  # pylint: disable=wrong-import-position
import systems  # pylint: disable=wrong-import-position
import targets  # pylint: disable=wrong-import-position

SHAPE = plan.shapes()["tiny"]


def measured(system, speeds):
    runs = [{"tokens_per_second": speed} for speed in speeds]
    return {"shape": "qwen3", "cell": "t512", "system": system, "runs": runs}


def test_without_the_network_it_says_so(tmp_path):
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:1",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = subprocess.run(
        [HERE / "ggml" / "build.sh", sys.executable, tmp_path],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not done.stdout
    assert "--ggml needs llama-cpp-python==" in done.stderr
    assert "the package index could not be reached" in done.stderr


def test_only_who_asks_measures_it():
    def names(*peers):
        (group,) = [each for each in plan.groups(["qwen3"], *peers) if each.baselines]
        return [cell.name for cell, systems_of in group.work if "ggml_rpc" in systems_of]

    assert not names()
    assert names(plan.PEERS) == ["t1", "t8", "t64", "t512"]


def test_target_is_the_median_ratio_of_rounds():
    mesh = measured("mesh2", [300, 800, 500])
    (target,) = targets.targets_of_peers(
        {"measurements": [mesh, measured("ggml_rpc", [100, 200, 100])]}
    )
    assert (target["figure"], target["target"], target["met"]) == (4, 2.5, True)
    assert not targets.targets_of_peers({"measurements": [mesh]})


@pytest.mark.skipif("EXPERTMESH_BENCH_GGML" not in os.environ, reason="no EXPERTMESH_BENCH_GGML")
def test_it_is_measured_like_the_others(tmp_path):
    peer = systems.GgmlRpc(SHAPE, tmp_path)
    try:
        result = peer.measure(plan.Cell(8), 0.2, 0, (0, 0, 0, 0))
        memory = peer.memory()
    finally:
        peer.close()
    assert result["requests"] == len(result["latencies_us"]) > 0
    assert result["tokens_per_second"] > 0 and result["cpu_seconds"] > 0
    # float32 rows there and back, an id and a weight for each assignment.
    assert result["bytes_per_token"] == 2 * 4 * SHAPE.d_model + 8 * SHAPE.top_k
    assert min(memory.values()) > 1 << 20
    # It loads nothing unless a small layer came out as it does in plain double.
    assert (tmp_path / "ggml_rpc.log").read_text().count("against plain double") == 3
