"""The model families as data: what config.json of each looks like, what its tensors are called and how they
lie, how it routes and what its experts compute. Written from the families' published definitions, apart
from the table in common/checkpoint, which is checked against this one.
"""

import dataclasses
from typing import Callable, Dict, Optional, Tuple

from layouts import Fp8, Fused, Mxfp4, PerExpert, Rows, glu


@dataclasses.dataclass(frozen=True)
class Routing:
    k: int
    # Logits are rounded to the type of activations.
    rounded_logits: bool = True
    # softmax, sigmoid: all experts get scores. selected_softmax, selected_sigmoid: only the chosen
    # ones do, which are chosen by logits. sparse_mixer.
    score: str = "softmax"
    # Scores are rounded to the type of activations before they choose.
    rounded_scores: bool = False
    # (groups, groups kept, "top2" or "max", what others' choices become), or none.
    groups: Optional[Tuple] = None
    # How weights are renormalised: ("sum", epsilon), ("clamp", smallest sum or "eps": that of the type of
    # activations), ("norm", p), or none.
    renormalise: Optional[Tuple] = None
    scale: float = 1.0
    # Weights are rounded to the type of activations before they multiply.
    rounded_weights: bool = True
    # Weights multiply the experts' input.
    on_input: bool = False
    # Tokens that one expert takes of a sequence; the others' outputs are 0.
    capacity: Optional[int] = None
    # sparse_mixer.
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class Moe:
    """The MoE layers of one model. Names are relative to the layer's prefix."""

    prefixes: Dict[int, str]
    experts: int
    width: int
    routing: Routing
    layout: object
    gate: str = "gate.weight"
    logit_bias: Optional[str] = None
    select_bias: Optional[str] = None
    shared: Optional[object] = None
    shared_width: int = 0
    shared_gate: Optional[str] = None
    # silu, relu or clamped_swiglu.
    activation: str = "silu"
    limit: float = 0.0
    alpha: float = 0.0

    @property
    def gated(self):
        return self.activation != "relu"

    @property
    def biased(self):
        return self.activation == "clamped_swiglu" or "up_bias" in getattr(self.layout, "names", {})


@dataclasses.dataclass(frozen=True)
class Sizes:
    layers: int
    d_model: int
    experts: int
    k: int
    width: int


@dataclasses.dataclass(frozen=True)
class Family:
    # Keys of config.json beside the common ones.
    config: Callable[[Sizes], dict]
    moe: Callable[[dict], Moe]
    # Types of quantised checkpoints there are.
    quantised: Tuple[str, ...] = ()
    # Key of d_model in config.json.
    d_model: str = "hidden_size"


def _every(pattern, config, first=0):
    return {i: pattern.format(layer=i) for i in range(first, config["num_hidden_layers"])}


# --- Mixtral and what shares its names ---

W123 = glu("experts.{e}.{part}.weight", "w1", "w3", "w2")
PROJ = glu("experts.{e}.{part}.weight")
SPARSE_MOE = "model.layers.{layer}.block_sparse_moe."
MLP = "model.layers.{layer}.mlp."


def _mixtral_config(s):
    return {
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": s.experts,
        "intermediate_size": s.width,
        "num_experts_per_tok": s.k,
    }


def _mixtral(c):
    return Moe(
        prefixes=_every(SPARSE_MOE, c),
        experts=c["num_local_experts"],
        width=c["intermediate_size"],
        routing=Routing(k=c["num_experts_per_tok"], renormalise=("sum", 0.0)),
        layout=W123,
    )


def _phimoe_config(s):
    return _mixtral_config(s) | {
        "architectures": ["PhimoeForCausalLM"],
        "num_experts_per_tok": 2,
        # Wide enough that experts come close to the best one.
        "router_jitter_noise": 0.1,
        "input_jitter_noise": 0.0,
        "attention_bias": True,
        "lm_head_bias": True,
    }


def _phimoe(c):
    routing = Routing(k=2, score="sparse_mixer", epsilon=c["router_jitter_noise"])
    return dataclasses.replace(_mixtral(c), routing=routing)


def _minimax_config(s):
    return _mixtral_config(s) | {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "head_dim": s.d_model // 4,
    }


def _minimax(c):
    routing = Routing(
        k=c["num_experts_per_tok"],
        score="sigmoid",
        renormalise=("sum", 0.0),
        rounded_weights=False,
    )
    return dataclasses.replace(_mixtral(c), routing=routing, select_bias="e_score_correction_bias")


# --- Qwen, OLMoE ---

# Types of the scales of FP8, by the scale_fmt of quantization_config.
SCALES = {None: "F32", "ue8m0": "F8_E8M0", "bf16": "BF16", "f16": "F16"}


def _qwen3_config(s):
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": s.d_model // 4,
        "num_experts": s.experts,
        "num_experts_per_tok": s.k,
        "moe_intermediate_size": s.width,
        "intermediate_size": 2 * s.width,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _qwen3(c):
    quantisation = c.get("quantization_config")
    layout = Fp8(PROJ, SCALES[quantisation.get("scale_fmt")]) if quantisation else PROJ
    return Moe(
        prefixes=_every(MLP, c),
        experts=c["num_experts"],
        width=c["moe_intermediate_size"],
        routing=Routing(
            k=c["num_experts_per_tok"],
            renormalise=("sum", 0.0) if c["norm_topk_prob"] else None,
        ),
        layout=layout,
    )


def _qwen2_config(s):
    config = _qwen3_config(s)
    del config["head_dim"]
    return config | {
        "architectures": ["Qwen2MoeForCausalLM"],
        "shared_expert_intermediate_size": s.width + 16,
        "norm_topk_prob": False,
        # Layers 1, 3, ... but not layer 3: both rules at work.
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        "num_hidden_layers": 4 + s.layers,
    }


def _qwen2(c):
    layers = [
        i
        for i in range(c["num_hidden_layers"])
        if i not in c["mlp_only_layers"] and (i + 1) % c["decoder_sparse_step"] == 0
    ]
    return dataclasses.replace(
        _qwen3(c),
        prefixes={i: MLP.format(layer=i) for i in layers},
        shared=glu("shared_expert.{part}.weight"),
        shared_width=c["shared_expert_intermediate_size"],
        shared_gate="shared_expert_gate.weight",
    )


def _olmoe_config(s):
    return {
        "architectures": ["OlmoeForCausalLM"],
        "num_experts": s.experts,
        "num_experts_per_tok": s.k,
        "intermediate_size": s.width,
        "norm_topk_prob": False,
    }


def _olmoe(c):
    return Moe(
        prefixes=_every(MLP, c),
        experts=c["num_experts"],
        width=c["intermediate_size"],
        routing=Routing(k=c["num_experts_per_tok"]),
        layout=PROJ,
    )


# --- DeepSeek, GLM ---


def _deepseek_config(s):
    return {
        "n_routed_experts": s.experts,
        "num_experts_per_tok": s.k,
        "moe_intermediate_size": s.width,
        "intermediate_size": 2 * s.width,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    }


def _deepseek(c, routing, **more):
    layout = PROJ
    shared = glu("shared_experts.{part}.weight")
    quantisation = c.get("quantization_config", {})
    if quantisation.get("quant_method") == "fp8":
        scales = SCALES[quantisation.get("scale_fmt")]
        layout, shared = Fp8(PROJ, scales), Fp8(shared, scales)
    return Moe(
        prefixes=_every(MLP, c, first=c["first_k_dense_replace"]),
        experts=c["n_routed_experts"],
        width=c["moe_intermediate_size"],
        routing=routing,
        layout=layout,
        shared=shared,
        shared_width=c["moe_intermediate_size"] * c["n_shared_experts"],
        **more,
    )


def _deepseek_v2_config(s):
    return _deepseek_config(s) | {
        "architectures": ["DeepseekV2ForCausalLM"],
        "n_shared_experts": 2,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": False,
        "routed_scaling_factor": 16.0,
        "scoring_func": "softmax",
    }


def _deepseek_v2(c):
    groups = None
    if c["topk_method"] == "group_limited_greedy":
        groups = (c["n_group"], c["topk_group"], "max", 0.0)
    return _deepseek(
        c,
        Routing(
            k=c["num_experts_per_tok"],
            rounded_logits=False,
            groups=groups,
            scale=c["routed_scaling_factor"],
            rounded_weights=False,
        ),
    )


def _deepseek_moe_config(s):
    config = _deepseek_v2_config(s)
    for key in list(config):
        if key.endswith(("_rank", "_head_dim")) or key in ("n_group", "topk_group"):
            del config[key]
    return config | {
        "architectures": ["DeepseekForCausalLM"],
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
    }


def _deepseek_v3_config(s):
    return _deepseek_config(s) | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def _deepseek_v3(c):
    return _deepseek(
        c,
        Routing(
            k=c["num_experts_per_tok"],
            rounded_logits=False,
            score="sigmoid",
            groups=(c["n_group"], c["topk_group"], "top2", float("-inf")),
            renormalise=("sum", 1e-20),
            scale=c["routed_scaling_factor"],
            rounded_weights=False,
        ),
        select_bias="gate.e_score_correction_bias",
    )


def _glm4_config(s):
    config = _deepseek_v3_config(s)
    for key in list(config):
        if key.endswith(("_rank", "_head_dim")):
            del config[key]
    for key in ("moe_layer_freq", "scoring_func", "topk_method"):
        del config[key]
    return config | {
        "architectures": ["Glm4MoeForCausalLM"],
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.5,
        "head_dim": s.d_model // 4,
        "partial_rotary_factor": 0.5,
    }


# --- Granite ---


def _granite_config(s):
    return {
        "architectures": ["GraniteMoeForCausalLM"],
        "num_local_experts": s.experts,
        "num_experts_per_tok": s.k,
        "intermediate_size": s.width,
        "residual_multiplier": 0.22,
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.125,
        "logits_scaling": 6.0,
    }


def _granite(c):
    shared = c.get("shared_intermediate_size", 0)
    # The shared expert lies beside the block of the routed ones, hence names from the layer on.
    block = "block_sparse_moe."
    return Moe(
        prefixes=_every("model.layers.{layer}.", c),
        experts=c["num_local_experts"],
        width=c["intermediate_size"],
        routing=Routing(k=c["num_experts_per_tok"], score="selected_softmax"),
        layout=Fused(block + "input_linear.weight", block + "output_linear.weight"),
        gate=block + "router.layer.weight",
        shared=Fused(
            "shared_mlp.input_linear.weight", "shared_mlp.output_linear.weight", plain=True
        )
        if shared
        else None,
        shared_width=shared,
    )


def _granite_shared_config(s):
    return _granite_config(s) | {
        "architectures": ["GraniteMoeSharedForCausalLM"],
        "shared_intermediate_size": s.width + 16,
    }


# --- gpt-oss, Llama-4 ---


def _gpt_oss_config(s):
    return {
        "architectures": ["GptOssForCausalLM"],
        "num_local_experts": s.experts,
        "num_experts_per_tok": s.k,
        "intermediate_size": s.width,
        "swiglu_limit": 7.0,
        "swiglu_alpha": 1.702,
        "head_dim": s.d_model // 4,
        "attention_bias": True,
        "sliding_window": 128,
    }


def _gpt_oss(c):
    packed = c.get("quantization_config", {}).get("quant_method") == "mxfp4"
    layout = Fused(
        "experts.gate_up_proj", "experts.down_proj", transposed=True, interleaved=True, bias=True
    )
    return Moe(
        prefixes=_every(MLP, c),
        experts=c["num_local_experts"],
        width=c["intermediate_size"],
        routing=Routing(k=c["num_experts_per_tok"], score="selected_softmax", rounded_scores=True),
        layout=Mxfp4(layout) if packed else layout,
        gate="router.weight",
        logit_bias="router.bias",
        activation="clamped_swiglu",
        limit=c["swiglu_limit"],
        alpha=c["swiglu_alpha"],
    )


def _llama4_config(s):
    return {
        "architectures": ["Llama4ForCausalLM"],
        "num_local_experts": s.experts,
        "num_experts_per_tok": 1,
        "intermediate_size": s.width,
        "intermediate_size_mlp": 2 * s.width,
        "interleave_moe_layer_step": 2,
        "num_hidden_layers": 2 * s.layers,
        "head_dim": s.d_model // 4,
    }


def _llama4(c):
    step = c["interleave_moe_layer_step"]
    layers = range(step - 1, c["num_hidden_layers"], step)
    return Moe(
        prefixes={i: f"language_model.model.layers.{i}.feed_forward." for i in layers},
        experts=c["num_local_experts"],
        width=c["intermediate_size"],
        routing=Routing(
            k=c["num_experts_per_tok"],
            score="selected_sigmoid",
            rounded_scores=True,
            on_input=True,
        ),
        layout=Fused("experts.gate_up_proj", "experts.down_proj", transposed=True),
        gate="router.weight",
        shared=glu("shared_expert.{part}.weight"),
        shared_width=c["intermediate_size"],
    )


# --- DBRX, Jamba, LFM2, ERNIE ---


def _dbrx_config(s):
    return {
        "architectures": ["DbrxForCausalLM"],
        "d_model": s.d_model,
        "n_heads": 4,
        "n_layers": s.layers,
        "max_seq_len": 256,
        "ffn_config": {
            "ffn_hidden_size": s.width,
            "moe_num_experts": s.experts,
            "moe_top_k": s.k,
            "moe_normalize_expert_weights": 2.0,
            "ffn_act_fn": {"name": "silu"},
        },
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 4, "rope_theta": 500000.0},
    }


def _dbrx(c):
    ffn = c["ffn_config"]
    p = ffn["moe_normalize_expert_weights"]
    mlp = "experts.mlp."
    return Moe(
        prefixes={i: f"transformer.blocks.{i}.ffn." for i in range(c["n_layers"])},
        experts=ffn["moe_num_experts"],
        width=ffn["ffn_hidden_size"],
        routing=Routing(k=ffn["moe_top_k"], renormalise=("norm", p)),
        layout=Rows(mlp + "w1", mlp + "v1", mlp + "w2", ffn["ffn_hidden_size"]),
        gate="router.layer.weight",
    )


def _jamba_config(s):
    return {
        "architectures": ["JambaForCausalLM"],
        "num_experts": s.experts,
        "num_experts_per_tok": s.k,
        "intermediate_size": s.width,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "num_hidden_layers": 2 * s.layers,
    }


def _jamba(c):
    layers = [
        i
        for i in range(c["num_hidden_layers"])
        if i % c["expert_layer_period"] == c["expert_layer_offset"]
    ]
    return Moe(
        prefixes={i: f"model.layers.{i}.feed_forward." for i in layers},
        experts=c["num_experts"],
        width=c["intermediate_size"],
        routing=Routing(k=c["num_experts_per_tok"]),
        layout=PROJ,
        gate="router.weight",
    )


def _ernie_config(s):
    return {
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        "moe_num_experts": s.experts,
        "moe_k": s.k,
        "moe_intermediate_size": s.width,
        "moe_num_shared_experts": 2,
        "moe_norm_min": 1e-12,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": -1,
        "moe_layer_interval": 1,
        "intermediate_size": 2 * s.width,
        "num_hidden_layers": 1 + s.layers,
    }


def _ernie(c):
    return Moe(
        prefixes=_every(MLP, c, first=c["moe_layer_start_index"]),
        experts=c["moe_num_experts"],
        width=c["moe_intermediate_size"],
        routing=Routing(
            k=c["moe_k"], rounded_logits=False, renormalise=("clamp", c["moe_norm_min"])
        ),
        layout=PROJ,
        select_bias="moe_statics.e_score_correction_bias",
        shared=glu("shared_experts.{part}.weight"),
        shared_width=c["moe_intermediate_size"] * c["moe_num_shared_experts"],
    )


# --- Switch, NLLB: two stacks; layers of the decoder are counted on from the encoder's ---


def _two_stacks(c, sparse, encoder, decoder):
    """sparse: (index in its stack, step) -> bool."""
    prefixes = {}
    sizes = (c["_encoder_layers"], c["_decoder_layers"])
    for first, count, pattern, step in (
        (0, sizes[0], encoder, c["encoder_sparse_step"]),
        (sizes[0], sizes[1], decoder, c["decoder_sparse_step"]),
    ):
        for i in range(count):
            if sparse(i, step):
                prefixes[first + i] = pattern.format(layer=i)
    return prefixes


def _switch_config(s):
    return {
        "architectures": ["SwitchTransformersForConditionalGeneration"],
        "d_ff": s.width,
        "d_kv": s.d_model // 4,
        "num_heads": 4,
        "num_layers": 4,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 2,
        "num_sparse_decoder_layers": 1,
        "encoder_sparse_step": 2,
        "decoder_sparse_step": 2,
        "num_experts": s.experts,
        # Few enough that some tokens find no room.
        "expert_capacity": 6,
        "router_bias": False,
        "router_dtype": "float32",
        "dense_act_fn": "relu",
        "feed_forward_proj": "relu",
        "is_encoder_decoder": True,
    }


def _switch(c):
    c = c | {"_encoder_layers": c["num_layers"], "_decoder_layers": c["num_decoder_layers"]}
    return Moe(
        prefixes=_two_stacks(
            c,
            lambda i, step: i % step == 1 or step == 1,
            "encoder.block.{layer}.layer.1.mlp.",
            "decoder.block.{layer}.layer.2.mlp.",
        ),
        experts=c["num_experts"],
        width=c["d_ff"],
        routing=Routing(
            k=1, rounded_logits=False, rounded_scores=True, capacity=c["expert_capacity"]
        ),
        layout=PerExpert(
            {"up": "experts.expert_{e}.wi.weight", "down": "experts.expert_{e}.wo.weight"}
        ),
        gate="router.classifier.weight",
        activation="relu",
    )


def _nllb_config(s):
    return {
        "architectures": ["NllbMoeForConditionalGeneration"],
        "d_model": s.d_model,
        "encoder_layers": 4,
        "decoder_layers": 2,
        "encoder_ffn_dim": s.width,
        "decoder_ffn_dim": s.width,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_sparse_step": 2,
        "decoder_sparse_step": 2,
        "num_experts": s.experts,
        "expert_capacity": 64,
        "router_bias": False,
        "router_dtype": "float32",
        "second_expert_policy": "all",
        "normalize_router_prob_before_dropping": False,
        "batch_prioritized_routing": False,
        "moe_eval_capacity_token_fraction": 1.0,
        "moe_token_dropout": 0.2,
        "activation_function": "relu",
        "is_encoder_decoder": True,
    }


def _nllb(c):
    c = c | {"_encoder_layers": c["encoder_layers"], "_decoder_layers": c["decoder_layers"]}
    expert = "experts.expert_{e}."
    return Moe(
        prefixes=_two_stacks(
            c,
            lambda i, step: (i + 1) % step == 0,
            "model.encoder.layers.{layer}.ffn.",
            "model.decoder.layers.{layer}.ffn.",
        ),
        experts=c["num_experts"],
        width=c["encoder_ffn_dim"],
        routing=Routing(
            k=2,
            rounded_logits=False,
            rounded_scores=True,
            renormalise=("clamp", "eps"),
            scale=1 - c["moe_token_dropout"],
        ),
        layout=PerExpert(
            {
                "up": expert + "fc1.weight",
                "down": expert + "fc2.weight",
                "up_bias": expert + "fc1.bias",
                "down_bias": expert + "fc2.bias",
            }
        ),
        gate="router.classifier.weight",
        activation="relu",
    )


FAMILIES = {
    "mixtral": Family(_mixtral_config, _mixtral),
    "phimoe": Family(_phimoe_config, _phimoe),
    "minimax_m2": Family(_minimax_config, _minimax),
    "qwen2_moe": Family(_qwen2_config, _qwen2),
    "qwen3_moe": Family(_qwen3_config, _qwen3, quantised=("fp8", "fp8_bf16", "fp8_f16")),
    "olmoe": Family(_olmoe_config, _olmoe),
    "deepseek": Family(_deepseek_moe_config, _deepseek_v2),
    "deepseek_v2": Family(_deepseek_v2_config, _deepseek_v2),
    "deepseek_v3": Family(_deepseek_v3_config, _deepseek_v3, quantised=("fp8", "fp8_ue8m0", "fp8_f16")),
    "kimi_k2": Family(_deepseek_v3_config, _deepseek_v3),
    "glm4_moe": Family(_glm4_config, _deepseek_v3),
    "granitemoe": Family(_granite_config, _granite),
    "granitemoeshared": Family(_granite_shared_config, _granite),
    "gpt_oss": Family(_gpt_oss_config, _gpt_oss, quantised=("mxfp4",)),
    "llama4_text": Family(_llama4_config, _llama4),
    "dbrx": Family(_dbrx_config, _dbrx, d_model="d_model"),
    "jamba": Family(_jamba_config, _jamba),
    "ernie4_5_moe": Family(_ernie_config, _ernie),
    "switch_transformers": Family(_switch_config, _switch, d_model="d_model"),
    "nllb-moe": Family(_nllb_config, _nllb, d_model="d_model"),
}
