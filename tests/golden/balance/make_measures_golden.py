#!/usr/bin/env python3
"""Writes measures.json: random tokens and the measures of balance that numpy makes of them.

The formulas are those of the papers and libraries that common/balance/measures.h names, written here
token by token and in double precision, where that code adds up sums.

Usage: make_measures_golden.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import math
import pathlib
import sys

import numpy as np


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def one_hot(indices, experts):
    return np.eye(experts)[indices]


def squared_variation(values):
    return float(np.var(values) / np.mean(values) ** 2)


def sequence_loss(chosen, probabilities, top_k):
    """Sum over experts of f * P, where f is 1 for an expert with its fair share."""
    tokens, experts = probabilities.shape
    fraction = one_hot(chosen, experts).sum(axis=(0, 1)) * experts / (top_k * tokens)
    return float((fraction * probabilities.mean(axis=0)).sum())


def second_place_loss(logits, chosen):
    """How even second choices are, among the experts that first choices leave."""
    tokens, experts = logits.shape
    fraction = np.zeros(experts)
    mean = np.zeros(experts)
    for token in range(tokens):
        others = [expert for expert in range(experts) if expert != chosen[token, 0]]
        mean[others] += softmax(logits[token, others]) / tokens
        fraction[chosen[token, 1]] += 1 / tokens
    return float(np.mean(fraction * mean) * experts**2)


def noisy_load(clean, noisy, deviations, top_k):
    tokens, experts = clean.shape
    load = np.zeros(experts)
    for token in range(tokens):
        for expert in range(experts):
            others = np.sort(np.delete(noisy[token], expert))[::-1]
            ratio = (clean[token, expert] - others[top_k - 1]) / deviations[token, expert]
            load[expert] += 0.5 * (1 + math.erf(ratio / math.sqrt(2)))
    return load


def case(random, name, tokens, experts, top_k, skew):
    def draw(*shape):
        """Numbers that float32 has as they are."""
        return np.round(random.normal(size=shape), 3).astype(np.float32).astype(np.float64)

    logits = draw(tokens, experts) + np.float32(skew) * (np.arange(experts) == 1)
    logits = logits.astype(np.float32).astype(np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    chosen = order[:, :top_k]
    probabilities = softmax(logits)
    sigmoids = 1 / (1 + np.exp(-logits))
    shares = sigmoids / sigmoids.sum(axis=1, keepdims=True)
    weights = np.take_along_axis(probabilities, chosen, axis=1).astype(np.float32)
    slots = one_hot(chosen, experts)  # [tokens, top_k, experts]
    counts = slots.sum(axis=(0, 1))
    part = counts / counts.sum()
    importance = (slots * weights[:, :, None].astype(np.float64)).sum(axis=(0, 1))
    deviations = np.full_like(logits, 0.5)
    noise = draw(tokens, experts) * 0.5
    noisy = (logits + noise).astype(np.float32).astype(np.float64)
    smooth = noisy_load(logits, noisy, deviations, top_k)
    half = tokens // 2
    return {
        "name": name,
        "experts": experts,
        "top_k": top_k,
        "logits": logits.tolist(),
        "noisy": noisy.tolist(),
        "deviation": 0.5,
        "chosen": chosen.tolist(),
        "second": order[:, 1].tolist(),
        "weights": weights.astype(np.float64).tolist(),
        "counts": counts.astype(int).tolist(),
        "max_violation": float(counts.max() / counts.mean() - 1),
        "squared_variation": squared_variation(counts),
        "entropy": float(-sum(p * math.log(p) for p in part if p > 0) / math.log(experts)),
        "mean_squared_share": float((part**2).mean()),
        "switch": float(experts * (slots.mean(axis=0).sum(axis=0) * probabilities.mean(axis=0)).sum()),
        "megatron": float(
            experts / (top_k * tokens**2) * (counts * probabilities.sum(axis=0)).sum()
        ),
        "gshard": float(
            (slots[:, 0].sum(axis=0) / tokens * probabilities.mean(axis=0)).sum() / experts
        ),
        "hugging_face_halves": float(
            experts
            * sum((slots[:, k].mean(axis=0) * probabilities.mean(axis=0)).sum() for k in range(top_k))
        ),
        # The first half of the tokens, with the counts of all of them.
        "megatron_global": float(
            experts * (counts / (top_k * tokens) * probabilities[:half].mean(axis=0)).sum()
        ),
        "megablocks_halves": 0.1
        / 2
        * sum(
            experts / (top_k * len(p)) * (one_hot(c, experts).sum(axis=(0, 1)) * p.mean(axis=0)).sum()
            for c, p in ((chosen[:half], probabilities[:half]), (chosen[half:], probabilities[half:]))
        ),
        "nllb": float(
            (slots[:, 0].mean(axis=0) * (importance / tokens)).mean() * experts**2
        ),
        "second_place": second_place_loss(logits, order),
        "mesh_tensorflow": float(
            (slots[:, 0].mean(axis=0) * probabilities.mean(axis=0)).mean() * experts**2
        )
        + second_place_loss(logits, order) / 2,
        "deepseek_v2": 1e-3
        * (
            sequence_loss(chosen[:half], probabilities[:half], top_k)
            + sequence_loss(chosen[half:], probabilities[half:], top_k)
        )
        / 2,
        "deepseek_v3": 1e-4 * sequence_loss(chosen, shares, top_k),
        "importance": importance.tolist(),
        "importance_loss": squared_variation(importance),
        "noisy_load": smooth.tolist(),
        "noisy_load_loss": squared_variation(smooth),
        "z_loss": float((np.log(np.exp(logits).sum(axis=1)) ** 2).mean()),
    }


def rounded(value):
    """Ten digits: no file depends on a library's last bit of exp()."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def main():
    here = pathlib.Path(__file__).resolve().parent
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    random = np.random.RandomState(11)
    cases = [
        case(random, "top-1 of 4", 12, 4, 1, 0),
        case(random, "top-2 of 8, skewed", 20, 8, 2, 2),
        case(random, "top-4 of 6, nearly collapsed", 10, 6, 4, 8),
    ]
    lines = []
    for one in cases:
        fields = [f'"{key}": {json.dumps(rounded(value))}' for key, value in one.items()]
        lines.append("  {\n    " + ",\n    ".join(fields) + "\n  }")
    (target / "measures.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
