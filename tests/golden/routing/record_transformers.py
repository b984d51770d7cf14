#!/usr/bin/env python3
"""Records what the routers of the transformers library choose, as transformers.json in this folder.

Needs torch and transformers (recorded with 2.13.0 and 4.57.6, on a CPU) and is not run by the tests:
the record is what they compare the router's gate with. The gates' weights are the identity, so that
hidden states are logits. The form is that of make_routing_golden.py.

Usage: record_transformers.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import pathlib
import sys

import torch
from transformers import GptOssConfig, Llama4TextConfig, NllbMoeConfig, SwitchTransformersConfig
from transformers.models.dbrx.modeling_dbrx import DbrxRouter
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter
from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeTopKGating
from transformers.models.llama4.modeling_llama4 import Llama4Router
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeTop2Router
from transformers.models.phimoe.modeling_phimoe import sparsemixer
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersTop1Router,
)

BF16, F32 = torch.bfloat16, torch.float32
NAMES = {BF16: "BF16", F32: "F32"}


def logits_of(tokens, experts, dtype, spread=2.0):
    return (torch.randn(tokens, experts) * spread).to(dtype).float()


def case(name, options, dtype, logits, ids, weights, bias=(), dropped=None, draws=None, groups=None):
    one = {"name": name, "options": options, "activation_dtype": NAMES[dtype], "select_bias": list(bias)}
    if groups:
        one["group_sizes"] = groups
    one.update(logits=logits.tolist(), expert_ids=ids, weights=weights)
    if dropped:
        one["dropped"] = dropped
    if draws:
        one["draws"] = draws
    return one


def rounded_to_model(experts, k, **more):
    return {"num_experts": experts, "top_k": k, "logit_dtype": "model", "weight_dtype": "model", **more}


def phi(dtype, spread, epsilon, tokens=24):
    logits = logits_of(tokens, 16, dtype, spread)
    weights, ids = sparsemixer(logits.to(dtype), epsilon, training=False)
    options = rounded_to_model(16, 2, choice="sparse_mixer", sparse_mixer_epsilon=epsilon)
    name = f"Phi-3.5-MoE, {NAMES[dtype]}, logits of {spread}, epsilon {epsilon}"
    return case(name, options, dtype, logits, ids.tolist(), weights.float().tolist())


def gathered(scores, ids):
    return scores.float().gather(1, ids).tolist()


def gpt_oss(dtype):
    router = GptOssTopKRouter(
        GptOssConfig(num_local_experts=32, num_experts_per_tok=4, hidden_size=32)
    ).to(dtype)
    router.weight.data = torch.eye(32, dtype=dtype)
    router.bias.data = torch.zeros(32, dtype=dtype)
    logits = logits_of(12, 32, dtype)
    scores, ids = router(logits.to(dtype))
    options = rounded_to_model(32, 4, scope="selected", score_dtype="model")
    return case(f"gpt-oss, {NAMES[dtype]}", options, dtype, logits, ids.tolist(),
                gathered(scores, ids))


def llama4(dtype):
    router = Llama4Router(
        Llama4TextConfig(hidden_size=16, num_local_experts=16, num_experts_per_tok=1)
    ).to(dtype)
    router.weight.data = torch.eye(16, dtype=dtype)
    logits = logits_of(12, 16, dtype)
    scores, _ = router(logits.to(dtype))
    ids = logits.topk(1, dim=1).indices
    options = rounded_to_model(16, 1, score="sigmoid", scope="selected", score_dtype="model")
    return case(f"Llama-4, {NAMES[dtype]}", options, dtype, logits, ids.tolist(),
                gathered(scores, ids))


def granite(dtype):
    router = GraniteMoeTopKGating(32, 32, 8).to(dtype)
    router.layer.weight.data = torch.eye(32, dtype=dtype)
    logits = logits_of(12, 32, dtype)
    order, _, gates, _, _ = router(logits.to(dtype))
    weights = torch.empty(12 * 8)
    weights[order] = gates.float()
    ids = logits.topk(8, dim=1).indices
    return case(f"Granite-MoE, {NAMES[dtype]}", rounded_to_model(32, 8, scope="selected"), dtype,
                logits, ids.tolist(), weights.view(12, 8).tolist())


def dbrx(dtype, p):
    router = DbrxRouter(16, 16, 4, None, p).to(dtype)
    router.layer.weight.data = torch.eye(16, dtype=dtype)
    logits = logits_of(12, 16, dtype)
    _, weights, ids = router(logits.to(dtype))
    kind = {"renormalise": "lp", "renormalise_p": p} if p else {}
    return case(f"DBRX, {NAMES[dtype]}, p {p}", rounded_to_model(16, 4, **kind), dtype, logits,
                ids.tolist(), weights.float().tolist())


def deepseek_v3():
    config = DeepseekV3Config(hidden_size=64, n_routed_experts=64, num_experts_per_tok=8, n_group=8,
                              topk_group=4, routed_scaling_factor=2.5, norm_topk_prob=True)
    router = DeepseekV3TopkRouter(config)
    router.weight.data = torch.eye(64)
    router.e_score_correction_bias.data = torch.randn(64) * 0.1
    logits = logits_of(12, 64, F32)
    ids, weights = router(logits)
    options = {"num_experts": 64, "top_k": 8, "score": "sigmoid", "select_bias": True, "n_group": 8,
               "topk_group": 4, "group_score": "top_two_sum", "masked_choice": 0.0,
               "renormalise": "sum", "renormalise_epsilon": 1e-20, "scale": 2.5,
               "sorted_selection": False}
    return case("DeepSeek-V3", options, F32, logits, ids.tolist(), weights.tolist(),
                bias=router.e_score_correction_bias.tolist())


def switch(dtype, sequences, tokens, capacity):
    router = SwitchTransformersTop1Router(
        SwitchTransformersConfig(hidden_size=8, num_experts=8, expert_capacity=capacity)
    ).eval()
    router.classifier.weight.data = torch.eye(8)
    logits = logits_of(sequences * tokens, 8, dtype)
    index, probs, _ = router(logits.to(dtype).view(sequences, tokens, 8))
    index, probs = index.reshape(-1, 8), probs.float().reshape(-1)
    ids = [row.nonzero().flatten().tolist() for row in index]
    wanted = torch.softmax(logits, -1).to(dtype).argmax(-1).tolist()
    return case(
        f"Switch, {NAMES[dtype]}, {capacity} of {tokens} tokens",
        {"num_experts": 8, "top_k": 1, "score_dtype": "model", "weight_dtype": "model",
         "capacity_tokens": capacity},
        dtype, logits, ids, [[w] if row else [] for w, row in zip(probs.tolist(), ids)],
        dropped=[[] if row else [e] for e, row in zip(wanted, ids)], groups=[tokens] * sequences)


def nllb(policy, tokens=40, experts=4, capacity=40, prioritised=False, before=False):
    config = NllbMoeConfig(
        hidden_size=experts, num_experts=experts, expert_capacity=capacity,
        second_expert_policy=policy, batch_prioritized_routing=prioritised,
        normalize_router_prob_before_dropping=before, moe_eval_capacity_token_fraction=-1.0)
    router = NllbMoeTop2Router(config).eval()
    logits = torch.rand(tokens, experts)
    state = torch.get_rng_state()
    top_1, combined = router.route_tokens(logits.clone())
    torch.set_rng_state(state)
    options = {"num_experts": experts, "top_k": 2, "renormalise": "clamped_sum",
               "renormalise_epsilon": torch.finfo(F32).eps, "capacity_tokens": capacity,
               "drop": "batch_prioritised" if prioritised else "position",
               "renormalise_after_drop": not before}
    draws = None
    if policy == "random":
        options.update(second_expert="random", second_expert_threshold=0.5)
        draws = [{"second_expert": [0.0, u]} for u in torch.rand(tokens).tolist()]
    elif policy == "sampling":
        options.update(second_expert="sampled")
        draws = [{"second_expert": row} for row in torch.rand(tokens, experts).tolist()]
    first = torch.softmax(logits, -1).argmax(-1).tolist()
    ids, weights = [], []
    for token in range(tokens):
        kept = combined[token].nonzero().flatten().tolist()
        kept.sort(key=lambda e: e != first[token])
        ids.append(kept)
        weights.append([combined[token, e].item() for e in kept])
    one = case(f"NLLB-MoE, {policy}, {capacity} of {tokens} tokens, prioritised {prioritised}, "
               f"normalised before {before}", options, F32, logits, ids, weights, draws=draws)
    # The library does not tell which experts a token wanted.
    one["dropped_unknown"] = True
    return one


def text_of(cases):
    blocks = []
    for one in cases:
        lines = [f'"{key}": {json.dumps(value)}' for key, value in one.items()]
        blocks.append("  {\n    " + ",\n    ".join(lines) + "\n  }")
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def main():
    here = pathlib.Path(__file__).resolve().parent
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    torch.manual_seed(0)
    with torch.no_grad():
        cases = [phi(dtype, spread, epsilon) for dtype in (BF16, F32)
                 for spread, epsilon in ((1.0, 0.01), (0.05, 0.01), (1.0, 0.2), (0.02, 0.1))]
        for dtype in (BF16, F32):
            cases += [gpt_oss(dtype), llama4(dtype), granite(dtype), dbrx(dtype, 1.0),
                      dbrx(dtype, 2.0), dbrx(dtype, None), switch(dtype, 2, 20, 3),
                      switch(dtype, 1, 30, 64)]
        cases.append(deepseek_v3())
        for policy in ("all", "random", "sampling"):
            cases.append(nllb(policy))
            cases.append(nllb(policy, tokens=32, experts=8, capacity=5))
            cases.append(nllb(policy, tokens=32, experts=8, capacity=5, prioritised=True))
        cases.append(nllb("all", tokens=32, experts=8, capacity=5, before=True))
    (target / "transformers.json").write_text(text_of(cases))


if __name__ == "__main__":
    main()
