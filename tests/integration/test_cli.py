"""The command `expertmesh`, as a person at a shell uses it."""

import json
import pathlib
import re
import subprocess

import numpy as np
import pytest

import reference
from arrays import assert_close, assert_different, assert_rows_close, assert_same, assert_same_bits
from checkpoint import DTYPES, Checkpoint, make_checkpoint, read_safetensors, write_safetensors
from expertmesh import ForwardOptions
from mesh import HOST, PATIENCE, Mesh, cli, hidden_states, program, shards

CONFIGS = pathlib.Path(__file__).parents[1] / "golden" / "configs"
MAKE = [
    "--layers",
    "2",
    "--d-model",
    "64",
    "--experts",
    "8",
    "--top-k",
    "2",
    "--intermediate",
    "32",
]


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(2))


def numbers(text):
    """All whole numbers in a text, with separators of thousands or without."""
    return {int(re.sub(r"[,_' ]", "", found)) for found in re.findall(r"\d+(?:[,_']\d{3})*", text)}


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_made_checkpoints_are_served_and_verified(tmp_path, family, dtype):
    folder = tmp_path / "model"
    cli(
        "checkpoint",
        "make",
        "--output",
        folder,
        "--family",
        family,
        *MAKE,
        "--dtype",
        dtype,
        "--seed",
        7,
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == family and config["hidden_size"] == 64
    made = Checkpoint(
        folder, config, read_safetensors(folder / "model.safetensors"), DTYPES[dtype.upper()]
    )
    with Mesh(tmp_path) as mesh:
        mesh.start(folder, shards(2))
        layers = [layer.layer for layer in mesh.client.describe().layers]
        for layer in layers:
            x = hidden_states(20, 64, seed=layer)
            result = mesh.client.forward(layer, x, ForwardOptions(return_routing=True))
            expected = reference.combine(
                made,
                layer,
                x.astype(made.dtype),
                result.expert_ids,
                result.expert_weights,
            )
            bound = 1e-5 if dtype == "f32" else 1e-2
            assert_rows_close(result.output, expected, bound, f"layer {layer}")
        said = cli("verify", "--router", mesh.router.address, "--model", folder).stdout
        for layer in layers:
            assert re.search(rf"\b{layer}\b", said)


def test_made_checkpoint_depends_on_the_seed_alone(tmp_path):
    def make(name, seed):
        folder = tmp_path / name
        cli(
            "checkpoint", "make", "--output", folder, "--family", "qwen3_moe", *MAKE, "--seed", seed
        )
        return (folder / "model.safetensors").read_bytes()

    assert_same_bits(make("a", 1), make("b", 1))
    assert_different(make("c", 2), make("d", 1))


def test_what_config_contradicts_is_said(tmp_path):
    folder = tmp_path / "model"
    cli("checkpoint", "make", "--output", folder, "--family", "mixtral", *MAKE, "--dtype", "bf16")
    said = json.loads(cli("checkpoint", "inspect", folder, "--json").stdout)
    assert said["weights"]["warnings"] == []
    config = json.loads((folder / "config.json").read_text()) | {"torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    said = json.loads(cli("checkpoint", "inspect", folder, "--json").stdout)
    assert said["dtype"] == "BF16"
    (warning,) = said["weights"]["warnings"]
    assert f"{folder}/config.json" in warning and "F32" in warning and "BF16" in warning
    assert f"warning:           {warning}\n" in cli("checkpoint", "inspect", folder).stdout
    with Mesh(tmp_path) as mesh:
        mesh.start(folder, shards(1))
        for running in (mesh.router, *mesh.nodes):
            assert f": {warning}\n" in running.log()


def test_make_refuses_nonsense(tmp_path):
    output = tmp_path / "model"
    unknown = cli("checkpoint", "make", "--output", output, "--family", "gpt2", code=1)
    assert "gpt2" in unknown.stderr and "mixtral" in unknown.stderr
    more = ["--family", "mixtral", "--experts", "4", "--top-k", "9"]
    too_many = cli("checkpoint", "make", "--output", output, *more, code=1)
    assert "9" in too_many.stderr and "4" in too_many.stderr
    assert not (output / "config.json").exists()


@pytest.mark.parametrize(
    "name,family,total,active",
    [
        ("mixtral-8x7b", "mixtral", 46_702_792_704, 12_879_925_248),
        ("qwen3-30b-a3b", "qwen3_moe", 30_532_122_624, 3_353_032_704),
        ("deepseek-v3", "deepseek_v3", 671_026_419_200, 37_552_297_472),
    ],
)
def test_inspect_counts_parameters_from_config_alone(name, family, total, active):
    said = cli("checkpoint", "inspect", CONFIGS / name).stdout
    assert family in said
    assert {total, active} <= numbers(said)


def test_inspect_whole_checkpoint(checkpoint):
    said = cli("checkpoint", "inspect", checkpoint.path).stdout
    assert "qwen3_moe" in said
    assert 12 in numbers(said)


def test_inspect_names_what_is_wrong(tmp_path):
    assert str(tmp_path / "no") in cli("checkpoint", "inspect", tmp_path / "no", code=1).stderr
    damaged = make_checkpoint(tmp_path / "model")
    data = damaged.weights_file.read_bytes()
    damaged.weights_file.write_bytes(data[:-10])
    assert "model.safetensors" in cli("checkpoint", "inspect", damaged.path, code=1).stderr


def test_health(serving, mesh, checkpoint):
    cli("health", "--router", serving.router.address)
    cli("health", "--router", serving.router.address, "--wait", PATIENCE)
    nobody = cli("health", "--router", f"{HOST}:1", code=1)
    assert f"{HOST}:1" in nobody.stderr
    # A router without its nodes is there, and not ready.
    mesh.start_router(checkpoint.path, nodes=[f"{HOST}:1"])
    cli("health", "--router", mesh.router.address, code=1)
    cli("health", "--router", mesh.router.address, "--wait", "0.2", code=1)


def test_topology(serving):
    said = cli("topology", "--router", serving.router.address).stdout
    for node in serving.nodes:
        assert node.address in said


def test_topology_shows_the_types_of_each_link(serving, mesh, checkpoint):
    # A second router of the same nodes, whose links differ.
    first, second = (node.address for node in serving.nodes)
    mesh.start_router(
        checkpoint.path,
        *("--wire-hidden-states=bf16", f"--wire-partials=auto,{second}=int8"),
        nodes=[first, second],
    )
    mesh.wait_ready()
    wanted = {first: ("bf16", "f32"), second: ("bf16", "int8")}
    show = ["topology", "--router", mesh.router.address]
    nodes = json.loads(cli(*show, "--json").stdout)["nodes"]
    assert wanted == {
        node["address"]: (node["hidden_states_dtype"], node["partials_dtype"]) for node in nodes
    }
    table = cli(*show).stdout
    for address, (up, down) in wanted.items():
        of_node = table.split(address)[1].split("\n")[1]
        assert of_node == f"    wire: hidden states go as {up}, partials come as {down}"


def test_forward_through_files(serving, checkpoint, tmp_path):
    x = hidden_states(10, checkpoint.d_model)
    given, made = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write_safetensors(given, {"hidden_states": x})
    call = ["forward", "--router", serving.router.address, "--layer", "1"]
    call += ["--input", given, "--output", made]
    cli(*call)
    plain = read_safetensors(made)
    assert sorted(plain) == ["output"]
    expected, chosen = reference.forward(checkpoint, 1, x)
    assert plain["output"].dtype == np.float32
    assert_rows_close(plain["output"], expected, 1e-5)
    cli(*call, "--routing")
    routed = read_safetensors(made)
    assert sorted(routed) == ["expert_ids", "expert_weights", "output"]
    assert_same_bits(routed["output"], plain["output"])
    assert_same(routed["expert_ids"], chosen.ids)
    assert_close(routed["expert_weights"], chosen.weights, rtol=1e-5)


def test_forward_names_what_is_wrong(serving, checkpoint, tmp_path):
    def forward(layer, given):
        made = tmp_path / "out.safetensors"
        router = serving.router.address
        said = cli(
            "forward",
            "--router",
            router,
            "--layer",
            layer,
            "--input",
            given,
            "--output",
            made,
            code=1,
        ).stderr
        assert not made.exists()
        return said

    missing = tmp_path / "none.safetensors"
    assert str(missing) in forward(0, missing)
    given = tmp_path / "in.safetensors"
    write_safetensors(given, {"something": np.zeros((2, 64), np.float32)})
    assert "hidden_states" in forward(0, given)
    write_safetensors(given, {"hidden_states": np.zeros((2, 60), np.float32)})
    assert "60" in forward(0, given)
    write_safetensors(given, {"hidden_states": np.zeros((2, 64), np.float32)})
    assert "99" in forward(99, given)


def test_verify_finds_a_wrong_mesh(serving, tmp_path):
    other = make_checkpoint(tmp_path / "other", seed=2)
    cli("verify", "--router", serving.router.address, "--model", other.path, code=1)


def test_bench(serving):
    said = cli("bench", "--router", serving.router.address, "--duration", "1s").stdout
    assert "tokens/s" in said and "p50" in said and "p99" in said


@pytest.mark.parametrize("loop", [["--callers", "2"], ["--rate", "200"]])
def test_bench_of_a_routing(serving, checkpoint, tmp_path, loop):
    said = tmp_path / "bench.json"
    cli(
        *("bench", "--router", serving.router.address, "--model", checkpoint.path, "--tokens", "4"),
        *("--requests", "20", "--routing", "k-hot", "--json", said, "--latencies"),
        *("--pids", serving.router.process.pid, *loop),
    )
    for layer in json.loads(said.read_text())["layers"]:
        assert (
            layer["requests"] == len(layer["latencies_us"]) == (40 if "--callers" in loop else 20)
        )
        assert 0 < layer["p50_ms"] <= layer["p90_ms"] <= layer["p99_ms"] <= layer["p999_ms"]
        assert layer["failed"] == 0 and layer["cpu_seconds"] > 0 and layer["max_violation"] > 0


def test_bench_says_what_it_needs(serving):
    router = ["bench", "--router", serving.router.address]
    assert "--model" in cli(*router, "--routing", "zipf", code=1).stderr
    assert "--rate" in cli(*router, "--rate", "0", code=1).stderr
    assert "--pids" in cli(*router, "--pids", "me", code=1).stderr


def test_demo(serving, checkpoint):
    said = cli(
        "demo", "--router", serving.router.address, "--model", checkpoint.path, "--callers", "4"
    ).stdout
    assert "p50" in said and "p99" in said


def test_usage():
    assert "forward" in cli("--help").stdout == cli("--helpfull").stdout
    (line,) = [line for line in cli("--help=drain").stdout.splitlines() if line.startswith("  ")]
    assert line.split()[0] == "drain"
    assert "--nonsense" in cli("--nonsense", code=2).stderr.splitlines()[0]
    for wrong in (["frobnicate"], [], ["forward", "--frobnicate"]):
        assert cli(*wrong, code=2).stderr


@pytest.mark.parametrize("name", ["router", "expert"])
def test_help_lists_the_flags(name):
    done = subprocess.run([program(name), "--help"], capture_output=True, text=True, check=False)
    for flag in ("--model", "--listen", "--compute-dtype", "--log-level", "--expert-metrics"):
        assert flag in done.stdout, done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"expertmesh-{name}: ")


@pytest.mark.parametrize("name", ["router", "expert"])
def test_a_flag_that_there_is_not_is_named_with_the_one_that_was_meant(name):
    argv = [program(name), "--log-levle=debug"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    said = "there is no flag --log-levle; did you mean --log-level? --help lists all"
    assert done.stderr == f"expertmesh-{name}: {said}\n"


@pytest.mark.parametrize("name", ["router", "expert", "cli"])
def test_version_says_what_it_was_built_from(name):
    done = subprocess.run([program(name), "--version"], capture_output=True, text=True, check=False)
    number, commit = r"\d+\.\d+\.\d+", r"([0-9a-f]{12}(-dirty)?|unknown)"
    line = rf"expertmesh\S* {number} \(commit {commit}, \w+\), instruction sets up to \w+\n"
    assert re.fullmatch(line, done.stdout), done.stdout


def test_servers_tell_their_version(serving):
    said = serving.client.describe().version
    assert re.fullmatch(r"\d+\.\d+\.\d+ \(commit \S+, \w+\)", said)
    assert all(node.description.version == said for node in serving.client.topology().nodes)
