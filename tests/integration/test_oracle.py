"""The oracle of the other suites against the models' own code: transformers' MoE blocks, loaded with the
checkpoints that the tests make. Where transformers has the block and is known to be right."""

import importlib

import numpy as np
import pytest
import torch
import transformers

import reference
from arrays import assert_rows_close
from checkpoint import make_checkpoint
from mesh import hidden_states


def model_class(family, name):
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    return getattr(module, name)


class GraniteShared(torch.nn.Module):
    """The two halves that a decoder layer adds."""

    def __init__(self, config):
        super().__init__()
        self.block_sparse_moe = model_class("granitemoeshared", "GraniteMoeSharedMoE")(config)
        self.shared_mlp = model_class("granitemoeshared", "GraniteMoeSharedMLP")(config)

    def forward(self, x):
        return self.block_sparse_moe(x)[0] + self.shared_mlp(x)


class Granite(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.block_sparse_moe = model_class("granitemoe", "GraniteMoeMoE")(config)

    def forward(self, x):
        return self.block_sparse_moe(x)[0]


def nllb(config):
    made = model_class("nllb_moe", "NllbMoeSparseMLP")(config, config.encoder_ffn_dim)
    forward = made.forward
    made.forward = lambda x: forward(x, None)  # No mask of padding.
    return made


def block(name, family=None):
    return lambda config: model_class(family or config.model_type, name)(config)


BLOCKS = {
    "mixtral": block("MixtralSparseMoeBlock"),
    "phimoe": block("PhimoeSparseMoeBlock"),
    "qwen2_moe": block("Qwen2MoeSparseMoeBlock"),
    "qwen3_moe": block("Qwen3MoeSparseMoeBlock"),
    "olmoe": block("OlmoeSparseMoeBlock"),
    # This version's block never renormalises; the checkpoints' configurations do not ask for it.
    "deepseek_v2": block("DeepseekV2MoE"),
    "deepseek_v3": block("DeepseekV3MoE"),
    "glm4_moe": block("Glm4MoeMoE"),
    "granitemoe": Granite,
    "granitemoeshared": GraniteShared,
    "gpt_oss": block("GptOssMLP"),
    "llama4_text": block("Llama4TextMoe", "llama4"),
    "dbrx": block("DbrxFFN"),
    "jamba": block("JambaSparseMoeBlock"),
    "ernie4_5_moe": block("Ernie4_5_MoeSparseMoeBlock"),
    "switch_transformers": block("SwitchTransformersSparseMLP"),
    "nllb-moe": nllb,
}


def tensor(array):
    if array.dtype == np.float32:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)


def load_block(checkpoint, layer, dtype):
    config = transformers.AutoConfig.from_pretrained(checkpoint.path)
    config._attn_implementation = "eager"
    module = BLOCKS[checkpoint.config["model_type"]](config).to(dtype).eval()
    prefix = checkpoint.moe.prefixes[layer]
    state = {
        name.removeprefix(prefix): tensor(array)
        for name, array in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    # Every tensor has its place and every place its tensor: names and shapes are the models' own.
    module.load_state_dict(state, strict=True)
    for name, buffer in module.named_buffers():
        if name in state:
            buffer.data = state[name].to(torch.float32)
    if checkpoint.config["model_type"] == "ernie4_5_moe":
        # Always computed in float32, from weights of any type.
        module.gate.float()
    return module


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("family", BLOCKS)
def test_blocks_agree(tmp_path, family, dtype):
    checkpoint = make_checkpoint(
        tmp_path / "model", family, d_model=192, intermediate=48, dtype=dtype
    )
    layer = checkpoint.moe_layers[-1]
    if family in ("deepseek_v3", "glm4_moe"):
        # This version masks groups with 0, which is right where every choice is positive.
        checkpoint.reader(layer)(checkpoint.moe.select_bias)[:] += 0.4
    torch_dtype = torch.float32 if dtype == "F32" else torch.bfloat16
    module = load_block(checkpoint, layer, torch_dtype)
    x = torch.from_numpy(hidden_states(64, 192, seed=5)).to(torch_dtype)
    with torch.no_grad():
        output = module(x[None])
    output = (output[0] if isinstance(output, tuple) else output).reshape(x.shape)
    given = x.float().numpy().astype(checkpoint.dtype)
    expected, chosen = reference.forward(checkpoint, layer, given)
    # Tokens whose choice of experts depends on rounding are left out: either choice may be right.
    known = ~chosen.close if dtype == "BF16" else np.full(64, True)
    assert known.mean() > 0.6
    bound = np.where(known, 1e-5 if dtype == "F32" else 2e-2, np.inf)
    assert_rows_close(output.float(), expected, bound)
    if family == "switch_transformers":
        assert not chosen.kept.all()
