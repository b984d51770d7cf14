"""The MoE block in numpy, written from the formulas of the model families and from nothing else.

Routing is in float32 with the roundings that a model of the checkpoint's dtype makes; expert math is in
float64 on the checkpoint's own weights.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Route:
    """ids, weights: [tokens, k], best first. margin: [tokens], how far the first expert that was not
    chosen is behind the last that was, in the units of what is ranked."""

    ids: np.ndarray
    weights: np.ndarray
    margin: np.ndarray


def _block(checkpoint, layer):
    name = "block_sparse_moe" if checkpoint.config["model_type"] == "mixtral" else "mlp"
    return f"model.layers.{layer}.{name}"


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _silu(x):
    return x * _sigmoid(x)


def logits(checkpoint, layer, x):
    """float32 [tokens, experts]; x already in the model's dtype."""
    weight = checkpoint.tensors[f"{_block(checkpoint, layer)}.gate.weight"]
    z = (x.astype(np.float64) @ weight.astype(np.float64).T).astype(np.float32)
    if checkpoint.config["model_type"] == "deepseek_v3":
        return z
    return z.astype(checkpoint.dtype).astype(np.float32)


def _limit_groups(choice, groups, kept):
    tokens, experts = choice.shape
    grouped = choice.reshape(tokens, groups, experts // groups)
    group_score = np.sort(grouped, axis=2)[:, :, -2:].sum(axis=2)
    best = np.argsort(-group_score, axis=1, kind="stable")[:, :kept]
    mask = np.full((tokens, groups, 1), True)
    np.put_along_axis(mask, best[:, :, None], False, axis=1)
    return np.where(mask, -np.inf, grouped).reshape(tokens, experts)


def route(checkpoint, layer, x):
    config = checkpoint.config
    k = config["num_experts_per_tok"]
    z = logits(checkpoint, layer, x)
    deepseek = config["model_type"] == "deepseek_v3"
    if deepseek:
        score = _sigmoid(z).astype(np.float32)
        bias = checkpoint.tensors[f"{_block(checkpoint, layer)}.gate.e_score_correction_bias"]
        choice = _limit_groups(
            score + bias.astype(np.float32), config["n_group"], config["topk_group"]
        )
    else:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        score = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
        choice = z  # The same order as the softmax, without its rounding.
    # Stable: of equals the lowest index is first.
    order = np.argsort(-choice, axis=1, kind="stable")
    ids = order[:, :k]
    weights = np.take_along_axis(score, ids, axis=1)
    ranked = np.take_along_axis(choice, order, axis=1)
    margin = ranked[:, k - 1] - ranked[:, k] if k < z.shape[1] else np.full(len(x), np.inf)
    if config.get("norm_topk_prob", True):
        total = weights.sum(axis=1, keepdims=True, dtype=np.float32)
        weights = weights / (total + np.float32(1e-20) if deepseek else total)
    if deepseek:
        weights = weights * np.float32(config["routed_scaling_factor"])
    else:
        weights = weights.astype(checkpoint.dtype).astype(np.float32)
    return Route(ids.astype(np.uint32), weights.astype(np.float32), margin)


def _glu(checkpoint, prefix, names, x):
    gate, up, down = (
        checkpoint.tensors[f"{prefix}.{name}.weight"].astype(np.float64) for name in names
    )
    return (_silu(x @ gate.T) * (x @ up.T)) @ down.T


def combine(checkpoint, layer, x, ids, weights):
    """float64 [tokens, d_model]: shared experts plus the weighted sum of the given ones."""
    block = _block(checkpoint, layer)
    mixtral = checkpoint.config["model_type"] == "mixtral"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    x = x.astype(np.float64)
    output = np.zeros_like(x)
    for expert in np.unique(ids):
        token, slot = np.nonzero(ids == expert)
        y = _glu(checkpoint, f"{block}.experts.{expert}", names, x[token])
        np.add.at(output, token, weights[token, slot, None].astype(np.float64) * y)
    if checkpoint.config.get("n_shared_experts"):
        output += _glu(checkpoint, f"{block}.shared_experts", names, x)
    return output


def forward(checkpoint, layer, x):
    """(output, Route) for hidden states [tokens, d_model]."""
    x = np.asarray(x).astype(checkpoint.dtype)
    chosen = route(checkpoint, layer, x)
    return combine(checkpoint, layer, x, chosen.ids, chosen.weights), chosen


def relative_error(actual, expected):
    """[tokens] norm of the difference over norm of the expected row."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)
