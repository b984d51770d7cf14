"""The training of the demo model, in steps of seconds.

deploy/README.md, The demo model, runs it as `deploy/packages.sh install --training`, `deploy/venv.sh` and python
with train_demo.py; here its main() runs on another text, so that no package is needed.
"""

import argparse
import json
import pathlib
import sys

import pytest
import torch
import transformers
from arrays import assert_close, assert_different, assert_same

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import demo_network  # noqa: E402
import demo_optimizer  # noqa: E402
import demo_text  # noqa: E402
import train_demo  # noqa: E402

torch.set_num_threads(1)
TEXTS = ["And God said, Let there be light: and there was light. %d\n" % i for i in range(40)]


@pytest.fixture
def arguments():
    return argparse.Namespace(
        steps=5, batch_tokens=1024, bias_rate=1e-3, seed=1, save_every=2, compare_steps=2
    )


@pytest.fixture
def learned():
    return train_demo.encode(TEXTS)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def check_same(found, expected):
    """What `weights` returned, twice."""
    __tracebackhide__ = True
    assert list(found) == list(expected)
    for name in expected:
        assert_same(found[name], expected[name], name)


def train(learned, arguments, state=None):
    network, _ = train_demo.train(
        "test", arguments.steps, arguments.bias_rate, learned, arguments, state
    )
    return network


def test_an_interrupted_run_goes_on_where_it_was(learned, arguments, tmp_path, monkeypatch):
    whole = weights(train(learned, arguments))
    state = tmp_path / "state.pt"
    steps = []
    step_once = train_demo.step_once

    def interrupted(*values):
        steps.append(values[3])
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step_once(*values)

    monkeypatch.setattr(train_demo, "step_once", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(learned, arguments, state)
    resumed = weights(train(learned, arguments, state))
    # Three steps, a broken one, and three more from the state of step 2.
    assert len(steps) == 7 and steps[4] == pytest.approx(3 / 5)
    check_same(resumed, whole)
    arguments.seed = 2
    with pytest.raises(SystemExit, match="other options"):
        train(learned, arguments, state)


def test_the_loss_falls_and_the_bias_follows_the_load(learned, arguments):
    torch.manual_seed(1)
    network = demo_network.Network(train_demo.configuration())
    optimizer = demo_optimizer.Optimizer(network)
    losses = []
    for step in range(12):
        batch = train_demo.draw(learned, step, arguments, 128)
        before = [experts.bias.clone() for _, experts in network.moe_layers()]
        losses.append(train_demo.step_once(network, optimizer, batch, 0.3, 0.01))
        for old, (_, experts) in zip(before, network.moe_layers()):
            moved = experts.bias - old
            busy = experts.load > experts.load.mean()
            assert_close(moved[busy], torch.full_like(moved[busy], -0.01), rtol=1e-5, atol=1e-8)
            assert (moved[~busy] >= 0).all()
            assert experts.load.sum() == 4 * batch.numel() * 128 / 129
    assert losses[-1] < losses[0] - 1.0


def test_the_whole_script(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_text, "chapters", lambda: TEXTS * 2)
    options = ["--steps=3", "--compare-steps=2", "--batch-tokens=1024"]
    monkeypatch.setattr(sys, "argv", ["train_demo.py", "--output", str(tmp_path), *options])
    train_demo.main()
    figures = json.loads((tmp_path / "training.json").read_text())
    assert figures["steps"] == 3 and figures["bits_per_byte"] < 9
    for name in ("without_bias_update", "with_bias_update"):
        assert set(figures["comparison"][name]["max_violation"]) == {"1", "2", "3", "4"}
    assert (tmp_path / "held_out.txt").read_text() == "".join(demo_text.split(TEXTS * 2)[1])
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "training_state.pt" not in names
    assert "held-out bits per byte" in capsys.readouterr().out


def test_batches_depend_on_seed_and_step_alone(learned, arguments):
    first = train_demo.draw(learned, 3, arguments, 128)
    assert first.shape == (8, 129)
    assert_same(train_demo.draw(learned, 3, arguments, 128), first)
    assert_different(train_demo.draw(learned, 4, arguments, 128), first)


def test_transformers_computes_what_was_trained(learned, arguments, tmp_path):
    """`save` compares, and a difference fails it; here one is made."""
    network = train(learned, arguments)
    train_demo.round_weights(network)
    train_demo.save(network, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) <= 8 * 2**20
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for layer, experts in network.moe_layers():
        gate = model.model.layers[layer].mlp.gate
        assert_same(gate.e_score_correction_bias, experts.bias)
    monkey = demo_network.rotate
    demo_network.rotate = lambda x, cos, sin: monkey(x, cos, -sin)
    try:
        with pytest.raises(RuntimeError, match="differ"):
            train_demo.save(network, tmp_path / "wrong")
    finally:
        demo_network.rotate = monkey


def test_bits_per_byte_of_a_uniform_model():
    network = demo_network.Network(train_demo.configuration()).eval()
    torch.nn.init.zeros_(network.head.weight)
    figures = train_demo.evaluate(network, train_demo.encode(TEXTS))
    tokens = sum(map(len, TEXTS)) + len(TEXTS)
    uniform = torch.log2(torch.tensor(257.0)).item()
    assert figures["bits_per_byte"] == pytest.approx(
        uniform * tokens / sum(map(len, TEXTS)), abs=1e-3
    )
    assert list(figures["max_violation"]) == ["1", "2", "3", "4"]


def test_max_violation():
    assert train_demo.max_violation(torch.tensor([2.0, 2.0])) == 0
    assert train_demo.max_violation(torch.tensor([6.0, 0.0, 0.0])) == pytest.approx(2)


def test_every_sixteenth_text_is_held_out():
    learned, held_out = demo_text.split([str(i) for i in range(33)])
    assert held_out == ["15", "31"] and len(learned) == 31
