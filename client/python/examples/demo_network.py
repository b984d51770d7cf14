"""The demo model as it is trained: DeepSeek-V3's architecture with stacked experts.

The same function as transformers' DeepseekV3ForCausalLM, in a form that trains fast on a CPU: the experts of a
layer are three tensors, and their tokens are padded into one batched product. `export` gives the weights the
names and shapes of the Hugging Face checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-6


class Experts(nn.Module):
    """The routed experts of a layer, and the gate that picks them by score + bias (DeepSeek-V3, section 2.1.2)."""

    def __init__(self, config):
        super().__init__()
        experts, width, d_model = (
            config.n_routed_experts,
            config.moe_intermediate_size,
            config.hidden_size,
        )
        self.top_k = config.num_experts_per_tok
        self.scale = config.routed_scaling_factor
        self.gate = nn.Parameter(torch.empty(experts, d_model))
        self.gate_up = nn.Parameter(torch.empty(experts, d_model, 2 * width))
        self.down = nn.Parameter(torch.empty(experts, width, d_model))
        self.register_buffer("bias", torch.zeros(experts))
        # Assignments of each expert since it was last set to zero.
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def forward(self, x):
        """x [tokens, d_model] -> [tokens, d_model]."""
        tokens, d_model = x.shape
        experts = self.gate.shape[0]
        scores = (x.float() @ self.gate.t().float()).sigmoid()
        chosen = (scores.detach() + self.bias).topk(self.top_k, sorted=False).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.scale

        flat = chosen.flatten()
        counts = torch.bincount(flat, minlength=experts)
        self.load += counts
        capacity = int(counts.max())
        order = flat.argsort(stable=True)
        begin = counts.cumsum(0) - counts
        in_order = flat[order]
        place = in_order * capacity + torch.arange(len(flat)) - begin[in_order]
        # Row of the padded batch for each assignment, and token for each of its rows (any for padding, whose
        # results are never read).
        row = torch.empty_like(flat).index_copy_(0, order, place)
        token = torch.zeros(experts * capacity, dtype=flat.dtype).index_copy_(
            0, place, order // self.top_k
        )

        padded = x.index_select(0, token).view(experts, capacity, d_model)
        gate, up = torch.bmm(padded, self.gate_up.to(x.dtype)).chunk(2, -1)
        out = torch.bmm(F.silu(gate) * up, self.down.to(x.dtype)).view(experts * capacity, d_model)
        out = out.index_select(0, row).view(tokens, self.top_k, d_model)
        return torch.bmm(weights.to(x.dtype).unsqueeze(1), out).squeeze(1)


class FeedForward(nn.Module):
    """SwiGLU: a dense layer, or the shared experts of a MoE layer."""

    def __init__(self, d_model, width):
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Attention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, section 2.1), without compressed queries."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.latent = config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.value = (
            config.qk_nope_head_dim,
            config.qk_rope_head_dim,
            config.v_head_dim,
        )
        d_model = config.hidden_size
        self.q = nn.Linear(d_model, self.heads * (self.nope + self.rope), bias=False)
        self.kv_a = nn.Linear(d_model, self.latent + self.rope, bias=False)
        self.kv_norm = nn.Parameter(torch.ones(self.latent))
        self.kv_b = nn.Linear(self.latent, self.heads * (self.nope + self.value), bias=False)
        self.o = nn.Linear(self.heads * self.value, d_model, bias=False)

    def forward(self, x, cos, sin):
        """x [sequences, length, d_model]; cos, sin [length, rope / 2]."""
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, self.nope + self.rope).transpose(1, 2)
        latent, k_rope = self.kv_a(x).split([self.latent, self.rope], -1)
        latent = F.rms_norm(latent, (self.latent,), self.kv_norm.to(x.dtype), EPSILON)
        kv = (
            self.kv_b(latent)
            .view(batch, length, self.heads, self.nope + self.value)
            .transpose(1, 2)
        )
        k_nope, value = kv.split([self.nope, self.value], -1)
        q_nope, q_rope = q.split([self.nope, self.rope], -1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, self.heads, -1, -1)
        query = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        key = torch.cat((k_nope, k_rope), -1)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o(out.transpose(1, 2).reshape(batch, length, -1))


def rotate(x, cos, sin):
    """RoPE on neighbouring pairs. The order of the result differs from transformers', its products do not."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((even * cos - odd * sin, even * sin + odd * cos), -1)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        d_model, width = config.hidden_size, config.moe_intermediate_size
        self.attention = Attention(config)
        self.norms = nn.Parameter(torch.ones(2, d_model))
        self.is_moe = layer >= config.first_k_dense_replace
        if self.is_moe:
            self.experts = Experts(config)
            self.dense = FeedForward(d_model, config.n_shared_experts * width)
        else:
            self.dense = FeedForward(d_model, config.intermediate_size)

    def forward(self, x, cos, sin):
        norms = self.norms.to(x.dtype)
        x = x + self.attention(F.rms_norm(x, x.shape[-1:], norms[0], EPSILON), cos, sin)
        y = F.rms_norm(x, x.shape[-1:], norms[1], EPSILON)
        x = x + self.dense(y)
        if self.is_moe:
            x = x + self.experts(y.flatten(0, 1)).view_as(x)
        return x


class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        half = torch.arange(0, config.qk_rope_head_dim, 2) / config.qk_rope_head_dim
        angles = torch.outer(torch.arange(config.max_position_embeddings), config.rope_theta**-half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.initialise()

    def initialise(self):
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2 and not name.endswith("norms"):
                # Stacked experts lie the other way round: [expert, in, out].
                inputs = parameter.shape[1]
                small = ("embedding.weight", "head.weight", "experts.gate")
                deviation = 0.02 if name.endswith(small) else 0.6 * inputs**-0.5
                if name.endswith(("down.weight", "down", "o.weight")):
                    deviation /= (2 * len(self.blocks)) ** 0.5
                nn.init.normal_(parameter, std=deviation)

    def forward(self, tokens):
        """tokens [sequences, length] -> logits [sequences, length, vocabulary], float32."""
        x = self.embedding(tokens)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        length = tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return self.head(F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), EPSILON)).float()

    def moe_layers(self):
        """[(index of the layer, its Experts)]."""
        return [(layer, block.experts) for layer, block in enumerate(self.blocks) if block.is_moe]

    def export(self):
        """The state dict of transformers' DeepseekV3ForCausalLM, in float32."""
        state = {
            "model.embed_tokens.weight": self.embedding.weight,
            "model.norm.weight": self.norm,
            "lm_head.weight": self.head.weight,
        }
        for layer, block in enumerate(self.blocks):
            name, attention = f"model.layers.{layer}.", block.attention
            (
                state[name + "input_layernorm.weight"],
                state[name + "post_attention_layernorm.weight"],
            ) = block.norms
            state[name + "self_attn.q_proj.weight"] = attention.q.weight
            state[name + "self_attn.kv_a_proj_with_mqa.weight"] = attention.kv_a.weight
            state[name + "self_attn.kv_a_layernorm.weight"] = attention.kv_norm
            state[name + "self_attn.kv_b_proj.weight"] = attention.kv_b.weight
            state[name + "self_attn.o_proj.weight"] = attention.o.weight
            dense = name + ("mlp.shared_experts." if block.is_moe else "mlp.")
            _feed_forward(state, dense, block.dense.gate_up.weight, block.dense.down.weight)
            if block.is_moe:
                state[name + "mlp.gate.weight"] = block.experts.gate
                state[name + "mlp.gate.e_score_correction_bias"] = block.experts.bias
                for expert, (gate_up, down) in enumerate(
                    zip(block.experts.gate_up, block.experts.down)
                ):
                    _feed_forward(state, f"{name}mlp.experts.{expert}.", gate_up.t(), down.t())
        return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


def _feed_forward(state, name, gate_up, down):
    state[name + "gate_proj.weight"], state[name + "up_proj.weight"] = gate_up.chunk(2)
    state[name + "down_proj.weight"] = down
