"""Real models of the transformers library, tiny and random: their MoE blocks and ours on the hidden states
of real text that flows through the model."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

import reference
from mesh import Mesh, shards
from tiny_models import TEXT, deepseek_v3, mixtral, qwen3_moe


@dataclasses.dataclass
class Block:
    """What one MoE block received and made: [tokens, ...], in the model's dtype."""

    hidden: torch.Tensor
    output: torch.Tensor
    ids: np.ndarray
    weights: np.ndarray
    logits: np.ndarray


def chosen_by_softmax(model, logits):
    """The routing of Mixtral and Qwen3-MoE from the logits that the block returned."""
    scores = torch.softmax(logits, dim=1, dtype=torch.float)
    weights, ids = torch.topk(scores, model.config.num_experts_per_tok, dim=-1)
    return ids, (weights / weights.sum(dim=-1, keepdim=True)).to(logits.dtype)


def observe(model):
    """Runs the text through the model; returns {layer: Block}."""
    seen, hooks = {}, []

    def watch(layer, block):
        gate_answer = {}

        def gate_hook(module, inputs, output):
            gate_answer["output"] = output

        def block_hook(module, inputs, output):
            hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
            result = output[0] if isinstance(output, tuple) else output
            answer = gate_answer["output"]
            if isinstance(answer, tuple):
                ids, weights = answer
                z = torch.nn.functional.linear(hidden.float(), module.gate.weight.float())
            else:
                z = answer
                ids, weights = chosen_by_softmax(model, z)
            seen[layer] = Block(
                hidden.clone(),
                result.reshape(hidden.shape).clone(),
                ids.numpy().astype(np.uint32),
                weights.float().numpy(),
                z.float().numpy(),
            )

        hooks.append(block.gate.register_forward_hook(gate_hook))
        hooks.append(block.register_forward_hook(block_hook))

    for index, layer in enumerate(model.model.layers):
        block = getattr(layer, "block_sparse_moe", None) or layer.mlp
        if hasattr(block, "gate"):
            watch(index, block)
    tokens = torch.tensor([list(TEXT.encode())])
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


def by_expert(ids, weights):
    order = np.argsort(ids, axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(weights, order, axis=1)


def tied(block, ours, row):
    """Whether the experts on which the two differ have logits one bfloat16 rounding apart or less."""
    differ = list(set(block.ids[row]) ^ set(ours[row]))
    z = block.logits[row, differ]
    return np.ptp(z) <= np.abs(z).max() * 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("build", [mixtral, qwen3_moe, deepseek_v3])
def test_blocks_of_real_models(tmp_path, build, dtype):
    torch.manual_seed(3)
    model = build().to(dtype).eval()
    folder = pathlib.Path(tmp_path) / "model"
    model.save_pretrained(folder, safe_serialization=True)
    blocks = observe(model)
    assert len(blocks) == (2 if build is deepseek_v3 else 3)
    exact = dtype == torch.float32
    with Mesh(tmp_path) as mesh:
        mesh.start(folder, shards(3))
        assert [layer.layer for layer in mesh.client.describe().layers] == sorted(blocks)
        for layer, block in blocks.items():
            result = mesh.client.forward(layer, block.hidden, return_routing=True)
            assert result.output.dtype == dtype
            ids, weights = by_expert(result.expert_ids, result.expert_weights)
            real_ids, real_weights = by_expert(block.ids, block.weights)
            same = (ids == real_ids).all(axis=1)
            if exact or build is deepseek_v3:
                assert same.all()
            else:
                assert all(tied(block, result.expert_ids, row) for row in np.nonzero(~same)[0])
                assert same.mean() > 0.97
            np.testing.assert_allclose(
                weights[same], real_weights[same], rtol=1e-4 if exact else 1e-2
            )
            error = reference.relative_error(
                result.output.float().numpy()[same], block.output.float().numpy()[same]
            )
            assert error.max() <= (1e-5 if exact else 1e-2), f"layer {layer}: {error.max()}"
