"""The MoE block in numpy, written from the formulas of the model families (families.py says which) and from
nothing else.

Routing is in float32 with the roundings that a model of the checkpoint's dtype makes; expert math is in
float64 on the checkpoint's own weights.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Route:
    """ids, weights: [tokens, k], best first. kept: [tokens, k], False where an expert had no room (its
    weight is 0). margin: [tokens], how far the nearest decision was from going the other way, in the units
    of what is ranked. slack: [tokens], how much of that rounding may take up."""

    ids: np.ndarray
    weights: np.ndarray
    kept: np.ndarray
    margin: np.ndarray
    slack: np.ndarray

    @property
    def close(self):
        """[tokens], whether two correct programs may choose differently."""
        return self.margin <= self.slack


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _softmax(z):
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def _at(values, ids):
    return np.take_along_axis(values, ids, axis=1)


def _top(values, k):
    """(ids, margin) of the k largest; stable, so of equals the lowest index is first."""
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = _at(values, order)
    if k == values.shape[1]:
        return order, np.full(len(values), np.inf)
    return order[:, :k], ranked[:, k - 1] - ranked[:, k]


def logits(checkpoint, layer, x):
    """float32 [tokens, experts]; x already in the model's dtype."""
    moe, get = checkpoint.moe, checkpoint.reader(layer)
    z = x.astype(np.float64) @ get(moe.gate).astype(np.float64).T
    if moe.logit_bias:
        z = z + get(moe.logit_bias).astype(np.float64)
    z = z.astype(np.float32)
    return _rounded(z, checkpoint.dtype) if moe.routing.rounded_logits else z


def _rounded(values, dtype):
    return np.asarray(values, np.float32).astype(dtype).astype(np.float32)


def _limit_groups(choice, groups, kept, rank, others):
    tokens, experts = choice.shape
    grouped = choice.reshape(tokens, groups, experts // groups)
    group_rank = np.sort(grouped, axis=2)[:, :, -2 if rank == "top2" else -1 :].sum(axis=2)
    best, margin = _top(group_rank, kept)
    mask = np.full((tokens, groups, 1), True)
    np.put_along_axis(mask, best[:, :, None], False, axis=1)
    return np.where(mask, others, grouped).reshape(tokens, experts).astype(np.float32), margin


def _sparse_mixer(z, epsilon, dtype):
    """Twice the best expert, weighted among those within 2 * epsilon of it; every step in the model's
    type."""
    limit = _rounded(2 * epsilon, dtype)
    ids, weights, margin = [], [], np.full(len(z), np.inf)
    left = z.copy()
    for _ in range(2):
        best, lead = _top(left, 1)
        top = _at(z, best)
        factor = np.maximum(np.abs(z), top)
        behind = _rounded(_rounded(top - z, dtype) / factor, dtype)
        near = np.where(behind > limit, -np.inf, left)
        ids.append(best)
        weights.append(_rounded(_at(_softmax(near), best), dtype))
        threshold = np.where(np.isinf(left), np.inf, np.abs(behind - limit)).min(axis=1)
        margin = np.minimum(margin, np.minimum(lead, threshold))
        np.put_along_axis(left, best, -np.inf, axis=1)
    return np.concatenate(ids, axis=1), np.concatenate(weights, axis=1), margin


def _choose(checkpoint, layer, z):
    """(ids, weights before they are renormalised, margin)."""
    moe, routing, dtype = checkpoint.moe, checkpoint.moe.routing, checkpoint.dtype
    if routing.score == "sparse_mixer":
        return _sparse_mixer(z, routing.epsilon, dtype)
    if routing.score.startswith("selected_"):
        ids, margin = _top(z, routing.k)
        chosen = _at(z, ids)
        selected = _softmax(chosen) if routing.score.endswith("softmax") else _sigmoid(chosen)
        return ids, selected.astype(np.float32), margin
    score = _softmax(z) if routing.score == "softmax" else _sigmoid(z).astype(np.float32)
    if routing.rounded_scores:
        score = _rounded(score, dtype)
    choice, margin = score, np.inf
    if moe.select_bias:
        choice = score + checkpoint.reader(layer)(moe.select_bias).astype(np.float32).reshape(-1)
    elif routing.score == "softmax" and not routing.groups and not routing.rounded_scores:
        choice = z  # The same order as the softmax, without its rounding.
    if routing.groups:
        choice, margin = _limit_groups(choice, *routing.groups)
    ids, lead = _top(choice, routing.k)
    return ids, _at(score, ids), np.minimum(lead, margin)


def _renormalised(weights, how):
    if how is None:
        return weights
    kind, value = how
    total = weights.sum(axis=1, keepdims=True, dtype=np.float32)
    if kind == "sum":
        return weights / (total + np.float32(value))
    if kind == "clamp":
        return weights / np.maximum(total, np.float32(value))
    return weights / (weights.astype(np.float64) ** value).sum(axis=1, keepdims=True) ** (1 / value)


def route(checkpoint, layer, x):
    """x: the tokens of one sequence."""
    routing, dtype = checkpoint.moe.routing, checkpoint.dtype
    z = logits(checkpoint, layer, x)
    ids, weights, margin = _choose(checkpoint, layer, z)
    kept = np.full(ids.shape, True)
    if routing.capacity is not None:
        for expert in np.unique(ids):
            token, slot = np.nonzero(ids == expert)
            kept[token[routing.capacity :], slot[routing.capacity :]] = False
    weights = _renormalised(weights, routing.renormalise) * np.float32(routing.scale)
    if routing.rounded_weights:
        weights = _rounded(weights, dtype)
    largest = np.abs(z).max(axis=1)
    step = 2.0**-7 if dtype != np.float32 else 2.0**-22
    slack = 1e-6 + largest * (step if routing.rounded_logits else 2.0**-22)
    if routing.rounded_scores:
        slack = slack + step
    weights = np.where(kept, weights, 0).astype(np.float32)
    return Route(ids.astype(np.uint32), weights, kept, margin, slack)


def _expert(parts, x, activation, limit):
    parts = {name: part.astype(np.float64) for name, part in parts.items()}
    up = x @ parts["up"].T + parts.get("up_bias", 0.0)
    if activation == "relu":
        inner = np.maximum(up, 0.0)
    else:
        gate = x @ parts["gate"].T + parts.get("gate_bias", 0.0)
        if activation == "clamped_swiglu":
            gate = np.minimum(gate, limit)
            inner = gate * _sigmoid(1.702 * gate) * (np.clip(up, -limit, limit) + 1.0)
        else:
            inner = gate * _sigmoid(gate) * up
    return inner @ parts["down"].T + parts.get("down_bias", 0.0)


def combine(checkpoint, layer, x, ids, weights):
    """float64 [tokens, d_model]: shared experts plus the weighted sum of the given ones. An assignment of
    weight 0 is none."""
    moe, get = checkpoint.moe, checkpoint.reader(layer)
    x = x.astype(np.float64)
    output = np.zeros_like(x)
    for expert in np.unique(ids):
        token, slot = np.nonzero((ids == expert) & (weights != 0))
        weight = weights[token, slot, None].astype(np.float64)
        scaled = weight * x[token] if moe.routing.on_input else x[token]
        y = _expert(moe.layout.read(get, expert), scaled, moe.activation, moe.limit)
        np.add.at(output, token, y if moe.routing.on_input else weight * y)
    if moe.shared:
        y = _expert(moe.shared.read(get, 0), x, "silu", 0.0)
        if moe.shared_gate:
            y = y * _sigmoid(x @ get(moe.shared_gate).astype(np.float64).T)
        output += y
    return output


def forward(checkpoint, layer, x):
    """(output, Route) for hidden states [tokens, d_model]."""
    x = np.asarray(x).astype(checkpoint.dtype)
    chosen = route(checkpoint, layer, x)
    return combine(checkpoint, layer, x, chosen.ids, chosen.weights), chosen
