"""What balancing does to routing, measured from the experts that answers name, by code of this file."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

import reference
from arrays import assert_rows_close, assert_same
from checkpoint import DTYPES, Checkpoint, read_safetensors
from expertmesh import ForwardOptions
from mesh import Mesh, cli, shards
from routing_recorder import recorder

DEMO = pathlib.Path(__file__).parents[2] / "deploy" / "demo_model"
ROUTED = ForwardOptions(return_routing=True)
PINNED = ForwardOptions(return_routing=True, checkpoint_bias=True)
FAST = ["--balance-interval=20ms"]
# Steps are large first, so that the bias is near soon, and small in the end, so that it stays there.
RATES = (0.02, 0.004, 0.0005)
ROUNDS = 200


def counts(ids, experts):
    return np.bincount(ids.reshape(-1), minlength=experts)


def max_violation(load):
    return load.max() / load.mean() - 1


def changed(ids, pinned):
    """[tokens], whether a token goes to another set of experts."""
    return (np.sort(ids, axis=1) != np.sort(pinned, axis=1)).any(axis=1)


@dataclasses.dataclass
class Batch:
    """An answer."""

    layer: int
    number: int
    epoch: int
    ids: np.ndarray


class Traffic:
    """Sends the same rows, or others each time, and keeps the experts of every answer."""

    def __init__(self, client, inputs, experts):
        """inputs: layer -> function from the number of the batch to its rows."""
        self._client, self._inputs, self._experts = client, inputs, experts
        self.tokens = dict.fromkeys(inputs, 0)
        self.loads = {layer: np.zeros(experts, np.int64) for layer in inputs}
        self.batches = []
        self._number = 0

    def send(self):
        """One batch to each layer; returns MaxVio of each."""
        violations = []
        for layer, rows in self._inputs.items():
            x = rows(self._number)
            answer = self._client.forward(layer, x, ROUTED)
            assert answer.output.shape == x.shape and np.isfinite(answer.output).all()
            assert answer.dropped.size == 0 and answer.assignments_per_token is None
            load = counts(answer.expert_ids, self._experts)
            self.tokens[layer] += len(x)
            self.loads[layer] += load
            self.batches.append(Batch(layer, self._number, answer.epoch, answer.expert_ids))
            violations.append(max_violation(load))
        self._number += 1
        return violations

    def send_epochs(self, number):
        """Until answers have named so many epochs."""
        for _ in range(10 * number):
            self.send()
            if len({batch.epoch for batch in self.batches}) >= number:
                return
        raise AssertionError(f"{len(self.batches)} batches went by and the bias stays as it is")

    def send_until_even(self, most, times=3):
        """Until MaxVio of no layer has been above `most` for so many batches on end."""
        last = []
        for _ in range(ROUNDS):
            last = [*last, max(self.send())][-times:]
            if len(last) == times and max(last) <= most:
                return
        raise AssertionError(f"MaxVio was {last} in the last of {ROUNDS} batches")

    @property
    def layers(self):
        return list(self._inputs)

    def of(self, layer):
        return [batch for batch in self.batches if batch.layer == layer]

    def rows(self, layer, number):
        return self._inputs[layer](number)

    def check_counted(self):
        """The router counted every token, and nothing else."""
        load = {layer.layer: layer for layer in self._client.get_load().layers}
        for layer, tokens in self.tokens.items():
            assert load[layer].tokens == tokens
            assert_same(np.array(load[layer].assignments), self.loads[layer])


def zipf_inputs(checkpoint, tokens):
    """Rows whose scores favour experts by Zipf's law, others for each number."""
    experts, d_model = checkpoint.moe.experts, checkpoint.d_model

    def of(layer):
        gate = checkpoint.reader(layer)(checkpoint.moe.gate).astype(np.float64)
        ranks = np.random.default_rng(layer).permutation(experts) + 1.0
        towards = np.linalg.lstsq(gate, -np.log(ranks), rcond=None)[0]

        def rows(number):
            noise = np.random.default_rng([layer, number]).standard_normal((tokens, d_model))
            return (noise + 0.6 * towards).astype(np.float32)

        return rows

    return {layer: of(layer) for layer in checkpoint.moe_layers}


def steer(traffic, client, most, **policy):
    """Until MaxVio of every layer is at most `most`."""
    for rate in RATES[:-1]:
        client.set_balance(rate=rate, **policy)
        for _ in range(25):
            traffic.send()
    client.set_balance(rate=RATES[-1], **policy)
    traffic.send_until_even(most)


@pytest.fixture(scope="session")
def synthetic(checkpoints):
    return checkpoints("qwen3_moe", experts=32, top_k=4, intermediate=16)


@pytest.fixture(scope="session")
def demo():
    config = json.loads((DEMO / "config.json").read_text())
    return Checkpoint(
        DEMO, config, read_safetensors(DEMO / "model.safetensors"), DTYPES["BF16"]
    )


@pytest.fixture(scope="module")
def capitals(tmp_path_factory, demo):
    """layer -> hidden states of a text in capitals, of which the demo model has read few."""
    folder = tmp_path_factory.mktemp("capitals")
    text = folder / "text"
    text.write_text((DEMO / "held_out.txt").read_text()[:2048].upper())
    with Mesh(folder) as mesh:
        mesh.start(DEMO, shards(1))
        with recorder(mesh.router.address) as (address, seen):
            cli("evaluate", "--router", address, "--model", DEMO, "--text", text)
            rows = seen.rows
    assert sorted(rows) == demo.moe_layers
    return rows


def test_a_skewed_text_is_balanced(mesh, demo, capitals):
    mesh.start(DEMO, shards(2), "--quality-budget=1", *FAST)
    traffic = Traffic(mesh.client, {k: lambda _, x=x: x for k, x in capitals.items()}, 32)
    assert min(traffic.send()) > 1.0
    steer(traffic, mesh.client, 0.10, rule="sign", step_tokens=len(capitals[1]))
    traffic.check_counted()
    # The checkpoint's choice is still to be had, and is the skewed one.
    for layer, x in capitals.items():
        first = next(batch.ids for batch in traffic.batches if batch.layer == layer)
        assert_same(mesh.client.forward(layer, x, PINNED).expert_ids, first)


def test_skewed_inputs_are_balanced(mesh, synthetic):
    mesh.start(synthetic.path, shards(2), "--quality-budget=1", *FAST)
    traffic = Traffic(mesh.client, zipf_inputs(synthetic, 16384), 32)
    assert min(traffic.send()) > 1.0
    steer(traffic, mesh.client, 0.10, rule="sign", step_tokens=16384)
    traffic.check_counted()
    # What is computed is what the experts that were chosen make of it.
    x = zipf_inputs(synthetic, 100)[1](0)
    answer = mesh.client.forward(1, x, ROUTED)
    expected = reference.combine(synthetic, 1, x, answer.expert_ids, answer.expert_weights)
    assert_rows_close(answer.output, expected, 1e-5)


def check_budget(traffic, client, budget, exact):
    """No more tokens than `budget` change experts: of all, of those in the end, and, where every batch has the
    same rows (`exact`), of each batch. MaxVio is better in the end."""
    pinned = {}
    for layer in traffic.layers:
        shares, before, after = [], [], []
        for batch in traffic.of(layer):
            key = layer if exact else (layer, batch.number)
            if key not in pinned:
                x = traffic.rows(layer, batch.number)
                pinned[key] = client.forward(layer, x, PINNED).expert_ids
            shares.append(changed(batch.ids, pinned[key]).mean())
            before.append(max_violation(counts(pinned[key], 32)))
            after.append(max_violation(counts(batch.ids, 32)))
        assert np.mean(shares) <= budget
        # What is allowed is used.
        assert budget / 2 < np.mean(shares[-10:]) <= budget
        assert not exact or max(shares) <= budget
        assert np.mean(after[-10:]) < np.mean(before[-10:])


def test_a_text_keeps_within_the_default_budget(mesh, capitals):
    mesh.start(DEMO, shards(1), "--balance=proportional", *FAST)
    traffic = Traffic(mesh.client, {k: lambda _, x=x: x for k, x in capitals.items()}, 32)
    mesh.client.set_balance(rate=0.01, step_tokens=len(capitals[1]))
    traffic.send_epochs(80)
    check_budget(traffic, mesh.client, 0.02, exact=True)


def test_skewed_inputs_keep_within_the_default_budget(mesh, synthetic):
    mesh.start(synthetic.path, shards(1), "--balance=sign", *FAST)
    traffic = Traffic(mesh.client, zipf_inputs(synthetic, 4096), 32)
    mesh.client.set_balance(rate=0.01, step_tokens=4096)
    traffic.send_epochs(60)
    check_budget(traffic, mesh.client, 0.02, exact=False)


def test_an_epoch_replays(mesh, synthetic):
    mesh.start(synthetic.path, shards(1), "--quality-budget=1", *FAST)
    mesh.client.set_balance(rule="sign", rate=0.01, step_tokens=512)
    traffic = Traffic(mesh.client, zipf_inputs(synthetic, 512), 32)
    traffic.send_epochs(10)
    mesh.client.set_balance(paused=True)
    away = 0
    for batch in traffic.batches:
        bias = mesh.client.bias(batch.epoch)
        assert bias.epoch == batch.epoch
        (values,) = [layer.values for layer in bias.layers if layer.layer == batch.layer]
        z = reference.logits(synthetic, batch.layer, traffic.rows(batch.layer, batch.number))
        score = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
        score = score / score.sum(axis=1, keepdims=True)
        ranked = score + np.array(values, np.float64)
        order = np.argsort(-ranked, axis=1, kind="stable")
        nearest = np.take_along_axis(ranked, order[:, 3:5], axis=1)
        clear = nearest[:, 0] - nearest[:, 1] > 1e-6
        assert clear.mean() > 0.9
        assert not changed(order[:, :4], batch.ids)[clear].any()
        away += changed(np.argsort(-score, axis=1)[:, :4], batch.ids).sum()
    assert away > 0
