"""MoE blocks of real transformers models (4.57): where they are, what flowed through them, and which experts
and weights they chose, as a dense [tokens, experts] matrix of weights (0: not chosen)."""

import copy
import dataclasses

import numpy as np
import torch
from torch.nn import functional


@dataclasses.dataclass
class Block:
    """What one MoE block received and made: [tokens, ...], in the model's dtype. `weights` and `logits` are
    float32 [tokens, experts]. `module` is the block itself."""

    module: torch.nn.Module
    hidden: torch.Tensor
    output: torch.Tensor
    weights: np.ndarray
    logits: np.ndarray


def _dense(ids, weights, experts):
    return torch.zeros(len(ids), experts, dtype=weights.dtype).scatter(1, ids, weights)


def _softmax(normalise):
    """Mixtral, Qwen, OLMoE, Jamba: softmax over all, then the k best."""

    def read(block, hidden, logits):
        scores = torch.softmax(logits, dim=1, dtype=torch.float)
        weights, ids = torch.topk(scores, block.top_k, dim=-1)
        if normalise(block):
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return _dense(ids, weights.to(hidden.dtype), logits.shape[1]), logits

    return read


def _phi(block, hidden, logits):
    from transformers.models.phimoe.modeling_phimoe import sparsemixer

    weights, ids = sparsemixer(logits, jitter_eps=block.router_jitter_noise, training=False)
    return _dense(ids, weights, logits.shape[1]), logits


def _granite(block, hidden, answer):
    _, token, gates, sizes, logits = answer
    expert = torch.repeat_interleave(torch.arange(logits.shape[1]), torch.tensor(sizes))
    weights = torch.zeros(logits.shape, dtype=gates.dtype)
    weights[token, expert] = gates
    return weights, logits


def _deepseek(block, hidden, answer):
    ids, weights = answer
    gate = block.gate.weight
    return _dense(ids, weights, len(gate)), functional.linear(hidden.float(), gate.float())


def _gpt_oss(block, hidden, answer):
    return answer[0], functional.linear(hidden, block.router.weight, block.router.bias)


def _dbrx(block, hidden, answer):
    scores, weights, ids = answer
    return _dense(ids, weights, scores.shape[1]), functional.linear(
        hidden, block.router.layer.weight
    )


def _switch(block, hidden, answer):
    chosen, best, logits = answer
    return (chosen * best).flatten(0, 1), logits.flatten(0, 1)


def _nllb(block, hidden, answer):
    logits = functional.linear(hidden.float(), block.router.classifier.weight.float())
    return answer[1].float() * (1 - block.moe_token_dropout), logits


# Class of the block: the name of its gate, and what reads (weights, logits) off the gate's answer.
_READERS = {
    "MixtralSparseMoeBlock": ("gate", _softmax(lambda block: True)),
    "Qwen2MoeSparseMoeBlock": ("gate", _softmax(lambda block: block.norm_topk_prob)),
    "Qwen3MoeSparseMoeBlock": ("gate", _softmax(lambda block: block.norm_topk_prob)),
    "OlmoeSparseMoeBlock": ("gate", _softmax(lambda block: block.norm_topk_prob)),
    "JambaSparseMoeBlock": ("router", _softmax(lambda block: False)),
    "PhimoeSparseMoeBlock": ("gate", _phi),
    "GraniteMoeMoE": ("router", _granite),
    "GraniteMoeSharedMoE": ("router", _granite),
    "DeepseekV2MoE": ("gate", _deepseek),
    "DeepseekV3MoE": ("gate", _deepseek),
    "Glm4MoeMoE": ("gate", _deepseek),
    "GptOssMLP": ("router", _gpt_oss),
    "Llama4TextMoe": ("router", lambda block, hidden, answer: answer),
    "DbrxFFN": ("router", _dbrx),
    "SwitchTransformersSparseMLP": ("router", _switch),
    "NllbMoeSparseMLP": ("router", _nllb),
}


def find(model):
    """{layer: block}, layers of a decoder after those of its encoder."""
    found = {}
    encoder_layers = 0
    if model.config.is_encoder_decoder:
        config = model.config
        encoder_layers = getattr(config, "encoder_layers", None) or config.num_layers
    for name, module in model.named_modules():
        if type(module).__name__ in _READERS:
            layer = int(next(part for part in name.split(".") if part.isdigit()))
            found[layer + (encoder_layers if "decoder." in name else 0)] = module
    return found


def _shared_beside(model):
    """{block: what adds to its output outside of it}: GraniteMoeShared keeps its shared expert there."""
    return {
        layer.block_sparse_moe: layer.shared_mlp
        for layer in model.modules()
        if getattr(layer, "shared_mlp", None) is not None
    }


def observe(model, **inputs):
    """Runs the model on one sequence; returns {layer: Block}."""
    seen, hooks = {}, []
    beside = _shared_beside(model)

    def watch(layer, block):
        gate_name, read = _READERS[type(block).__name__]
        answers = []

        def gate_hook(module, arguments, answer):
            answers.append(answer)

        def block_hook(module, arguments, answer):
            x = arguments[0]
            hidden = x.reshape(-1, x.shape[-1])
            output = answer[0] if isinstance(answer, tuple) else answer
            if block in beside:
                output = output + beside[block](x)
            weights, logits = read(block, hidden, answers.pop())
            seen[layer] = Block(
                module,
                hidden.clone(),
                output.reshape(hidden.shape).clone(),
                weights.float().numpy(),
                logits.float().numpy(),
            )

        hooks.append(getattr(block, gate_name).register_forward_hook(gate_hook))
        hooks.append(block.register_forward_hook(block_hook))

    for layer, block in find(model).items():
        watch(layer, block)
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def in_float32(block):
    """[tokens, d_model] what the block makes of the same hidden states and weights without rounding between."""
    with torch.no_grad():
        answer = copy.deepcopy(block.module).float()(block.hidden.float()[None])
    output = answer[0] if isinstance(answer, tuple) else answer
    return output.reshape(block.hidden.shape).numpy()
