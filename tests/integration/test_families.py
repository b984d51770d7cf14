"""Every model family, served by three nodes from a checkpoint in its own layout, against the oracle."""

import ml_dtypes
import numpy as np
import pytest

import reference
from arrays import assert_rows_close, assert_same_bits
from checkpoint import make_checkpoint
from expert_node import Node
from expertmesh import ForwardOptions
from families import FAMILIES
from mesh import Mesh, hidden_states, shards

# Wide rows: errors are norms of rows, and in short ones single roundings would dominate them. Experts wider
# than a block of FP8 scales, and no multiple of it.
SIZES = dict(d_model=256, experts=16, top_k=4, intermediate=160)
QUANTISED = [(family, quantised) for family in FAMILIES for quantised in FAMILIES[family].quantised]


def routing_of(result, tokens):
    """[{expert: weight}], one for each token."""
    counts = result.assignments_per_token
    if counts is None:
        counts = np.full(tokens, result.expert_ids.shape[-1])
    ends = np.cumsum(counts)
    assert len(ends) == tokens
    assert result.expert_ids.size == ends[-1] == result.expert_weights.size
    ids, weights = result.expert_ids.reshape(-1), result.expert_weights.reshape(-1)
    return [
        dict(zip(ids[end - count : end].tolist(), weights[end - count : end].tolist(), strict=True))
        for end, count in zip(ends, counts, strict=True)
    ]


def padded(routing):
    """(ids, weights) [tokens, most experts of a token], with weight 0 where there is none."""
    width = max(1, *map(len, routing))
    ids = np.zeros((len(routing), width), np.uint32)
    weights = np.zeros((len(routing), width), np.float32)
    for token, experts in enumerate(routing):
        ids[token, : len(experts)] = list(experts)
        weights[token, : len(experts)] = list(experts.values())
    return ids, weights


def expected_routing(chosen):
    return [
        {int(expert): float(weight) for expert, weight, kept in zip(*token, strict=True) if kept}
        for token in zip(chosen.ids, chosen.weights, chosen.kept, strict=True)
    ]


def check(mesh, checkpoint, layer, tokens, tolerance, weight_tolerance):
    """Experts, weights and output of one layer. Returns the share of tokens with the oracle's experts."""
    x = hidden_states(tokens, checkpoint.d_model, seed=layer).astype(checkpoint.dtype)
    result = mesh.client.forward(
        layer, x, ForwardOptions(return_routing=True, output_dtype="float32")
    )
    _, chosen = reference.forward(checkpoint, layer, x)
    routing, expected = routing_of(result, tokens), expected_routing(chosen)
    same = np.array([a.keys() == b.keys() for a, b in zip(routing, expected, strict=True)])
    # With capacity, one token's choice decides for the others of its sequence.
    close = chosen.close
    if checkpoint.moe.routing.capacity is not None and close.any():
        close = np.full(tokens, True)
    assert np.all(same | close), f"layer {layer}: other experts for {np.nonzero(~(same | close))}"
    for token in np.nonzero(same & ~close)[0]:
        for expert, weight in expected[token].items():
            assert routing[token][expert] == pytest.approx(weight, rel=weight_tolerance, abs=1e-7)
    # What the experts make of the tokens, by the routing that there was.
    output = reference.combine(checkpoint, layer, x, *padded(routing))
    assert_rows_close(result.output, output, tolerance, f"layer {layer}")
    return same.mean()


def check_all(mesh, checkpoint, *flags, **tolerances):
    mesh.start(checkpoint.path, shards(3, *flags), *flags)
    checkpoint = checkpoint.computed_by(mesh)
    described = mesh.client.describe()
    assert [layer.layer for layer in described.layers] == checkpoint.moe_layers
    for layer in checkpoint.moe_layers:
        assert check(mesh, checkpoint, layer, 100, **tolerances) >= 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_float32(mesh, tmp_path, family):
    checkpoint = make_checkpoint(tmp_path / "model", family, **SIZES)
    check_all(mesh, checkpoint, tolerance=1e-5, weight_tolerance=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16(mesh, tmp_path, family):
    checkpoint = make_checkpoint(tmp_path / "model", family, dtype="BF16", **SIZES)
    check_all(mesh, checkpoint, tolerance=1e-2, weight_tolerance=2e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_weights_in_float32(mesh, tmp_path, family):
    checkpoint = make_checkpoint(tmp_path / "model", family, dtype="BF16", **SIZES)
    f32 = "--compute-dtype=f32"
    check_all(mesh, checkpoint, f32, tolerance=1e-5, weight_tolerance=1e-4)


def test_swiglu_alpha_is_what_config_says(mesh, tmp_path):
    checkpoint = make_checkpoint(
        tmp_path / "model",
        "gpt_oss",
        changes={"swiglu_alpha": 1.3, "swiglu_limit": 5.0},
        **SIZES,
    )
    check_all(mesh, checkpoint, tolerance=1e-5, weight_tolerance=1e-4)


@pytest.mark.parametrize("family, quantised", QUANTISED)
def test_quantised(mesh, tmp_path, family, quantised):
    checkpoint = make_checkpoint(
        tmp_path / "model", family, dtype="BF16", quantised=quantised, **SIZES
    )
    stored = {array.dtype for array in checkpoint.tensors.values()}
    assert stored & {np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(np.uint8)}
    check_all(mesh, checkpoint, tolerance=1e-2, weight_tolerance=2e-2)


@pytest.mark.parametrize("family, quantised", QUANTISED)
def test_compressed_weights_give_the_same_bits_in_less_memory(tmp_path, family, quantised):
    checkpoint = make_checkpoint(
        tmp_path / "model", family, dtype="BF16", quantised=quantised, **SIZES
    )
    outputs, held, stored = [], [], []
    for mode in ("expanded", "compressed"):
        folder = tmp_path / mode
        folder.mkdir()
        with Mesh(folder) as mesh:
            mesh.start(checkpoint.path, shards(2, "--weights", mode))
            x = hidden_states(100, checkpoint.d_model, seed=4)
            outputs.append([mesh.client.forward(at, x).output for at in checkpoint.moe_layers])
            memories = []
            for node in mesh.nodes:
                with Node(node) as service:
                    memories.append(service.describe().memory)
            held.append(sum(memory.weights_bytes for memory in memories))
            stored.append(sum(memory.checkpoint_bytes for memory in memories))
    for layer, expanded, compressed in zip(checkpoint.moe_layers, *outputs, strict=True):
        assert_same_bits(compressed, expanded, f"layer {layer}")
    assert stored[0] == stored[1]
    assert held[1] < held[0] / 1.5
