"""The planner's comparison with others: its figures, its file, and that it says what it misses.

The rivals themselves are not run here: they need the package index, and the torch that
`deploy/venv.sh --with-transformers` adds to build/venv/bin/python.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent / "eplb"
sys.path.insert(0, str(HERE))

import compare  # pylint: disable=wrong-import-position
import loads  # pylint: disable=wrong-import-position
import rival  # pylint: disable=wrong-import-position

FOUR = loads.Problem([[6.0, 2.0, 1.0, 1.0]], nodes=2, slots=3)
# Node 0 does 5 of 6 and 1, node 1 the rest.
LEVEL = [[[0, 0, 5 / 6], [0, 1, 1 / 6], [1, 1, 1.0], [2, 1, 1.0], [3, 0, 1.0]]]


def test_figures_of_a_plan():
    found = loads.figures(FOUR, LEVEL)
    assert found.mean == found.worst == pytest.approx(6 / 5)
    assert (found.copies, found.beside) == (5, 0)
    # Both halves of expert 0 on node 0.
    beside = [[[0, 0, 0.5], [0, 0, 0.5], [1, 1, 1.0], [2, 1, 1.0], [3, 1, 1.0]]]
    found = loads.figures(FOUR, beside)
    assert found.worst == pytest.approx(6 / 5) and found.beside == 1


def test_worst_layer_and_mean_differ():
    two = loads.Problem([[1.0, 1.0], [3.0, 1.0]], nodes=2, slots=1)
    found = loads.figures(two, [[[0, 0, 1.0], [1, 1, 1.0]]] * 2)
    assert (found.mean, found.worst) == (1.25, 1.5)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([[0, 0, 0.5], [1, 1, 1.0], [2, 1, 1.0], [3, 0, 1.0]], "do not add up"),
        ([[0, 0, 1.0], [1, 0, 1.0], [2, 0, 1.0], [3, 0, 1.0]], "a node has 4 copies"),
    ],
)
def test_what_is_no_plan_has_no_figures(wrong, why):
    with pytest.raises(ValueError, match=why):
        loads.figures(FOUR, [wrong])


def test_slots_of_rivals_share_evenly():
    assert rival.copies_of([2, 0, 2, 1], 2) == [[2, 0, 0.5], [0, 0, 1.0], [2, 1, 0.5], [1, 1, 1.0]]


def test_loads_travel_exactly(tmp_path):
    problem = loads.Problem(loads.zipf(3, 7, 1.0, 5), nodes=2, slots=4)
    loads.write(tmp_path / "loads.bin", problem)
    assert loads.read(tmp_path / "loads.bin") == problem
    assert problem.loads[0] != problem.loads[1]
    assert sorted(problem.loads[0], reverse=True) == [1 / (i + 1) for i in range(7)]
    assert loads.zipf(3, 7, 1.0, 5) == problem.loads != loads.zipf(3, 7, 1.0, 6)


def test_targets_are_ratios_of_cpu_time():
    plan = {"copies": LEVEL}
    results = {"expertmesh": (2.0, plan), "vllm": (30.0, plan), "deepseek": (400.0, plan)}
    lines, met = compare.table(FOUR, results)
    assert met and lines[2].split()[:3] == ["vllm", "30.00", "15.0"]
    assert not compare.table(FOUR, {**results, "deepseek": (399.0, plan)})[1]


def test_without_the_network_it_says_so(tmp_path):
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:1",
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    call = (
        "import compare, pathlib, sys;"
        "compare.get_rivals(sys.executable, pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call, tmp_path],
        cwd=HERE,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the package index could not be reached" in done.stderr
    assert not (tmp_path / ".complete").exists()


@pytest.fixture(name="program")
def _program():
    if "EXPERTMESH_EPLB_PLAN" not in os.environ:
        pytest.skip("no EXPERTMESH_EPLB_PLAN")
    return os.environ["EXPERTMESH_EPLB_PLAN"]


def test_our_planner_reads_and_writes_what_is_compared(program, tmp_path):
    problem = loads.Problem(loads.zipf(4, 64, 1.0, 2), nodes=8, slots=9)
    loads.write(tmp_path / "loads.bin", problem)
    done = subprocess.run(
        [program, tmp_path / "loads.bin", "3"], capture_output=True, text=True, check=True
    )
    plan = json.loads(done.stdout)
    assert len(plan["cpu_ms"]) == 3 and min(plan["cpu_ms"]) > 0
    found = loads.figures(problem, plan["copies"])
    assert found.worst <= 1.003 and found.beside == 0
    for row, bound in zip(problem.loads, plan["lower_bounds"]):
        assert bound == pytest.approx(sum(row) / 8, rel=1e-5)


def test_our_planner_refuses_files_that_are_cut(program, tmp_path):
    path = tmp_path / "loads.bin"
    loads.write(path, loads.Problem([[1.0, 2.0], [1.0, 2.0]], nodes=2, slots=1))
    whole = path.read_bytes()
    for size, what in ((7, "has no header"), (40, "ends in layer 1")):
        path.write_bytes(whole[:size])
        done = subprocess.run([program, path, "1"], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and what in done.stderr
