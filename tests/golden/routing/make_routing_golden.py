#!/usr/bin/env python3
"""Writes the golden routing files of this folder, with numpy and nothing of the project.

Each case has options (the fields of RoutingOptions by name), logits, and the experts and weights
that the formulas of the model family give. Formulas are evaluated in double precision on float32
inputs; a token whose choice or rounding could come out otherwise in float32 is drawn again, so that
the files do not depend on anybody's exp().

Usage: make_routing_golden.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import pathlib
import sys

import numpy as np

MARGIN = 1e-5  # Relative distance below which two values count as too close to call.


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def identity(z):
    return z


SCORES = {"softmax": softmax, "sigmoid": sigmoid, "identity": identity}


class TooClose(Exception):
    """A decision that float32 could take the other way."""


def best(values, count):
    """Indices of the `count` largest, largest first."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    for here, below in zip(order[:count], order[1 : count + 1]):
        if abs(values[here] - values[below]) <= MARGIN * max(abs(values[here]), 1e-3):
            raise TooClose
    return order[:count]


def to_bfloat16(value):
    def once(x):
        bits = int(np.float32(x).view(np.uint32))
        return np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)

    rounded = once(value)
    if once(value * (1 + 1e-6)) != rounded or once(value * (1 - 1e-6)) != rounded:
        raise TooClose
    return float(rounded)


def route(options, logits, bias, model_dtype):
    """One token, by the formulas."""
    z = np.array(logits, dtype=np.float64)
    function = SCORES[options["score"]]
    scores = function(z) if options["scope"] == "all" else z.copy()
    choice = scores + np.array(bias, dtype=np.float64) if options["select_bias"] else scores.copy()
    if options["topk_group"] < options["n_group"]:
        groups = choice.reshape(options["n_group"], -1)
        if options["group_score"] == "max":
            ranks = groups.max(axis=1)
        else:
            ranks = np.sort(groups, axis=1)[:, -2:].sum(axis=1)
        kept = best(ranks, options["topk_group"])
        mask = np.full_like(groups, float(options["masked_choice"]))
        mask[kept] = groups[kept]
        choice = mask.reshape(-1)
    ids = choose(choice, options)
    weights = scores[ids]
    if options["scope"] == "selected":
        weights = function(weights)
    if options["renormalise"] == "sum":
        weights = weights / (weights.sum() + options["renormalise_epsilon"])
    weights = weights * options["scale"]
    if options["weight_dtype"] == "model" and model_dtype == "BF16":
        weights = [to_bfloat16(w) for w in weights]
    return [int(i) for i in ids], [float("%.7g" % w) for w in weights]


def choose(choice, options):
    """As best(), but equal masked choices are equal on purpose: the lower index wins."""
    k = options["top_k"]
    masked = float(options["masked_choice"])
    order = sorted(range(len(choice)), key=lambda i: (-choice[i], i))
    for here, below in zip(order[:k], order[1 : k + 1]):
        a, b = choice[here], choice[below]
        if a == b == masked:
            continue
        if abs(a - b) <= MARGIN * max(abs(a), 1e-3):
            raise TooClose
    return order[:k]


def options_of(experts, k, **changes):
    options = {
        "num_experts": experts,
        "top_k": k,
        "score": "softmax",
        "scope": "all",
        "select_bias": False,
        "n_group": 1,
        "topk_group": 1,
        "group_score": "max",
        "masked_choice": "0",
        "renormalise": "none",
        "renormalise_epsilon": 0.0,
        "scale": 1.0,
        "weight_dtype": "f32",
    }
    assert set(changes) <= set(options)
    options.update(changes)
    return options


def case(name, options, random, tokens=6, spread=2.0, bias=None, model_dtype="F32"):
    """A case with random logits (multiples of 1/1024: exact in float32)."""
    bias = [] if bias is None else [float(np.float32(b)) for b in bias]
    rows = {"logits": [], "expert_ids": [], "weights": []}
    while len(rows["logits"]) < tokens:
        logits = np.round(random.standard_normal(options["num_experts"]) * spread * 1024) / 1024
        try:
            ids, weights = route(options, logits, bias, model_dtype)
        except TooClose:
            continue
        rows["logits"].append(logits.tolist())
        rows["expert_ids"].append(ids)
        rows["weights"].append(weights)
    return {
        "name": name,
        "options": options,
        "model_dtype": model_dtype,
        "select_bias": bias,
        **rows,
    }


def mixtral(random):
    renormalised = options_of(8, 2, renormalise="sum")
    rounded = dict(renormalised, weight_dtype="model")
    return [
        case("weights in float32", renormalised, random),
        case("weights in the model's bfloat16", rounded, random, model_dtype="BF16"),
    ]


def qwen3_moe(random):
    raw = options_of(128, 8, weight_dtype="model")
    renormalised = dict(raw, renormalise="sum")
    return [
        case("norm_topk_prob false", raw, random, tokens=3),
        case("norm_topk_prob true", renormalised, random, tokens=3),
        case("norm_topk_prob true, bfloat16", renormalised, random, tokens=3, model_dtype="BF16"),
        case("60 experts, 4 of them", options_of(60, 4), random, tokens=3),
    ]


def noaux_tc(experts, k, n_group, topk_group, **changes):
    return options_of(
        experts,
        k,
        score="sigmoid",
        select_bias=True,
        n_group=n_group,
        topk_group=topk_group,
        group_score="top_two_sum",
        masked_choice="-inf",
        renormalise="sum",
        renormalise_epsilon=1e-20,
        scale=2.5,
        **changes,
    )


def deepseek_v3(random):
    def small():
        return random.standard_normal(256) * 0.1

    full = noaux_tc(256, 8, 8, 4)
    tiny = noaux_tc(16, 3, 4, 2)
    # Every biased score is negative: with 0 the masked experts win, with minus infinity they cannot.
    negative = np.round(-1.5 - random.random_sample(16) * 0.25, 3)
    minus = case("negative bias, masked by minus infinity", tiny, random, bias=negative)
    zero = case(
        "negative bias, masked by 0", dict(tiny, masked_choice="0"), random, bias=negative
    )
    for ids in minus["expert_ids"]:
        assert len({i // 4 for i in ids}) <= 2
    for ids in zero["expert_ids"]:
        assert ids == sorted(ids), "equal masked choices, lowest index first"
    return [
        case("256 experts in 8 groups", full, random, tokens=3, bias=small()),
        case("no renormalising", dict(full, renormalise="none"), random, tokens=2, bias=small()),
        case("GLM: one group", noaux_tc(128, 8, 1, 1), random, tokens=2, bias=small()[:128]),
        case("groups of 20", noaux_tc(160, 6, 8, 3), random, tokens=2, bias=small()[:160]),
        minus,
        zero,
    ]


def generic(random):
    v2 = options_of(160, 6, n_group=8, topk_group=3, scale=16.0)
    bias = [0.0, 3.0, 0.0, -3.0, 0.0, 0.5, 0.0, 0.0]
    return [
        case("DeepSeek-V2: best of a group, masked by 0", v2, random, tokens=3),
        case("greedy softmax without renormalising", options_of(64, 6), random, tokens=3),
        case("raw logits", options_of(8, 2, score="identity"), random),
        case("softmax over the selected", options_of(32, 8, scope="selected"), random, tokens=3),
        case("sigmoid of the selected", options_of(16, 1, score="sigmoid", scope="selected"), random),
        case("sigmoid, renormalised with a large epsilon",
             options_of(16, 4, score="sigmoid", renormalise="sum", renormalise_epsilon=0.5), random),
        case("bias on probabilities", options_of(8, 3, select_bias=True), random, bias=bias),
        case("all experts", options_of(5, 5, renormalise="sum"), random),
        case("one expert", options_of(1, 1), random),
        case("wide logits", options_of(24, 4), random, spread=30.0),
        case("twenty of forty", options_of(40, 20), random, tokens=2),
    ]


def literal():
    """The numbers of the specification, as printed there: nothing is computed here."""
    z = [0.5, 2, -1, 1.5, 0, 1, -0.5, 0.25]

    def fixed(name, options, ids, weights, bias=()):
        return {
            "name": name,
            "options": options,
            "model_dtype": "F32",
            "select_bias": list(bias),
            "logits": [z],
            "expert_ids": [ids],
            "weights": [weights],
        }

    v3_bias = [0, -0.3, 0.4, 0, 0.35, 0, 0.1, 0]
    v2 = options_of(8, 2, n_group=4, topk_group=1, scale=16.0)
    softmaxed = [0.3790001, 0.2298752, 0.1394264, 0.0845664, 0.0658603, 0.0512921, 0.0311102,
                 0.0188693]
    sigmoids = [0.8807971, 0.8175745, 0.7310586, 0.6224593, 0.5621765, 0.5, 0.3775407, 0.2689414]
    order = [1, 3, 5, 0, 7, 4, 6, 2]
    return [
        fixed("softmax of all", options_of(8, 8), order, softmaxed),
        fixed("sigmoid of all", options_of(8, 8, score="sigmoid"), order, sigmoids),
        fixed("softmax, raw", options_of(8, 2), [1, 3], [0.3790001, 0.2298752]),
        fixed("softmax, renormalised", options_of(8, 2, renormalise="sum"), [1, 3],
              [0.6224593, 0.3775407]),
        fixed("softmax over the selected", options_of(8, 2, scope="selected"), [1, 3],
              [0.6224593, 0.3775407]),
        fixed("DeepSeek-V3", noaux_tc(8, 2, 4, 2), [4, 3], [0.948713, 1.551287], v3_bias),
        fixed("DeepSeek-V3, unscaled", dict(noaux_tc(8, 2, 4, 2), scale=1.0), [4, 3],
              [0.3794852, 0.6205148], v3_bias),
        fixed("DeepSeek-V2, group limited", v2, [1, 0], [6.064002, 1.3530617]),
        fixed("sigmoid, best one", options_of(8, 1, score="sigmoid"), [1], [0.8807971]),
    ]


def text_of(cases):
    """One case per paragraph, one array per line: differences stay readable."""
    blocks = []
    for one in cases:
        lines = [f'"{key}": {json.dumps(value)}' for key, value in one.items()]
        blocks.append("  {\n    " + ",\n    ".join(lines) + "\n  }")
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def main():
    here = pathlib.Path(__file__).resolve().parent
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    target.mkdir(parents=True, exist_ok=True)
    files = {
        "mixtral": mixtral(np.random.RandomState(1)),
        "qwen3_moe": qwen3_moe(np.random.RandomState(2)),
        "deepseek_v3": deepseek_v3(np.random.RandomState(3)),
        "generic": generic(np.random.RandomState(4)),
        "literal": literal(),
    }
    for name, cases in files.items():
        (target / f"{name}.json").write_text(text_of(cases))


if __name__ == "__main__":
    main()
