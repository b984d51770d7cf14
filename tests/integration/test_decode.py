"""Native decoding against the transformers library: logits of whole models with their experts in a mesh."""

import json
import math
import pathlib
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

import tiny_models
from arrays import assert_close, assert_same, assert_same_bits
from expertmesh import hf
from mesh import PATIENCE, Mesh, cli, shards

torch.set_num_threads(1)
NODES = 3
TOKENS = 96
DEMO = pathlib.Path(__file__).parents[2] / "deploy" / "demo_model"
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def serve(tmp_path):
    """serve(folder, nodes): the address of a mesh that computes in float32, or in the type that is said, and stops
    with the test. flags: more for its router."""
    started = []

    def start(folder, nodes=NODES, dtype="f32", flags=()):
        base = tmp_path / f"mesh{len(started)}"
        base.mkdir()
        mesh = Mesh(base)
        started.append(mesh)
        compute = f"--compute-dtype={dtype}"
        mesh.__enter__().start(folder, shards(nodes, compute), compute, *flags)
        return mesh.router.address

    yield start
    for mesh in started:
        mesh.__exit__(None, None, None)


def native_logits(experts, folder, tokens):
    """Logits of all tokens but the last, in one window. experts: flags that say where they are."""
    path = folder / "logits.safetensors"
    text = ",".join(map(str, tokens))
    window = ["--window", len(tokens) - 1, "--logits", path]
    cli("evaluate", *experts, "--model", folder, "--tokens", text, *window)
    return safetensors.torch.load_file(path)["logits"]


def check_logits(model, serve, folder):
    model.save_pretrained(folder)
    check_saved(model, ["--router", serve(folder)], folder)


def check_saved(model, experts, folder):
    tokens = tiny_models.tokens(1, TOKENS + 1)
    with torch.no_grad():
        expected = model(tokens[:, :-1]).logits[0]
    found = native_logits(experts, folder, tokens[0].tolist())
    assert_close(found, expected, atol=1e-4)
    # A comparison of nothing with nothing would pass, too.
    assert expected.abs().max() > 0.5


FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe", "deepseek_v2", "deepseek_v3")


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(serve, tmp_path, family):
    check_logits(tiny_models.make(family), serve, tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_weights_in_float32(serve, tmp_path, family):
    folder = tmp_path / "model"
    tiny_models.make(family, torch.bfloat16).save_pretrained(folder)
    # (Not made.float(): that would leave buffers rounded, rotary frequencies for one.)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    check_saved(model, ["--router", serve(folder)], folder)
    check_saved(model, ["--local", "--compute-dtype=f32"], folder)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bits_of_one_node_are_those_of_this_process(serve, tmp_path, family, dtype):
    """Partials travel as float32: in the default of bf16 they are rounded once more."""
    folder = tmp_path / "model"
    tiny_models.make(family, torch.bfloat16).save_pretrained(folder)
    tokens = tiny_models.tokens(1, TOKENS + 1)[0].tolist()
    compute = f"--compute-dtype={dtype}"
    address = serve(folder, 1, dtype, ["--wire-partials=f32"])
    there = native_logits(["--router", address, compute], folder, tokens)
    here = native_logits(["--local", compute], folder, tokens)
    assert_same_bits(here.numpy(), there.numpy())
    assert here.abs().max() > 0.5


def changed(family, **changes):
    """A builder's model with other options of its config."""
    config = tiny_models.make(family).config
    for key, value in changes.items():
        assert key == "rope_scaling" or hasattr(config, key), key
        setattr(config, key, value)
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


VARIANTS = {
    "mixtral grouped, window": ("mixtral", dict(num_key_value_heads=2, sliding_window=20)),
    "qwen3 grouped, biased": ("qwen3_moe", dict(num_key_value_heads=1, attention_bias=True)),
    "qwen3 dense layers": ("qwen3_moe", dict(mlp_only_layers=[0, 2])),
    "qwen3 window": ("qwen3_moe", dict(sliding_window=17, use_sliding_window=True)),
    "qwen2 yarn": ("qwen2_moe", dict(rope_scaling=YARN, max_position_embeddings=256)),
    "olmoe clipped, grouped": ("olmoe", dict(clip_qkv=0.7, num_key_value_heads=2)),
    "glm4 norms and biases": ("glm4_moe", dict(use_qk_norm=True, attention_bias=True)),
    "mixtral linear rope": ("mixtral", dict(rope_scaling={"rope_type": "linear", "factor": 3.0})),
    # Both beyond max_position_embeddings.
    "qwen3 dynamic rope": (
        "qwen3_moe",
        dict(rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=64),
    ),
    "qwen3 yarn": ("qwen3_moe", dict(rope_scaling=YARN, max_position_embeddings=80)),
    "mixtral tied": ("mixtral", dict(tie_word_embeddings=True)),
    "v2 plain queries": ("deepseek_v2", dict(q_lora_rank=None)),
    "v3 plain queries, biased": ("deepseek_v3", dict(q_lora_rank=None, attention_bias=True)),
    "v3 halves": ("deepseek_v3", dict(rope_interleave=False)),
    "v3 yarn": (
        "deepseek_v3",
        dict(
            rope_scaling=YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
            max_position_embeddings=256,
        ),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_other_options(serve, tmp_path, variant):
    family, changes = VARIANTS[variant]
    model = changed(family, **changes)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        # What the library initialises with zeros or ones would go unnoticed.
        if name.endswith(("bias", "_norm.weight", "layernorm.weight")):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    check_logits(model, serve, tmp_path / "model")


# --- The demo model ---

PROMPT = "And Jesus answered and said unto them,"
NEW_TOKENS = 160


@pytest.fixture(scope="module")
def demo():
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)


@pytest.fixture(scope="module")
def said(demo):
    """What transformers alone writes, as tokens."""
    prompt = torch.tensor([list(PROMPT.encode())])
    with torch.no_grad():
        text = demo.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    return text[0, prompt.shape[1] :].tolist()


def native_text(folder, *where):
    path = folder / "text.json"
    ask = ["--prompt", PROMPT, "--max-tokens", NEW_TOKENS, "--json", path]
    cli("generate", "--model", DEMO, *where, *ask)
    (sequence,) = json.loads(path.read_text())["sequences"]
    # transformers hands the end token over, too.
    return sequence["tokens"] + ([256] if sequence["ended"] == "end_token" else [])


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_same_text_natively_and_by_transformers(serve, tmp_path, said, nodes):
    assert_same(native_text(tmp_path, "--router", serve(DEMO, nodes)), said)


def test_same_text_with_the_experts_in_the_process(tmp_path, said):
    assert_same(native_text(tmp_path, "--local", "--compute-dtype=f32"), said)


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_same_text_by_attach(serve, said, nodes):
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    prompt = torch.tensor([list(PROMPT.encode())])
    with hf.attach(model, serve(DEMO, nodes), timeout=PATIENCE):
        text = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert_same(text[0, prompt.shape[1] :], said)


def test_readme(serve, monkeypatch, capsys, demo):
    """The example of the demo model, as it stands there."""
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.chdir(root)
    readme = (root / "deploy/README.md").read_text()
    (code,) = re.findall(r"```python\n(from transformers import .*?)```", readme, re.DOTALL)
    assert "127.0.0.1:50050" in code
    exec(code.replace("127.0.0.1:50050", serve(DEMO)), {})
    (prompt,) = re.findall(r'tokenizer\("(.*?)"', code)
    expected = demo.generate(torch.tensor([list(prompt.encode())]), max_new_tokens=80)[0]
    assert capsys.readouterr().out.rstrip("\n") == bytes(expected.tolist()).decode().rstrip("\n")


def test_the_tokenizer_is_that_of_transformers():
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    text = "In the beginning <|endoftext|> God\n\u00e9"
    ids = tokenizer(text).input_ids
    before, after = text.split("<|endoftext|>")
    assert ids == [*before.encode(), 256, *after.encode()]
    assert tokenizer.decode(ids) == text


def test_same_bits_per_byte(serve, tmp_path, demo):
    text = (DEMO / "held_out.txt").read_bytes()[:16384]
    (tmp_path / "text").write_bytes(text)
    path = tmp_path / "figures.json"
    where = ["--router", serve(DEMO), "--model", DEMO]
    cli("evaluate", *where, "--text", tmp_path / "text", "--window", 256, "--json", path)
    found = json.loads(path.read_text())
    tokens = torch.tensor(list(text))
    bits = 0.0
    with torch.no_grad():
        for begin in range(0, len(tokens) - 1, 256):
            window = tokens[begin : begin + 257]
            logits = demo(window[None, :-1]).logits[0].double()
            bits += F.cross_entropy(logits, window[1:], reduction="sum").item() / math.log(2)
    assert found["bits_per_byte"] == pytest.approx(bits / (len(tokens) - 1), abs=5e-4)
    assert 0.5 < found["bits_per_byte"] < 2.5
