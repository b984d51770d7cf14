"""Small random models of the transformers library, one builder per family, for suites that compare with them.

Every builder works with transformers 4.57 and 5. `make` seeds them, so that all suites see the same models.
"""

import torch
import transformers

TEXT = (
    "We hold these truths to be self-evident, that all men are created equal, that they are endowed "
    "by their Creator with certain unalienable Rights, that among these are Life, Liberty and the "
    "pursuit of Happiness. That to secure these rights, Governments are instituted among Men, "
    "deriving their just powers from the consent of the governed."
)
# A model's token is a byte of the text.
VOCAB = 256
COMMON = dict(
    vocab_size=VOCAB,
    # Errors are norms of rows: in very short rows single roundings would dominate them.
    hidden_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=1024,
    # Wide enough that experts and gates are far from linear and from uniform.
    initializer_range=0.075,
    tie_word_embeddings=False,
)
# Random text has no end.
NO_END = dict(bos_token_id=0, eos_token_id=None, pad_token_id=0)


def mixtral():
    config = transformers.MixtralConfig(
        **COMMON, **NO_END, intermediate_size=96, num_local_experts=8, num_experts_per_tok=2
    )
    return transformers.MixtralForCausalLM(config)


def qwen2_moe():
    config = transformers.Qwen2MoeConfig(
        **COMMON,
        **NO_END,
        intermediate_size=128,
        moe_intermediate_size=48,
        shared_expert_intermediate_size=80,
        num_experts=16,
        num_experts_per_tok=4,
        # A dense layer among the others.
        mlp_only_layers=[1],
    )
    return transformers.Qwen2MoeForCausalLM(config)


def qwen3_moe():
    config = transformers.Qwen3MoeConfig(
        **COMMON,
        **NO_END,
        head_dim=64,
        intermediate_size=128,
        moe_intermediate_size=48,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=True,
    )
    return transformers.Qwen3MoeForCausalLM(config)


def olmoe():
    config = transformers.OlmoeConfig(
        **COMMON, **NO_END, intermediate_size=48, num_experts=16, num_experts_per_tok=4
    )
    return transformers.OlmoeForCausalLM(config)


def _granite(kind, **options):
    return getattr(transformers, f"{kind}Config")(
        **COMMON,
        **NO_END,
        intermediate_size=48,
        num_local_experts=8,
        num_experts_per_tok=3,
        embedding_multiplier=4.0,
        residual_multiplier=0.4,
        attention_multiplier=0.1,
        logits_scaling=2.0,
        **options,
    )


def granitemoe():
    return transformers.GraniteMoeForCausalLM(_granite("GraniteMoe"))


def granitemoeshared():
    config = _granite("GraniteMoeShared", shared_intermediate_size=80)
    return transformers.GraniteMoeSharedForCausalLM(config)


MLA = dict(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)


def deepseek_v2():
    config = transformers.DeepseekV2Config(
        **COMMON,
        **NO_END,
        **MLA,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=16,
        n_shared_experts=2,
        num_experts_per_tok=4,
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.0,
        first_k_dense_replace=1,
    )
    return transformers.DeepseekV2ForCausalLM(config)


def _with_selection_bias(model):
    generator = torch.Generator().manual_seed(5)
    for layer in model.model.layers[1:]:
        bias = layer.mlp.gate.e_score_correction_bias
        # All positive: version 4 masks groups with 0, which differs from minus infinity
        # (Expertmesh, and the model's own code) where a kept choice is negative.
        bias.data.copy_(torch.rand(bias.shape, generator=generator) * 0.3)
    return model


def deepseek_v3():
    config = transformers.DeepseekV3Config(
        **COMMON,
        **NO_END,
        **MLA,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
    )
    return _with_selection_bias(transformers.DeepseekV3ForCausalLM(config))


def glm4_moe():
    config = transformers.Glm4MoeConfig(
        **COMMON,
        **NO_END,
        head_dim=64,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.5,
        first_k_dense_replace=1,
    )
    return _with_selection_bias(transformers.Glm4MoeForCausalLM(config))


def _with_biases(model):
    """Biases that the library initialises with zeros would go unnoticed."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def gpt_oss():
    config = transformers.GptOssConfig(
        **COMMON,
        **NO_END,
        head_dim=64,
        intermediate_size=96,
        num_local_experts=8,
        num_experts_per_tok=4,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    return _with_biases(transformers.GptOssForCausalLM(config))


def llama4():
    config = transformers.Llama4TextConfig(
        **COMMON,
        **NO_END,
        head_dim=64,
        intermediate_size=96,
        intermediate_size_mlp=128,
        num_local_experts=8,
        num_experts_per_tok=1,
        # Layer 1 has experts, layers 0 and 2 are dense, as in Maverick.
        interleave_moe_layer_step=2,
    )
    return transformers.Llama4ForCausalLM(config)


def phimoe():
    config = transformers.PhimoeConfig(
        **COMMON,
        **NO_END,
        intermediate_size=96,
        num_local_experts=8,
        num_experts_per_tok=2,
        attention_bias=True,
        lm_head_bias=True,
    )
    return _with_biases(transformers.PhimoeForCausalLM(config))


def dbrx():
    config = transformers.DbrxConfig(
        d_model=256,
        n_heads=4,
        n_layers=3,
        max_seq_len=1024,
        vocab_size=VOCAB,
        initializer_range=0.075,
        tie_word_embeddings=False,
        attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=5e5),
        ffn_config=dict(ffn_hidden_size=96, moe_num_experts=8, moe_top_k=3),
        **NO_END,
    )
    return transformers.DbrxForCausalLM(config)


def jamba():
    config = transformers.JambaConfig(
        **{**COMMON, "num_hidden_layers": 4},
        **NO_END,
        intermediate_size=96,
        num_experts=8,
        num_experts_per_tok=2,
        # Layers 1 and 3 have experts; 1 has attention, the others are Mamba.
        expert_layer_period=2,
        expert_layer_offset=1,
        attn_layer_period=4,
        attn_layer_offset=1,
        mamba_d_state=8,
        use_mamba_kernels=False,
    )
    return transformers.JambaForCausalLM(config)


def switch_transformers():
    config = transformers.SwitchTransformersConfig(
        vocab_size=VOCAB,
        d_model=128,
        d_kv=32,
        d_ff=96,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        num_sparse_encoder_layers=2,
        num_sparse_decoder_layers=2,
        num_experts=8,
        # Small, so that tokens are dropped.
        expert_capacity=16,
        # As in the released ones; version 4 cannot load what it saves otherwise.
        tie_word_embeddings=True,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=None,
    )
    return transformers.SwitchTransformersForConditionalGeneration(config)


def nllb_moe():
    config = transformers.NllbMoeConfig(
        vocab_size=VOCAB,
        d_model=128,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
        num_experts=8,
        max_position_embeddings=1024,
        init_std=0.075,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=None,
        decoder_start_token_id=2,
    )
    return _with_biases(transformers.NllbMoeForConditionalGeneration(config))


BUILDERS = {
    builder.__name__: builder
    for builder in (
        mixtral,
        qwen2_moe,
        qwen3_moe,
        olmoe,
        granitemoe,
        granitemoeshared,
        deepseek_v2,
        deepseek_v3,
        glm4_moe,
        gpt_oss,
        llama4,
        phimoe,
        dbrx,
        jamba,
        switch_transformers,
        nllb_moe,
    )
}
ENCODER_DECODER = ("switch_transformers", "nllb_moe")
# MoE layers of each, an encoder's before the decoder's.
MOE_LAYERS = {
    **{family: [0, 1, 2] for family in BUILDERS},
    "qwen2_moe": [0, 2],
    "deepseek_v2": [1, 2],
    "deepseek_v3": [1, 2],
    "glm4_moe": [1, 2],
    "llama4": [1],
    "jamba": [1, 3],
    "switch_transformers": [1, 3, 5, 7],
    "nllb_moe": [1, 3, 5, 7],
}


def make(family, dtype=torch.float32, seed=3):
    """The model of a family, in eval mode."""
    torch.manual_seed(seed)
    model = BUILDERS[family]().to(dtype).eval()
    # Greedy, whatever a family's own defaults are.
    model.generation_config.do_sample = False
    return model


def tokens(batch=1, length=None):
    """[batch, length] ids of the text; every row begins elsewhere in it."""
    text = list(TEXT.encode()) * 2
    length = length or len(TEXT.encode())
    return torch.tensor([text[7 * row : 7 * row + length] for row in range(batch)])


def inputs(family, batch=1, length=None):
    """What forward() takes: the text, and for an encoder-decoder the text for both halves."""
    ids = tokens(batch, length)
    if family not in ENCODER_DECODER:
        return dict(input_ids=ids)
    return dict(input_ids=ids, decoder_input_ids=ids[:, : max(1, ids.shape[1] // 2)])
