"""Real models of the transformers library, tiny and random: their MoE blocks and ours on the hidden states
of real text that flows through the model. Where 4.57 is a safe oracle, that is: DeepSeek-V2's group limit,
normalised V2 and negative choices of V3 are in the golden files instead."""

import numpy as np
import pytest
import torch

import tiny_models
import torch_blocks
from arrays import assert_close, assert_rows_close, assert_same, relative_error
from expertmesh import ForwardOptions
from mesh import Mesh, shards


def dense(result, experts):
    """[tokens, experts] weights of an answer; 0: not chosen."""
    tokens = len(result.output)
    weights = np.zeros((tokens, experts), np.float32)
    counts = result.assignments_per_token
    if counts is None:
        counts = np.full(tokens, result.expert_ids.shape[1])
    rows = np.repeat(np.arange(tokens), counts)
    weights[rows, result.expert_ids.ravel()] = result.expert_weights.ravel()
    return weights


def differ_by_a_tie(block, ours, row):
    """Whether the experts on which the two differ have logits one bfloat16 rounding apart or less."""
    z = block.logits[row, (block.weights[row] != 0) != (ours[row] != 0)]
    return np.ptp(z) <= max(1.0, np.abs(z).max()) * 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_blocks_of_real_models(tmp_path, family, dtype):
    model = tiny_models.make(family, dtype)
    model.save_pretrained(tmp_path / "model", safe_serialization=True)
    blocks = torch_blocks.observe(model, **tiny_models.inputs(family))
    exact = dtype == torch.float32
    with Mesh(tmp_path) as mesh:
        # Ties as torch settles them: not only sets of experts but choices must agree.
        mesh.start(tmp_path / "model", shards(3), "--tie-order", "torch-cpu")
        described = [layer.layer for layer in mesh.client.describe().layers]
        assert described == sorted(blocks) == tiny_models.MOE_LAYERS[family]
        for layer, block in blocks.items():
            label = f"layer {layer}"
            result = mesh.client.forward(layer, block.hidden, ForwardOptions(return_routing=True))
            assert result.output.dtype == dtype
            weights = dense(result, block.weights.shape[1])
            same = ((weights != 0) == (block.weights != 0)).all(axis=1)
            if exact:
                assert_same(weights != 0, block.weights != 0, f"experts of {label}")
            else:
                assert all(differ_by_a_tie(block, weights, row) for row in np.nonzero(~same)[0])
                assert same.mean() > 0.97
            assert_close(
                weights[same], block.weights[same], rtol=1e-4 if exact else 1e-2, label=label
            )
            expected = block.output.float().numpy()
            # A token that capacity dropped has an output of zeros.
            kept = same & (expected != 0).any(axis=1)
            output = result.output.float().numpy()
            assert_same(output[same & ~kept], expected[same & ~kept], f"dropped in {label}")
            output, expected = output[kept], expected[kept]
            far = relative_error(output, expected) > (1e-5 if exact else 1e-2)
            if exact or not far.any():
                assert_rows_close(output, expected, 1e-5 if exact else 1e-2, label)
                continue
            # Torch rounds after every step, gpt-oss most often: 9.8e-3 from its own float32.
            unrounded = torch_blocks.in_float32(block)[kept][far]
            bound = np.minimum(1e-2, relative_error(expected[far], unrounded))
            assert_rows_close(output[far], unrounded, bound, f"{label}, far from torch's own")
