"""`expertmesh placement`: a plan is made, kept in a file, applied, shown and watched; what is foreign is refused."""

import json
import subprocess

import pytest

import expertmesh
from mesh import Mesh, cli, hidden_states, program, shards, wait_until

FAST = "--balance-interval=20ms"
# Slow enough that an abort falls into the middle of a move.
SLOW = "--move-bytes-per-second=16384"
LIMIT = ("--memory-limit-bytes", 10**8)
PLAN_NOW = ("--min-tokens", 1, "--hysteresis", 0)


@pytest.fixture
def placement(mesh, checkpoint):
    """placement(command, ...): the output of `expertmesh placement command` on four nodes with some load."""

    def ask(command, *arguments, code=0):
        done = cli("placement", command, "--router", mesh.router.address, *arguments, code=code)
        return done.stderr if code else done.stdout

    def start(*flags):
        mesh.start(checkpoint.path, shards(4, *LIMIT), FAST, *flags)
        for layer in checkpoint.moe_layers:
            mesh.client.forward(layer, hidden_states(2000, checkpoint.d_model, 3))
        wait_until(
            lambda: all(load.tokens >= 2000 for load in mesh.client.get_load(mesh=True).layers)
            and mesh.client.get_load(mesh=True).layers,
            "the load is counted",
        )
        return ask

    return start


def held(client):
    """node_id -> layer -> experts."""
    return {
        node.description.node_id: {
            hosted.layer: set(hosted.experts)
            for hosted in node.description.hosted
            if hosted.experts
        }
        for node in client.topology().nodes
    }


def planned(plan):
    """The same, of a plan as JSON has it."""
    nodes = {node: {} for node in plan["nodes"]}
    for layer in plan["layers"]:
        copies = iter(layer["copy_nodes"])
        for expert, count in enumerate(layer["copies_per_expert"]):
            for _ in range(count):
                nodes[plan["nodes"][next(copies)]].setdefault(layer["layer"], set()).add(expert)
    return nodes


def test_a_plan_is_shown_kept_and_applied(placement, mesh, checkpoint, tmp_path):
    ask, file = placement(), tmp_path / "plan.json"
    before = held(mesh.client)
    said = ask("plan", *PLAN_NOW, "--moves", 2, "--out", file).splitlines()
    assert said[0].startswith("worth moving for: ")
    assert said[1].split() == "layer fullest/mean planned at best gap".split()
    rows = [line.split() for line in said[2 : 2 + len(checkpoint.moe_layers)]]
    assert [int(row[0]) for row in rows] == checkpoint.moe_layers
    for _, now, then, best, gap, becomes in rows:
        assert float(best) <= float(then) <= float(now)
        assert float(gap.rstrip("%")) <= 0.5 and becomes in ("changes", "stays")
    # The first two of some moves.
    assert len([line for line in said if "fullest node" in line and line.startswith("  ")]) <= 2
    assert "more (--moves N)" in said[-2] and said[-1].startswith(f"{file}: ")
    told = json.loads(ask("plan", *PLAN_NOW, "--json"))
    plan = json.loads(file.read_text())
    assert plan.pop("outline") == mesh.client.describe().outline
    assert told["plan"] == plan and told["apply"] and len(told["moves"]) == told["move_count"]
    # Nothing of it is done.
    assert held(mesh.client) == before
    assert "no plan in force" in ask("show")

    done = ask("apply", "--plan", file, "--wait", 120)
    assert "moves: idle" in done and "completed 1, failed 0" in done
    assert held(mesh.client) == planned(plan)
    shown = json.loads(ask("show", "--json"))
    assert shown["plan"] == plan and shown["moves"]["moves_completed"] == 1
    assert shown["moves"]["phase"] == "idle" and shown["since_moved_ms"] >= 0
    text = ask("show")
    assert f"plan in force: {sum(len(layer['copy_nodes']) for layer in plan['layers'])} copies" in text
    assert "nothing moves by itself" in text
    for node in plan["nodes"]:
        assert f"\n{node} " in text
    # A plan is whole: layers that there is too little load of keep what is in force.
    first = checkpoint.moe_layers[0]
    mesh.client.forward(first, hidden_states(3000, checkpoint.d_model, 4))
    wait_until(
        lambda: max(load.tokens for load in mesh.client.get_load(mesh=True).layers) >= 5000,
        "the load is counted",
    )
    told = json.loads(ask("plan", "--min-tokens", 4000, "--json"))
    assert [layer["layer"] for layer in told["layers"]] == [first]
    assert told["plan"]["nodes"] == plan["nodes"]
    assert told["plan"]["layers"][1:] == plan["layers"][1:]
    # Without a file: what the planner says now.
    ask("set", *PLAN_NOW)
    assert json.loads(ask("apply", "--wait", 120, "--json"))["moves"]["moves_completed"] == 2
    assert "planner, " in ask("show")


def test_foreign_and_damaged_plans_are_refused(placement, mesh, checkpoints, checkpoint, tmp_path):
    ask, file = placement(), tmp_path / "plan.json"
    ask("plan", *PLAN_NOW, "--out", file)
    text, plan = file.read_text(), json.loads(file.read_text())
    other = checkpoints("qwen3_moe", seed=5, experts=16)
    layer = plan["layers"][0]
    short = {key: layer[key][1:] for key in ("copies_per_expert", "copy_nodes", "copy_shares")}
    few = {**layer, "copies_per_expert": [1], "copy_nodes": [0], "copy_shares": [1]}
    (tmp_path / "other").mkdir()
    with Mesh(tmp_path / "other") as foreign:
        foreign.start(other.path, shards(1), FAST)
        refused = cli(
            "placement", "apply", "--router", foreign.router.address, "--plan", file, code=1
        ).stderr
        outline = foreign.client.describe().outline
    assert str(file) in refused and "another model" in refused
    assert plan["outline"] in refused and outline in refused
    for damaged, words in (
        (text[: len(text) // 2], str(file)),
        ("", str(file)),
        ((checkpoint.path / "config.json").read_text(), "no plan of `expertmesh placement plan"),
        (json.dumps({**plan, "nodes": plan["nodes"][:1]}), "a copy on node"),
        (json.dumps({**plan, "layers": [{**layer, "copy_nodes": short["copy_nodes"]}]}), "copy_nodes"),
        (json.dumps({**plan, "layers": [few]}), f"layer {layer['layer']}"),
        (json.dumps({**plan, "layers": [{**layer, "layer": 99}]}), "layer 99"),
    ):
        file.write_text(damaged)
        said = ask("apply", "--plan", file, "--wait", 5, code=1)
        assert words in said and str(file) in said, said
    assert not mesh.client.placement().HasField("plan")
    for arguments, words in (
        (["--plan", tmp_path / "none.json"], "none.json"),
        (["--plan", file, "--abort"], "leave one out"),
        (["--abort"], "undone"),
    ):
        assert words in ask("apply", *arguments, code=1)


def test_a_move_that_is_undone_is_told_with_its_reason(placement, mesh):
    ask = placement(SLOW)
    ask("set", *PLAN_NOW)
    before = held(mesh.client)
    waiting = subprocess.Popen(
        [program("cli"), "placement", "apply", "--router", mesh.router.address, "--wait", "120"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with waiting:
        wait_until(lambda: mesh.client.placement().moves.phase == "loading", "the move has begun")
        assert "a move is under way" in ask("apply", code=1)
        ask("apply", "--abort", "--wait", 120)
        _, said = waiting.communicate()
    assert waiting.returncode == 1
    assert "the move was undone: " in said and "an operator ended the move" in said
    assert held(mesh.client) == before
    assert "failed 1" in ask("show")
    # One that takes longer than is waited for goes on.
    assert "it goes on" in ask("apply", "--wait", "1ms", code=1)
    assert mesh.client.placement().moves.phase != "idle"
    ask("apply", "--abort", "--wait", 120)


def test_the_policy_is_set_and_watched(placement, mesh):
    ask = placement()
    watch = subprocess.Popen(
        [program("cli"), "placement", "watch", "--router", mesh.router.address, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with watch:
        assert not json.loads(watch.stdout.readline())["policy"]["automatic"]
        ask("set", "--automatic", "--interval", "3s", "--byte-budget", "2MiB", "--min-copies", 1)
        policy = json.loads(watch.stdout.readline())["policy"]
        while not policy["automatic"]:
            policy = json.loads(watch.stdout.readline())["policy"]
        watch.terminate()
    expected = {"automatic": True, "interval_ms": 3000, "byte_budget": 2 << 20, "min_copies": 1}
    assert {key: policy[key] for key in expected} == expected
    assert "automatic, every 3s" in ask("show")
    assert "manual; " in ask("set", "--manual", "--max-copies", 3, "--hysteresis", 0.25)
    policy = mesh.client.placement().policy
    assert (policy.max_copies, policy.hysteresis, policy.interval_ms) == (3, 0.25, 3000)
    for wrong, words in (
        ([], "there is nothing to change"),
        (["--automatic", "--manual"], "leave one out"),
        (["--byte-budget", "much"], "--byte-budget: 'much' is no size"),
        (["--interval", 0], "interval"),
    ):
        assert words in ask("set", *wrong, code=1)


def test_python_watches_the_same(placement, mesh):
    placement()
    with expertmesh.Client(mesh.router.address) as client:
        watch = client.watch_placement()
        assert not next(watch).policy.automatic
        client.set_placement(automatic=True)
        assert any(state.policy.automatic for state in watch)


def test_every_measure_is_printed(placement, mesh, checkpoint):
    placement()
    router = ("--router", mesh.router.address)
    lines = cli("balance", "show", *router, "--measures").stdout.splitlines()
    (heading,) = [line for line in lines if "MaxVio(batch)" in line]
    columns = "layer MaxVio(batch) CV entropy dead squared share sampled Switch GShard Megatron"
    assert heading.split() == [*columns.split(), "sequence", "importance", "z", "second"]
    rows = lines[lines.index(heading) + 1 :][: len(checkpoint.moe_layers)]
    told = json.loads(cli("balance", "show", *router, "--json").stdout)["layers"]
    for row, layer in zip(rows, told, strict=True):
        assert int(row.split()[0]) == layer["layer"]
        assert layer["measures"]["batch_max_violation"] > 0
        assert 0 < layer["measures"]["load_entropy"] <= 1
