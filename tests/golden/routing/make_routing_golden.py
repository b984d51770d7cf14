#!/usr/bin/env python3
"""Writes the golden routing files of this folder, with numpy and nothing of the project.

Each case has options (those of expertmesh-router --routing that are not as always), logits, and the
experts, weights and dropped experts of each token that the formulas of the model family give; where
it needs them also group_sizes, token_ids, what the noise weight makes of the tokens (noise_width) and
the uniform random numbers of each token by use (draws). Formulas are evaluated in double precision on float32
inputs; a token whose choice or rounding could come out otherwise in float32 is drawn again, so that
the files do not depend on anybody's exp().

Usage: make_routing_golden.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import math
import pathlib
import sys
from fractions import Fraction

import numpy as np

MARGIN = 1e-5  # Relative distance below which two values count as too close to call.


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def identity(z):
    return z


def sqrt_softplus(z):
    return np.sqrt(np.log1p(np.exp(z)))


SCORES = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "identity": identity,
    "sqrt_softplus": sqrt_softplus,
}


class TooClose(Exception):
    """A decision that float32 could take the other way."""


def best(values, count):
    """Indices of the `count` largest, largest first."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    for here, below in zip(order[:count], order[1 : count + 1]):
        if abs(values[here] - values[below]) <= MARGIN * max(abs(values[here]), 1e-3):
            raise TooClose
    return order[:count]


def to_bfloat16_exactly(value):
    bits = int(np.float32(value).view(np.uint32))
    if (bits & 0x7FFFFFFF) >= 0x7F800000:
        return np.float32(value)
    return np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def to_bfloat16(value):
    rounded = to_bfloat16_exactly(value)
    for nudge in (1 + 1e-6, 1 - 1e-6):
        if to_bfloat16_exactly(value * nudge) != rounded:
            raise TooClose
    return float(rounded)


def scores_of(options, z, activation_dtype):
    """The scores of logits `z`, rounded where the options say so."""
    scores = SCORES[options["score"]](z)
    if options["score_dtype"] == "model" and activation_dtype == "BF16":
        scores = np.array([to_bfloat16(score) for score in scores])
    return scores


def choices_of(options, scores, bias):
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
    return choice


def sparse_mixer(options, z, activation_dtype):
    """Two experts, each weighted among those near it; every operation rounded as the model's."""

    def rounded(x):
        return to_bfloat16_exactly(x) if activation_dtype == "BF16" else np.float32(x)

    epsilon = rounded(2 * options["sparse_mixer_epsilon"])
    z = [np.float32(v) for v in z]
    ids, weights, left = [], [], list(z)
    for _ in range(2):
        winner = best(np.array(left, dtype=np.float64), 1)[0]
        top = left[winner]
        near = []
        for mine, original in zip(left, z):
            share = rounded(rounded(top - original) / max(abs(original), top))
            if abs(share - epsilon) < 1e-6:
                raise TooClose
            near.append(-np.inf if share > epsilon else float(mine))
        weight = softmax(np.array(near))[winner]
        weights.append(to_bfloat16(weight) if activation_dtype == "BF16" else weight)
        ids.append(winner)
        left[winner] = np.float32(-np.inf)
    return ids, weights


def noisy(options, z, draws, width):
    """Temperature and noise; `draws`: uniform numbers of this token by use."""
    z = z / options["temperature"]
    noise = options["noise"]
    if noise == "gumbel":
        return z - options["noise_scale"] * np.log(-np.log(draws["noise"]))
    if noise in ("normal", "learned_normal"):
        radius = np.sqrt(-2 * np.log(1 - np.array(draws["noise"])))
        normal = radius * np.cos(2 * np.pi * np.array(draws["noise_angle"]))
        deviation = options["noise_scale"]
        if noise == "learned_normal":
            deviation = np.log1p(np.exp(np.array(width))) + deviation
        return z + deviation * normal
    return z


def renormalised(options, weights):
    weights = np.array(weights, dtype=np.float64)
    kind, epsilon = options["renormalise"], options["renormalise_epsilon"]
    if kind == "none":
        return weights
    if kind == "sum":
        return weights / (weights.sum() + epsilon)
    if kind == "clamped_sum":
        return weights / max(weights.sum(), epsilon)
    p = options["renormalise_p"]
    return weights / (np.abs(weights) ** p).sum() ** (1 / p)


class Token:
    """One token until its group is routed: the experts it wants, best first."""

    def __init__(self, options, logits, bias, activation_dtype, draws, width, token_id):
        z = noisy(options, np.array(logits, dtype=np.float64), draws, width)
        self.all = self.choice = None
        if options["choice"] == "hash":
            self.ids, weights = [token_id % options["num_experts"]], [1.0]
        elif options["choice"] == "sparse_mixer":
            self.ids, weights = sparse_mixer(options, z, activation_dtype)
        else:
            in_all = options["scope"] == "all"
            self.all = scores_of(options, z, activation_dtype) if in_all else z.copy()
            self.choice = choices_of(options, self.all, bias)
            if options["choice"] == "expert_choice":
                return
            if options["topk_group"] < options["n_group"] and not options["select_bias"]:
                self.all = self.choice
            self.ids = self.choose(options, z, draws)
            weights = self.all[self.ids]
            if not in_all:
                weights = scores_of(options, weights, activation_dtype)
        self.weights = [float(w) for w in weights]
        self.best = max(self.weights)
        if options["second_expert"] == "random":
            threshold = options["second_expert_threshold"]
            for slot in range(1, len(self.ids)):
                share, draw = self.weights[slot] / threshold, draws["second_expert"][slot]
                if abs(share - draw) < MARGIN:
                    raise TooClose
                if not draw < share:
                    if self.choice is not None:
                        self.choice[self.ids[slot]] = -np.inf
                    self.ids[slot] = None
        if not options["renormalise_after_drop"]:
            self.weights = list(renormalised(options, self.weights))
        self.wanted = list(self.ids)

    def choose(self, options, z, draws):
        if options["second_expert"] != "sampled":
            return choose(self.choice, options)
        first = choose(self.choice, dict(options, top_k=1))[0]
        sampled = z - np.log(-np.log(draws["second_expert"]))
        sampled[first] = -np.inf
        return [first] + best(sampled, options["top_k"] - 1)


def capacity_of(options, tokens):
    """By exact arithmetic on the decimal factor."""
    if options["capacity_tokens"]:
        return options["capacity_tokens"]
    k = 1 if options["choice"] == "expert_choice" else options["top_k"]
    exact = Fraction(str(options["capacity_factor"])) * k * tokens / options["num_experts"]
    return max(math.ceil(exact), options["capacity_minimum"])


def distinct(values):
    ordered = sorted(values)
    for a, b in zip(ordered, ordered[1:]):
        if abs(a - b) <= MARGIN * max(abs(a), 1e-3):
            raise TooClose


def limit_capacity(options, tokens):
    capacity, load = capacity_of(options, len(tokens)), [0] * options["num_experts"]
    slots = [(t, s) for s in range(options["top_k"]) for t in range(len(tokens))]
    drop = options["drop"]
    if drop == "batch_prioritised":
        distinct([t.best for t in tokens])
        slots.sort(key=lambda at: (at[1], -tokens[at[0]].best))
    elif drop == "score":
        distinct([w for t in tokens for w in t.weights])
        slots.sort(key=lambda at: -tokens[at[0]].weights[at[1]])
    for t, s in slots:
        token, expert = tokens[t], tokens[t].ids[s]
        if expert is None:
            continue
        had = token.ids[:s]
        if expert in had or load[expert] >= capacity:
            expert = None
            if drop == "next_best":
                free = [e for e in range(options["num_experts"])
                        if load[e] < capacity and e not in had and token.choice[e] != -np.inf]
                distinct([token.choice[e] for e in free])
                if free:
                    expert = max(free, key=lambda e: token.choice[e])
                    token.weights[s] = float(token.all[expert])
        token.ids[s] = expert
        if expert is not None:
            load[expert] += 1


def choose_tokens(options, tokens):
    """Expert choice: fills in the experts of every token, highest score first."""
    capacity = min(capacity_of(options, len(tokens)), len(tokens))
    scores = np.array([t.all for t in tokens])
    for token in tokens:
        token.ids, token.wanted = [], []
    for expert in range(options["num_experts"]):
        distinct(scores[:, expert])
        for t in np.argsort(-scores[:, expert])[:capacity]:
            tokens[t].ids.append(expert)
    for token in tokens:
        distinct(token.all[token.ids])
        token.ids.sort(key=lambda e: -token.all[e])
        token.weights = [float(token.all[e]) for e in token.ids]


def route_group(options, tokens, activation_dtype):
    """Experts, weights and dropped experts of each token of one group."""
    if options["choice"] == "expert_choice":
        choose_tokens(options, tokens)
    elif options["capacity_tokens"] or options["capacity_factor"]:
        limit_capacity(options, tokens)
    routed = []
    for token in tokens:
        kept = [s for s, expert in enumerate(token.ids) if expert is not None]
        weights = np.array([token.weights[s] for s in kept])
        if options["renormalise_after_drop"] or options["choice"] == "expert_choice":
            weights = renormalised(options, weights) if len(weights) else weights
        weights = weights * options["scale"]
        if options["weight_dtype"] == "model" and activation_dtype == "BF16":
            weights = [to_bfloat16(w) for w in weights]
        ids = [int(token.ids[s]) for s in kept]
        dropped = [int(e) for e in token.wanted if e is not None and e not in ids]
        routed.append((ids, [float("%.7g" % w) for w in weights], dropped))
    return routed


def choose(choice, options):
    """As best(), but equal masked choices are equal on purpose: the lower index wins."""
    k = options["top_k"]
    masked = float(options["masked_choice"]) if options["topk_group"] < options["n_group"] else None
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
        "temperature": 1.0,
        "noise": "none",
        "noise_scale": 1.0,
        "score": "softmax",
        "scope": "all",
        "score_dtype": "f32",
        "select_bias": False,
        "n_group": 1,
        "topk_group": 1,
        "group_score": "max",
        "masked_choice": 0.0,
        "choice": "top_k",
        "sparse_mixer_epsilon": 0.0,
        "logit_dtype": "f32",
        "second_expert": "always",
        "second_expert_threshold": 0.5,
        "renormalise": "none",
        "renormalise_epsilon": 0.0,
        "renormalise_p": 1.0,
        "renormalise_after_drop": False,
        "capacity_tokens": 0,
        "capacity_factor": 0.0,
        "capacity_minimum": 0,
        "drop": "position",
        "scale": 1.0,
        "weight_dtype": "f32",
    }
    assert set(changes) <= set(options)
    options.update(changes)
    return options


DEFAULTS = options_of(0, 0)
USES = {
    "gumbel": ["noise"],
    "normal": ["noise", "noise_angle"],
    "learned_normal": ["noise", "noise_angle"],
    "none": [],
}


def draws_of(options, random):
    """Uniform numbers of one token, multiples of 2^-24 as the router's own, away from 0 and 1."""
    uses = USES[options["noise"]] + ["second_expert"] * (options["second_expert"] != "always")
    size = options["num_experts"]
    return {use: (random.randint(1 << 12, (1 << 24) - (1 << 12), size) / 2**24).tolist()
            for use in uses}


def case(name, options, random, tokens=6, spread=2.0, bias=None, activation_dtype="F32", groups=None):
    """A case with random logits (multiples of 1/1024, or bfloat16: exact in float32)."""
    bias = [] if bias is None else [float(np.float32(b)) for b in bias]
    groups = groups or [tokens]
    one = {"logits": [], "expert_ids": [], "weights": [], "dropped": [], "draws": [],
           "noise_width": [], "token_ids": []}
    for size in groups:
        while True:
            z, draws, width, token_ids = [], [], [], []
            for _ in range(size):
                row = np.round(random.standard_normal(options["num_experts"]) * spread * 1024) / 1024
                if options["logit_dtype"] == "model":
                    row = np.array([float(to_bfloat16_exactly(v)) for v in row])
                z.append(row.tolist())
                draws.append(draws_of(options, random))
                if options["noise"] == "learned_normal":
                    width.append((np.round(random.standard_normal(len(row)) * 1024) / 1024).tolist())
                if options["choice"] == "hash":
                    token_ids.append(int(random.randint(0, 50000)))
            try:
                routed = route_group(options, [
                    Token(options, z[t], bias, activation_dtype, draws[t], width[t] if width else None,
                          token_ids[t] if token_ids else None) for t in range(size)], activation_dtype)
            except TooClose:
                continue
            break
        one["logits"] += z
        one["draws"] += draws
        one["noise_width"] += width
        one["token_ids"] += token_ids
        one["expert_ids"] += [ids for ids, _, _ in routed]
        one["weights"] += [weights for _, weights, _ in routed]
        one["dropped"] += [dropped for _, _, dropped in routed]
    return case_of(name, options, activation_dtype, bias, one, groups)


def case_of(name, options, activation_dtype, bias, rows, groups):
    """Options that are as always, and what a case does not have, are left out."""
    changed = {key: value for key, value in options.items() if value != DEFAULTS[key]}
    rows = {key: value for key, value in rows.items() if any(value)}
    head = {"name": name, "options": changed, "activation_dtype": activation_dtype, "select_bias": bias}
    if len(groups) > 1:
        head["group_sizes"] = groups
    return {**head, **rows}


def mixtral(random):
    renormalised = options_of(8, 2, renormalise="sum")
    rounded = dict(renormalised, weight_dtype="model")
    return [
        case("weights in float32", renormalised, random),
        case("weights in the model's bfloat16", rounded, random, activation_dtype="BF16"),
    ]


def qwen3_moe(random):
    raw = options_of(128, 8, weight_dtype="model")
    renormalised = dict(raw, renormalise="sum")
    return [
        case("norm_topk_prob false", raw, random, tokens=3),
        case("norm_topk_prob true", renormalised, random, tokens=3),
        case("norm_topk_prob true, bfloat16", renormalised, random, tokens=3, activation_dtype="BF16"),
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
        "negative bias, masked by 0", dict(tiny, masked_choice=0.0), random, bias=negative
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

    def fixed(name, options, ids, weights, bias=(), logits=z):
        rows = {"logits": [logits], "expert_ids": [ids], "weights": [weights]}
        return case_of(name, options, "F32", list(bias), rows, [1])

    def phi(epsilon, experts=8):
        return options_of(experts, 2, choice="sparse_mixer", sparse_mixer_epsilon=epsilon)

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
        fixed("Llama-4", options_of(8, 1, score="sigmoid", scope="selected"), [1], [0.8807971]),
        fixed("Phi-3.5-MoE, epsilon .01", phi(0.01), [1, 3], [1.0, 1.0]),
        fixed("Phi-3.5-MoE, epsilon .2", phi(0.2), [1, 3], [0.6224593, 0.6224593]),
        fixed("Phi-3.5-MoE, close logits", phi(0.01, 4), [1, 2], [0.3350014, 0.50125],
              logits=[1, 1.01, 1.005, -2]),
    ]


def families(random):
    """One case per row of the table of families, where it is not in a file of its own."""
    gpt_oss = options_of(32, 4, logit_dtype="model", scope="selected", score_dtype="model",
                         weight_dtype="model")
    llama4 = dict(gpt_oss, top_k=1, score="sigmoid", num_experts=16)
    phi = options_of(16, 2, logit_dtype="model", choice="sparse_mixer", sparse_mixer_epsilon=0.01,
                     weight_dtype="model")
    granite = dict(gpt_oss, top_k=8, score_dtype="f32")
    dbrx = options_of(16, 4, logit_dtype="model", renormalise="lp", weight_dtype="model")
    switch = options_of(8, 1, score_dtype="model", capacity_tokens=2, weight_dtype="model")
    nllb = options_of(8, 2, renormalise="clamped_sum", renormalise_epsilon=2.0**-7,
                      renormalise_after_drop=True, score_dtype="model", weight_dtype="model",
                      scale=0.8, capacity_tokens=3)
    ernie = options_of(64, 6, select_bias=True, renormalise="clamped_sum",
                       renormalise_epsilon=1e-12)
    v4 = options_of(64, 6, score="sqrt_softplus", select_bias=True, renormalise="sum",
                    renormalise_epsilon=1e-20, scale=1.5)
    return [
        case("DeepSeekMoE", options_of(64, 6), random, tokens=3),
        case("Qwen2-MoE", options_of(60, 4, logit_dtype="model", weight_dtype="model"), random,
             tokens=3, activation_dtype="BF16"),
        case("OLMoE", options_of(64, 8, logit_dtype="model", weight_dtype="model"), random,
             tokens=3, activation_dtype="BF16"),
        case("Granite-MoE", granite, random, tokens=3, activation_dtype="BF16"),
        case("gpt-oss", gpt_oss, random, tokens=4, activation_dtype="BF16"),
        case("gpt-oss in float32", gpt_oss, random, tokens=3),
        case("Llama-4", llama4, random, activation_dtype="BF16"),
        case("Phi-3.5-MoE", phi, random, tokens=8, activation_dtype="BF16", spread=0.5),
        case("Phi-3.5-MoE, negative logits", dict(phi, sparse_mixer_epsilon=0.2), random, tokens=8,
             activation_dtype="BF16", spread=0.05),
        case("Phi-3.5-MoE in float32", phi, random, tokens=8, spread=0.1),
        case("DBRX, p = 1", dbrx, random, tokens=4, activation_dtype="BF16"),
        case("DBRX, p = 2", dict(dbrx, renormalise_p=2.0), random, tokens=4, activation_dtype="BF16"),
        case("Lp of raw logits, p = 3",
             dict(dbrx, score="identity", renormalise_p=3.0, logit_dtype="f32"), random, tokens=4),
        case("Jamba", options_of(16, 2, logit_dtype="model", weight_dtype="model"), random,
             tokens=3, activation_dtype="BF16"),
        case("Switch", switch, random, tokens=9, activation_dtype="BF16", groups=[9, 1, 8]),
        case("NLLB-MoE", nllb, random, tokens=12, activation_dtype="BF16"),
        case("NLLB-MoE, second expert at random", dict(nllb, second_expert="random"), random,
             tokens=16),
        case("LFM2-MoE", options_of(32, 4, score="sigmoid", select_bias=True, renormalise="sum",
                                    renormalise_epsilon=1e-6, logit_dtype="model"), random,
             tokens=3, bias=random.standard_normal(32) * 0.1),
        case("ERNIE-4.5-MoE", ernie, random, tokens=3, bias=random.standard_normal(64) * 0.01),
        case("MiniMax-M2", options_of(64, 8, score="sigmoid", select_bias=True, renormalise="sum"),
             random, tokens=3, bias=random.standard_normal(64) * 0.1),
        case("DeepSeek-V4", v4, random, tokens=3, bias=random.standard_normal(64) * 0.1),
        case("DeepSeek-V4, hash layers", options_of(64, 1, choice="hash", scale=1.5), random),
    ]


def papers(random):
    """Routers of the literature, and every drop policy."""
    gshard = options_of(8, 2, renormalise="sum", renormalise_epsilon=1e-9, capacity_factor=1.0,
                        second_expert="random")
    cases = [
        case("Shazeer: noisy top-k", options_of(16, 4, scope="selected", noise="learned_normal",
                                                noise_scale=0.01), random),
        case("normal noise, temperature 2", options_of(16, 2, noise="normal", noise_scale=0.5,
                                                       temperature=2.0), random),
        case("sampled by Gumbel noise", options_of(16, 2, noise="gumbel", renormalise="sum"), random),
        case("temperature below 1", options_of(16, 2, temperature=0.25), random, spread=0.5),
        case("GShard", gshard, random, tokens=24, groups=[16, 8]),
        case("GLaM", dict(gshard, second_expert="always"), random, groups=[16, 8]),
        case("second expert sampled", options_of(8, 2, second_expert="sampled", renormalise="sum"),
             random, tokens=8),
        case("third experts sampled, too", options_of(8, 3, second_expert="sampled"), random),
        case("ST-MoE", dict(gshard, capacity_factor=1.25 / 2, second_expert_threshold=0.2,
                            capacity_minimum=4), random, groups=[12, 20]),
        case("expert choice", options_of(8, 2, choice="expert_choice", capacity_factor=2.0), random,
             groups=[16, 5, 1]),
        case("expert choice, capacity in tokens",
             options_of(4, 0, choice="expert_choice", capacity_tokens=3, score="sigmoid"), random,
             groups=[7, 2]),
        case("expert choice, renormalised", options_of(4, 2, choice="expert_choice",
                                                       capacity_factor=1.5, renormalise="sum",
                                                       scale=2.0), random, tokens=8),
        case("hash", options_of(7, 1, choice="hash"), random),
        case("hash with capacity", options_of(2, 1, choice="hash", capacity_tokens=2), random,
             groups=[6, 3]),
        case("BASE greedy", options_of(8, 1, score="sigmoid"), random),
        case("NTLB", options_of(8, 1, capacity_factor=1.0, drop="next_best"), random,
             groups=[16, 3]),
        case("next best of two, with bias",
             options_of(6, 2, capacity_tokens=3, drop="next_best", select_bias=True, score="sigmoid",
                        renormalise="sum", renormalise_after_drop=True), random, tokens=9,
             bias=[0.5, 0, 0, 0, 0, 0.25]),
        case("next best, nowhere left", options_of(3, 2, capacity_tokens=2, drop="next_best"),
             random, tokens=6),
        case("next best of a group of experts",
             options_of(8, 2, capacity_tokens=2, drop="next_best", n_group=2, topk_group=1,
                        masked_choice="-inf"), random, tokens=8),
        case("next best, second expert at random",
             options_of(6, 3, capacity_tokens=4, drop="next_best", second_expert="random"), random,
             tokens=10),
        case("capacity 1.1 of 10 tokens is 11, not 12",
             options_of(4, 2, capacity_factor=1.1), random, tokens=20),
    ]
    for drop in ("position", "batch_prioritised", "score"):
        for after in (False, True):
            options = options_of(6, 3, capacity_factor=0.75, drop=drop, renormalise="sum",
                                 renormalise_after_drop=after)
            when = "after" if after else "before"
            cases.append(case(f"{drop}, renormalised {when} the drop", options, random,
                              groups=[12, 5]))
    return cases


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
        "families": families(np.random.RandomState(5)),
        "papers": papers(np.random.RandomState(6)),
        "literal": literal(),
    }
    for name, cases in files.items():
        (target / f"{name}.json").write_text(text_of(cases))


if __name__ == "__main__":
    main()
