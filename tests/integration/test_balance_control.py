"""Balancing in the hands of operators: two processes of expertmesh-router and one authority, the commands, and what is
refused."""

import contextlib
import json
import subprocess
import time

import numpy as np
import pytest

import expertmesh
from arrays import assert_same
from checkpoint import read_safetensors, write_safetensors
from expertmesh import ForwardOptions
from expertmesh.v1 import balance_pb2
from mesh import PATIENCE, SCALE, Mesh, cli, hidden_states, program, shards, wait_until

FAST = "--balance-interval=20ms"
ROUTED = ForwardOptions(return_routing=True)
HEALTH = "expertmesh.balance"


@contextlib.contextmanager
def client_of(router):
    with expertmesh.Client(router.address, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def two_routers(mesh, checkpoint, tmp_path):
    """An authority that keeps its state, and a follower, with their clients."""
    mesh.start_nodes(checkpoint.path, shards(2))
    first = mesh.start_router(checkpoint.path, FAST, "--state-dir", tmp_path / "state")
    mesh.wait_ready()
    second = mesh.start_router(checkpoint.path, FAST, "--follow", first.address)
    with client_of(first) as authority, client_of(second) as follower:
        wait_until(lambda: follower.topology().ready, "the follower is ready")
        wait_until(lambda: follower.balance().summary.alive, "the follower has heard")
        yield first, authority, second, follower


def some_bias(checkpoint, seed):
    rng = np.random.default_rng(seed)
    return {
        layer: rng.uniform(-0.5, 0.5, checkpoint.moe.experts).astype(np.float32)
        for layer in checkpoint.moe_layers
    }


def values_of(bias):
    return {layer.layer: list(layer.values) for layer in bias.layers}


def send(client, checkpoint, tokens, seed):
    """layer -> assignments, as the answers name them."""
    found = {}
    for layer in checkpoint.moe_layers:
        x = hidden_states(tokens, checkpoint.d_model, seed)
        ids = client.forward(layer, x, ROUTED).expert_ids
        found[layer] = np.bincount(ids.reshape(-1), minlength=checkpoint.moe.experts)
    return found


def added(*counts):
    return {layer: sum(count[layer] for count in counts) for layer in counts[0]}


def mesh_load(client):
    return {
        load.layer: (load.tokens, np.array(load.assignments))
        for load in client.get_load(mesh=True).layers
    }


def check_mesh_load(client, tokens, expected):
    """All reports have come, and every token counts exactly once."""
    wait_until(
        lambda: all(load[0] >= tokens for load in mesh_load(client).values()),
        f"{tokens} tokens of each layer are reported",
    )
    for layer, (counted, assignments) in mesh_load(client).items():
        assert counted == tokens
        assert_same(assignments, expected[layer])


def test_a_change_is_in_force_everywhere_within_a_second(two_routers, checkpoint):
    _, authority, _, follower = two_routers
    for seed in range(5):
        bias = some_bias(checkpoint, seed)
        epoch = authority.set_bias(bias).epoch
        began = time.monotonic()
        wait_until(lambda: follower.topology().epoch >= epoch, "the epoch is followed")
        assert time.monotonic() - began <= 1.0 * SCALE
        x = hidden_states(64, checkpoint.d_model, seed)
        one, other = (client.forward(1, x, ROUTED) for client in (authority, follower))
        assert one.epoch == other.epoch == authority.topology().epoch
        assert_same(one.expert_ids, other.expert_ids)
        assert values_of(authority.bias()) == values_of(follower.bias(one.epoch))
        assert values_of(follower.bias()) == {k: v.tolist() for k, v in bias.items()}


def test_counts_add_up_and_outlive_a_kill(two_routers, checkpoint):
    first, authority, _, follower = two_routers
    counted = added(
        send(authority, checkpoint, 700, 1),
        send(follower, checkpoint, 900, 2),
        send(authority, checkpoint, 50, 3),
    )
    check_mesh_load(authority, 1650, counted)
    told = json.loads(cli("load", "--mesh", "--json", "--router", first.address).stdout)
    for layer in told["layers"]:
        assert layer["tokens"] == 1650
        assert_same(np.array(layer["assignments"]), counted[layer["layer"]])
    own = json.loads(cli("load", "--json", "--router", first.address).stdout)
    assert {layer["tokens"] for layer in own["layers"]} == {750}
    # What is decided is on disk before it is in force, and the counts with it.
    wait_until(
        lambda: sum(router.tokens for router in authority.balance().routers) == 2 * 1650,
        "the authority has looked at its own counts",
    )
    authority.set_balance(rate=0.25)
    first.kill()
    first.start()
    again = send(authority, checkpoint, 30, 4)
    assert authority.balance().layers[0].policy.rate == 0.25
    check_mesh_load(authority, 1680, added(counted, again))
    wait_until(
        lambda: sum(not router.gone for router in authority.balance().routers) == 2,
        "the follower reports again",
    )
    check_mesh_load(authority, 1680, added(counted, again))


def test_a_follower_outlives_its_authority(two_routers, checkpoint):
    first, authority, second, follower = two_routers
    bias = some_bias(checkpoint, 7)
    authority.set_bias(bias)
    before = authority.balance()
    assert before.summary.role == balance_pb2.BALANCE_ROLE_AUTHORITY
    wait_until(lambda: follower.topology().epoch >= before.epoch, "the epoch is followed")
    x = hidden_states(64, checkpoint.d_model)
    served = follower.forward(1, x, ROUTED)
    wait_until(lambda: follower.health(HEALTH) is expertmesh.Health.SERVING, "all is well")
    first.kill()
    wait_until(
        lambda: follower.health(HEALTH) is expertmesh.Health.NOT_SERVING, "the silence is noticed"
    )
    alone = follower.forward(1, x, ROUTED)
    assert alone.epoch == served.epoch
    assert_same(alone.expert_ids, served.expert_ids)
    for said in (follower.topology().balance, follower.balance().summary):
        assert not said.alive and said.authority == first.address
        assert first.address in said.reason and f"epoch {before.epoch}" in said.reason
    shown = cli("topology", "--router", second.address).stdout
    assert f"balance: follows {first.address}, term {before.summary.term}, NOT ALIVE: " in shown
    asked = ["health", "--router", second.address, "--service", HEALTH]
    assert first.address in cli(*asked, code=1).stderr
    # It is the balancing alone that is not well.
    assert follower.health() is expertmesh.Health.SERVING
    with pytest.raises(expertmesh.FailedPrecondition, match=first.address) as refused:
        follower.set_balance(rate=1)
    assert refused.value.reason == "NOT_AUTHORITY"
    assert refused.value.metadata["authority"] == first.address

    first.start()
    after = authority.balance()
    assert after.summary.term > before.summary.term
    assert after.epoch >= before.epoch
    assert values_of(authority.bias()) == {k: v.tolist() for k, v in bias.items()}
    wait_until(
        lambda: follower.balance().summary.term == after.summary.term, "the new term is followed"
    )
    wait_until(lambda: follower.health(HEALTH) is expertmesh.Health.SERVING, "it is well again")
    epoch = authority.set_bias({0: some_bias(checkpoint, 8)[0]}).epoch
    wait_until(lambda: follower.topology().epoch >= epoch, "the next change is followed")
    assert values_of(follower.bias()) == values_of(authority.bias())


def test_what_is_refused_changes_nothing(two_routers, checkpoint, checkpoints, mesh):
    first, authority, _, _ = two_routers
    authority.set_bias(some_bias(checkpoint, 1))
    authority.set_balance(rule="sign", rate=0.5, paused=True)
    bias, policies = authority.bias(), [layer.policy for layer in authority.balance().layers]
    good, experts = bias.layers[0].values[0], checkpoint.moe.experts
    for values in ({0: [np.nan] * experts}, {0: [good] * (experts + 1)}, {9: [good] * experts}):
        with pytest.raises(expertmesh.InvalidArgument, match="layer"):
            authority.set_bias({1: [0.0] * experts, **values})
    for change, words in (
        ({"rate": float("nan")}, "rate"),
        ({"rate": -1}, "rate is -1"),
        ({"quality_budget": 1.5}, "quality_budget is 1.5"),
        ({"step_tokens": 0}, "step_tokens is 0"),
        ({"layers": [0, 9]}, "9"),
    ):
        with pytest.raises(expertmesh.InvalidArgument, match=words):
            authority.set_balance(**{"rule": "frozen", **change})
    foreign = balance_pb2.Bias(outline="0" * 64, layers=bias.layers)
    with pytest.raises(expertmesh.FailedPrecondition, match="0" * 64):
        authority.set_bias(foreign)
    for epoch in (bias.epoch + 1000, 2**64 - 1):
        with pytest.raises(expertmesh.NotFound, match=str(epoch)):
            authority.bias(epoch)
    # A follower with another model serves its own, and says why it does not follow.
    other = checkpoints("qwen3_moe", seed=5, experts=16)
    stranger = mesh.start_router(other.path, FAST, "--follow", first.address)
    with client_of(stranger) as client:
        wait_until(
            lambda: "another model" in client.balance().summary.reason, "the stranger is refused"
        )
        assert authority.describe().outline in client.balance().summary.reason
        assert client.health(HEALTH) is expertmesh.Health.NOT_SERVING
        assert all(layer.at_checkpoint for layer in client.balance().layers)
    assert len(authority.balance().routers) == 2
    assert authority.bias() == bias
    assert [layer.policy for layer in authority.balance().layers] == policies


def test_a_state_that_cannot_be_used_is_named(two_routers, checkpoint, tmp_path):
    first, _, _, _ = two_routers
    first.kill()
    for kept in (tmp_path / "state").glob("balance.state*"):
        kept.write_bytes(kept.read_bytes()[:-1])
    first.spawn()
    assert first.wait() != 0
    assert str(tmp_path / "state") in first.last_words(1)


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(1), FAST)


def test_the_commands_show_and_change_the_balance(serving, checkpoint):
    router = ["--router", serving.router.address]
    change = ["--rule", "sign", "--rate", "0.125", "--quality-budget", "0.5", "--step-tokens", "7"]
    limits = ["--clamp", "0.75", "--decay", "0.25"]
    told = json.loads(cli("balance", "set", *router, *change, *limits, "--pause", "--json").stdout)
    expected = {"rule": "sign", "rate": 0.125, "clamp": 0.75, "decay": 0.25, "quality_budget": 0.5}
    expected |= {"step_tokens": 7, "paused": True}
    assert [layer["layer"] for layer in told["layers"]] == checkpoint.moe_layers
    assert all(layer["policy"] == expected for layer in told["layers"])
    cli("balance", "set", *router, "--layers", "1", "--resume", "--rule", "frozen")
    said = serving.client.balance()
    assert [layer.policy.paused for layer in said.layers] == [True, False]
    told = json.loads(cli("balance", "show", *router, "--json").stdout)
    assert told["epoch"] == said.epoch and told["summary"]["role"] == "authority"
    assert told["summary"]["term"] == said.summary.term and told["summary"]["alive"]
    assert [layer["policy"]["rule"] for layer in told["layers"]] == ["sign", "frozen"]
    assert told["routers"][0]["self"]
    first, heading, *rows = cli("balance", "show", *router).stdout.splitlines()
    assert first.startswith(f"epoch {said.epoch}, authority, term {said.summary.term}, alive")
    assert heading.split() == "layer rule rate budget tokens MaxVio changed bias last".split()
    assert rows[0].split()[:4] == ["0", "sign", "0.125", "50%"]
    assert rows[0].split()[-2:] == ["checkpoint", "paused"]
    assert "balance: authority, term" in cli("topology", *router).stdout
    for wrong, words in (
        ([], "there is nothing to change"),
        (["--pause", "--resume"], "leave one out"),
        (["--layers", "9", "--pause"], "9"),
        (["--decay", "2"], "decay is 2"),
    ):
        assert words in cli("balance", "set", *router, *wrong, code=1).stderr
    assert "it must be one of" in cli("balance", "set", *router, "--rule", "fair", code=2).stderr


def test_a_bias_is_exported_and_imported(serving, checkpoint, tmp_path):
    router, file = ["--router", serving.router.address], tmp_path / "bias.json"
    bias = some_bias(checkpoint, 3)
    epoch = serving.client.set_bias(bias).epoch
    x = hidden_states(200, checkpoint.d_model)
    steered = serving.client.forward(1, x, ROUTED).expert_ids
    serving.client.set_balance(reset_bias=True)
    own = serving.client.forward(1, x, ROUTED).expert_ids
    assert (steered != own).any()
    assert "epoch" in cli("balance", "export", *router, "--epoch", epoch, "--output", file).stdout
    exported = json.loads(file.read_text())
    assert exported["outline"] == serving.client.describe().outline
    assert exported["epoch"] == epoch
    for layer in exported["layers"]:
        # Every bit of it.
        assert_same(np.float32(layer["values"]), bias[layer["layer"]])
    cli("balance", "import", *router, file)
    assert_same(serving.client.forward(1, x, ROUTED).expert_ids, steered)
    # The command pins the checkpoint's, too.
    write_safetensors(tmp_path / "x", {"hidden_states": x})
    flags = ["--layer", 1, "--input", tmp_path / "x", "--output", tmp_path / "y", "--routing"]
    for pin, ids in ((["--checkpoint-bias"], own), ([], steered)):
        cli("forward", *router, *flags, *pin)
        assert_same(read_safetensors(tmp_path / "y")["expert_ids"], ids.astype(np.int32))
    before = serving.client.bias()
    text = file.read_text()
    some = exported["layers"][0]["values"]
    for damaged, words in (
        (text[: len(text) // 2], "bias.json"),
        ("{}", "outline"),
        (json.dumps({**exported, "outline": "f" * 64}), "another model"),
        (json.dumps({**exported, "layers": [{"layer": 0, "values": [*some[1:], 1e39]}]}), "finite"),
        (json.dumps({**exported, "layers": [{"layer": 0, "values": some[1:]}]}), "layer 0"),
        (json.dumps({**exported, "layers": [{"layer": 9, "values": some}]}), "9"),
        (json.dumps({**exported, "layers": exported["layers"][::-1]}), "ascending"),
        ((checkpoint.path / "config.json").read_text(), "no bias of `expertmesh balance export`"),
    ):
        file.write_text(damaged)
        failed = cli("balance", "import", *router, file, code=1).stderr
        assert str(file) in failed and words in failed, failed
    assert serving.client.bias() == before
    assert "is not remembered" in (
        cli("balance", "export", *router, "--epoch", 10**9, "--output", file, code=1).stderr
    )


def test_the_load_of_a_window_and_its_measures(serving, checkpoint):
    serving.client.set_balance(reset_bias=True)
    # All to the same experts.
    bias = np.zeros(checkpoint.moe.experts, np.float32)
    bias[[2, 5, 7]] = 9
    serving.client.set_bias({0: bias})
    x = hidden_states(500, checkpoint.d_model)
    serving.client.forward(0, x)
    router = ["--router", serving.router.address]

    def counted():
        (told, *_) = json.loads(cli("load", "--json", "--window", "1s", *router).stdout)["layers"]
        return told if told["tokens"] == 500 else None

    told = wait_until(counted, "the tokens are those of the last second")
    assert told["max_violation"] == pytest.approx(12 / 3 - 1)
    assert told["dead"] == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    assert told["entropy"] == pytest.approx(np.log(3) / np.log(12))
    assert told["variation"] == pytest.approx(np.sqrt(3))
    assert "collapsed: experts 2,5,7" in told["collapse"]
    assert told["compared_tokens"] == 500 and told["changed_tokens"] > 0
    shown = cli("load", "--window", "10s", *router).stdout
    assert shown.startswith("in ") and "layer 0 collapsed: experts 2,5,7" in shown


def test_a_watch_of_the_balance_tells_every_change(serving):
    watch = serving.client.watch_balance()
    first = next(watch)
    assert first.layers[0].policy.rate != 0.375
    changed = serving.client.set_balance(reset_bias=True, rate=0.375)
    later = next(balance for balance in watch if balance.layers[0].policy.rate == 0.375)
    assert later.epoch >= changed.epoch >= first.epoch
    watch.close()
    argv = [program("cli"), "balance", "watch", "--json", "--router", serving.router.address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        assert json.loads(watching.stdout.readline())["layers"][0]["policy"]["rate"] == 0.375
        serving.client.set_balance(rate=0.625)
        assert any('"rate":0.625' in line for line in watching.stdout)
        watching.kill()
