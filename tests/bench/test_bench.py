"""One quick run of the benchmark on tiny shapes: everything is there, and none of it absurd."""

import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import plan  # pylint: disable=wrong-import-position
import schema  # pylint: disable=wrong-import-position

SHAPE = plan.shapes()["tiny"]


@pytest.fixture(scope="module", name="made")
def run_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    files = {kind: folder / f"result.{kind}" for kind in ("json", "html")}
    command = [HERE / "run.sh", "--quick", "--shapes", "tiny"]
    for kind, path in files.items():
        command += [f"--{kind}", path]
    environment = {**os.environ, "EXPERTMESH_BENCH_PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files["said"] = done.stdout
    return files


@pytest.fixture(scope="module", name="result")
def read(made):
    return json.loads(made["json"].read_text())


def of(result, system):
    return {entry["cell"]: entry for entry in result["measurements"] if entry["system"] == system}


def test_schema(result):
    assert not schema.check(result)


def test_schema_notices_what_is_wrong(result):
    assert schema.check({**result, "runs": "five"})
    assert schema.check({key: result[key] for key in result if key != "machine"})
    assert schema.check({**result, "measurements": [{}]})


def test_everything_is_measured(result):
    assert set(plan.BASELINES) <= {entry["system"] for entry in result["measurements"]}
    wanted = {
        (cell.name, system)
        for group in plan.groups(["tiny"])
        for cell, systems in group.work
        for system in systems
    }
    assert wanted == {(entry["cell"], entry["system"]) for entry in result["measurements"]}
    assert all(target["figure"] > 0 for target in result["targets"])
    assert all(each["peak_bytes"] > 1 << 20 for each in result["memory"])
    assert all(
        each["read_bytes_per_second"] > 1e8 and each["product_flops_per_second"] > 1e8
        for each in result["ceilings"]
    )


def test_figures_are_plausible(result):
    for entry in result["measurements"]:
        what = f"{entry['cell']} {entry['system']}"
        quantiles = [entry["latency_ms"][name] for name in ("p50", "p90", "p99", "p999", "max")]
        assert 0 < quantiles[0] and quantiles == sorted(quantiles), what
        assert entry["requests"] > 0 and entry["failed"] == 0, what
        assert entry["tokens_per_second"] > 0 and entry["cpu_seconds_per_1000_tokens"] > 0, what


def row_bytes(dtype):
    if dtype == "int8_block128":
        # A byte for each value, and a scale for each 128 of them.
        return SHAPE.d_model + 4 * -(-SHAPE.d_model // 128)
    return SHAPE.d_model * {"f32": 4, "bf16": 2, "f16": 2}[dtype]


def rows_of_hops(entry):
    """Bytes of a row on each hop of a mesh, in the order of hop_bytes_per_token."""
    activations, hidden_states, partials = entry["row_dtypes"]
    caller = "int8_block128" if entry["wire"] == "int8" else activations
    return [row_bytes(dtype) for dtype in (caller, caller, hidden_states, partials)]


def test_types_of_rows(result):
    """What `auto` makes of bf16 weights is the CPU's to say, but it is one thing."""
    for entry in result["measurements"]:
        what = f"{entry['cell']} {entry['system']}"
        if not entry["nodes"]:
            assert entry["row_dtypes"] == [], what
        elif entry["wire"] == "int8":
            assert entry["row_dtypes"][1:] == ["int8_block128"] * 2, what
        else:
            assert entry["row_dtypes"] in (["f32"] * 3, ["bf16"] * 3), what


def test_bytes_are_at_least_the_payload(result):
    for entry in result["measurements"]:
        what = f"{entry['cell']} {entry['system']}"
        if entry["nodes"]:
            hops, rows = entry["hop_bytes_per_token"], rows_of_hops(entry)
            for hop, (found, row) in enumerate(zip(hops, rows, strict=True)):
                assert found >= row, f"{what}: hop {hop}"
                # Far more would be counted twice.
                if hop >= 2:
                    most = min(entry["nodes"], SHAPE.top_k) * row + 600 * entry["nodes"]
                    assert found <= most, f"{what}: hop {hop}"
        elif entry["system"] == "in_process":
            assert entry["bytes_per_token"] == 0
        elif entry["system"].startswith("rpc_per_"):
            least = 2 * row_bytes("bf16") * SHAPE.top_k
            assert entry["bytes_per_token"] >= least, what
    for system in ("two_bare_hops", "raw_tcp"):
        for cell, entry in of(result, system).items():
            mesh = of(result, "mesh2")[cell]
            assert entry["bytes_per_token"] == pytest.approx(mesh["bytes_per_token"])


def test_int8_saves_what_its_rows_are_shorter(result):
    """At 64 tokens what is not rows hardly counts."""
    plain, int8 = (of(result, name)["t64"] for name in ("mesh2", "mesh2_int8"))
    assert (plain["wire"], int8["wire"]) == ("auto", "int8")
    rows = zip(rows_of_hops(plain), rows_of_hops(int8), strict=True)
    copies = [1, 1] + 2 * [plain["destinations_per_token"]]
    for hop, (long, short) in enumerate(rows):
        assert short < long
        less = plain["hop_bytes_per_token"][hop] - int8["hop_bytes_per_token"][hop]
        assert less == pytest.approx(copies[hop] * (long - short), rel=0.05), f"hop {hop}"


def test_destinations(result):
    seen = set()
    for entry in result["measurements"]:
        if not entry["nodes"]:
            assert "destinations_per_token" not in entry
            continue
        what = f"{entry['cell']} {entry['system']}"
        seen.add(entry["replicas"])
        found, drawn = entry["destinations_per_token"], entry["uniform_destinations_per_token"]
        assert 1 <= found <= min(entry["nodes"], SHAPE.top_k), what
        if entry["slices"]:
            assert found == drawn == entry["nodes"], what
        elif entry["replicas"] > 1:
            assert found < 0.9 * drawn, what
        else:
            assert found == drawn, what  # There is no choice.
    assert seen == {1, 2}


def test_stages_add_up(result):
    for entry in of(result, "mesh2").values():
        assert entry["stages_us"]["compute"] > 0
        total = sum(entry["stages_us"].values()) / 1000
        assert total == pytest.approx(entry["latency_ms"]["mean"], rel=0.05)


def test_routing_happens_as_wanted(result):
    found = of(result, "mesh2")
    hot = SHAPE.experts / SHAPE.top_k - 1
    assert found["t64-k-hot"]["max_violation"] == pytest.approx(hot)
    assert found["t64"]["max_violation"] < found["t64-zipf"]["max_violation"] < hot


def test_open_loop_keeps_its_rate(result):
    for cell, entry in of(result, "mesh2").items():
        assert (entry["loop"] == "open") == ("open" in cell)
        if entry["loop"] == "open":
            assert entry["rate"] > 0
            # Never faster than that, whatever the machine does.
            assert entry["requests"] <= entry["rate"] * 0.2 + 1


def test_report_is_well_formed(made):
    root = xml.etree.ElementTree.fromstring(made["html"].read_text().split("\n", 1)[1])
    name = "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(f".//{name}")) >= 8
    text = made["html"].read_text()
    for forbidden in ("<script", "<link", "src=", "@import", "nan"):
        assert forbidden not in text.lower(), forbidden
    assert "tokens/s / in process" in made["said"]


def versus(*what):
    """Lines of its table, split."""
    command = [sys.executable, HERE / "versus.py", *what, "--shape", "tiny", "--runs", "1"]
    done = subprocess.run(
        [*command, "--seconds", "0.2", "--tokens", "1,64"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert [line[0] for line in lines] == ["1", "64"]
    return lines


def test_cost_of_strict():
    # Tokens go out once either way; of rows back there is one per assignment and not one per node.
    for line in versus("strict"):
        assert 1 < float(line[-1]) < SHAPE.top_k, line


def test_what_tracing_costs():
    assert len(versus("trace", "--ratio", "1")) == 2


@pytest.mark.parametrize("fault", ["accept", "absent", "exhaust"])
def test_what_a_collector_costs(fault):
    assert len(versus("collector", "--fault", fault)) == 2


def test_two_builds_in_turns():
    build = pathlib.Path(os.environ["EXPERTMESH_ROUTER"]).parents[1]
    for line in versus("build", build):
        # The same programs, so the same bytes, but for heartbeats: of few tokens in a busy second they are a part.
        assert float(line[-1]) == pytest.approx(1, abs=0.02 if line[0] == "64" else 0.2), line


def test_experts_beyond_the_memory():
    small = ["--layers", "5", "--experts", "16", "--d-model", "64", "--intermediate", "64", "--top-k", "2"]
    command = [sys.executable, HERE / "offload.py", *small, "--steps", "30", "--rounds", "1", "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(("lru", "frequency", "predictive")), lines
    for line in lines[::2]:
        rates = re.search(r"hit rate ([\d.]+) \(replayed ([\d.]+), optimum ([\d.]+)", line)
        node, replayed, optimum = map(float, rates.groups())
        # A replay may drop what it has just loaded; a node keeps that until it is computed.
        assert 0 < node < 1 and abs(node - replayed) < 0.1 and replayed <= optimum + 0.001
        assert "equal 150 of 150" in line


def test_a_simulation_is_compared_with_what_it_simulates():
    """As `build/venv/bin/python tests/bench/simulation.py`, on a tiny layer."""
    command = [sys.executable, HERE / "simulation.py", "--shape", "tiny", "--nodes", "2"]
    done = subprocess.run(
        [*command, "--runs", "1", "--seconds", "0.2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[-6:]]
    assert [line[0] for line in lines] == ["1", "4", "16", "64", "128", "256"]
    for line in lines:
        # Times are compared by who runs it on a quiet machine. Counts are the same whatever it does.
        assert float(line[3]) > 0 and float(line[-1]) == pytest.approx(1, abs=0.02), line
