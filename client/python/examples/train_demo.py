"""Trains the small MoE model that deploy/local.sh serves, on a CPU, and says how well it went.

    deploy/packages.sh install --training
    deploy/venv.sh --with-transformers
    build/venv/bin/python client/python/examples/train_demo.py --output build/demo_model

A byte-level decoder of DeepSeek-V3's architecture (latent attention, sigmoid gate, fine-grained experts and a
shared one) learns the King James Bible, and its experts are balanced without an auxiliary loss: after every step
each expert's bias, which counts for selection only, moves by --bias-rate towards the mean load (Wang et al.,
2024). Two short runs at the end, with and without that, show what it does.

A run that is interrupted goes on where it was when it is started again with the same --output. Same seed, same
torch, same machine: same model.
"""

import argparse
import json
import math
import pathlib
import time

import demo_text
import torch
import torch.nn.functional as F
from demo_network import Network
from demo_optimizer import Optimizer
from tqdm import tqdm
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

END = 256  # <|endoftext|>: before each document, and after the last.
# Bytes of the sequences of each step, in turns: attention over long ones is what costs most, and without some
# from the start a model is at a loss beyond what it has seen.
WINDOWS = (256, 256, 256, 256, 1024)
EVALUATED_WINDOW = 512
# Options that make another model when they change.
IDENTITY = ("steps", "batch_tokens", "bias_rate", "seed")


def configuration():
    return DeepseekV3Config(
        vocab_size=257,
        hidden_size=128,
        intermediate_size=384,
        moe_intermediate_size=64,
        num_hidden_layers=5,
        first_k_dense_replace=1,
        n_routed_experts=32,
        num_experts_per_tok=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=None,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=48,
        max_position_embeddings=1024,
        rope_theta=10000.0,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        tie_word_embeddings=False,
    )


def encode(texts):
    """Documents as one row of tokens."""
    tokens = [END]
    for text in texts:
        tokens += text.encode()
        tokens.append(END)
    return torch.tensor(tokens)


def draw(tokens, step, arguments, length):
    """The sequences of a step, [sequences, length + 1]: they depend on the seed and the step alone."""
    generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
    begins = torch.randint(
        len(tokens) - length - 1, (arguments.batch_tokens // length,), generator=generator
    )
    return torch.stack([tokens[begin : begin + length + 1] for begin in begins])


def max_violation(load):
    """MaxVio: how far the busiest expert is above the mean, as a share of the mean (Wang et al., 2024)."""
    return ((load.max() - load.mean()) / load.mean()).item()


@torch.no_grad()
def evaluate(network, tokens):
    """Held-out bits per byte in windows of EVALUATED_WINDOW, and MaxVio of each MoE layer over all of it."""
    for _, experts in network.moe_layers():
        experts.load.zero_()
    windows = [
        tokens[i : i + EVALUATED_WINDOW + 1] for i in range(0, len(tokens) - 1, EVALUATED_WINDOW)
    ]
    bits = 0.0
    for group in range(0, len(windows), 16):
        batch = windows[group : group + 16]
        for same in {len(window) for window in batch}:
            chosen = torch.stack([window for window in batch if len(window) == same])
            loss = F.cross_entropy(
                network(chosen[:, :-1]).flatten(0, 1), chosen[:, 1:].flatten(), reduction="sum"
            )
            bits += loss.item() / math.log(2)
    violations = {
        str(layer): round(max_violation(experts.load), 3) for layer, experts in network.moe_layers()
    }
    return {
        "bits_per_byte": round(bits / int((tokens != END).sum()), 4),
        "max_violation": violations,
    }


def step_once(network, optimizer, batch, progress, bias_rate):
    for _, experts in network.moe_layers():
        experts.load.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(batch[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    optimizer.step(progress)
    for _, experts in network.moe_layers():
        experts.bias += bias_rate * torch.sign(experts.load.mean() - experts.load)
    return loss.item()


def train(title, steps, bias_rate, learned, arguments, state_file=None):
    """Returns the trained network and the seconds it took."""
    torch.manual_seed(arguments.seed)
    network = Network(configuration())
    optimizer = Optimizer(network)
    run = {name: value for name, value in vars(arguments).items() if name in IDENTITY}
    first, seconds = 0, 0.0
    if state_file is not None and state_file.exists():
        state = torch.load(state_file)
        if state["run"] != run:
            raise SystemExit(
                f"{state_file} is of a run with other options; remove it to start over"
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
    begin = time.monotonic() - seconds
    bar = tqdm(range(first, steps), title, total=steps, initial=first, unit="step", mininterval=1.0)
    for step in bar:
        length = WINDOWS[step % len(WINDOWS)]
        loss = step_once(
            network,
            optimizer,
            draw(learned, step, arguments, length),
            (step + 1) / steps,
            bias_rate,
        )
        if step % 10 == 0:
            worst = max(max_violation(experts.load) for _, experts in network.moe_layers())
            bar.set_postfix(
                bits=f"{loss / math.log(2):.3f}", max_violation=f"{worst:.2f}", refresh=False
            )
        if state_file is not None and (step + 1) % arguments.save_every == 0:
            state = {
                "run": run,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "seconds": time.monotonic() - begin,
            }
            torch.save(state, state_file.with_suffix(".partial"))
            state_file.with_suffix(".partial").replace(state_file)
    return network.eval(), time.monotonic() - begin


def show(title, figures):
    layers = "  ".join(
        f"layer {layer}: {value:.2f}" for layer, value in figures["max_violation"].items()
    )
    print(
        f"{title}: held-out bits per byte {figures['bits_per_byte']:.3f}; MaxVio {layers}",
        flush=True,
    )


def compare(learned, held_out, arguments):
    """The claim of auxiliary-loss-free balancing, on this model: less violation for the same quality."""
    figures = {"steps": arguments.compare_steps}
    for name, rate in (("without_bias_update", 0.0), ("with_bias_update", arguments.bias_rate)):
        network, _ = train(
            name.replace("_", " "), arguments.compare_steps, rate, learned, arguments
        )
        figures[name] = evaluate(network, held_out)
        show(name.replace("_", " "), figures[name])
    return figures


def tokenizer():
    """A byte is a token, number and all: byte-level BPE without a merge, so that any reader of it will do."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    byte_level = Tokenizer(
        models.BPE(vocab={symbol: byte for byte, symbol in bytes_to_unicode().items()}, merges=[])
    )
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        # The model takes nothing else of what a tokenizer may return, and generate() refuses the rest.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


@torch.no_grad()
def round_weights(network):
    """To bfloat16, in which the checkpoint is stored: what is evaluated is what is shipped. The selection bias stays
    float32, as the family keeps it."""
    for parameter in network.parameters():
        parameter.copy_(parameter.bfloat16())


def save(network, output):
    """Writes the checkpoint, and checks that transformers computes from it what the network computes."""
    model = DeepseekV3ForCausalLM(network.config)
    model.load_state_dict(network.export())
    model.to(torch.bfloat16)
    for layer, experts in network.moe_layers():
        model.model.layers[layer].mlp.gate.e_score_correction_bias = experts.bias.clone()
    model.save_pretrained(output)
    tokenizer().save_pretrained(output)
    saved = DeepseekV3ForCausalLM.from_pretrained(output, dtype=torch.float32)
    batch = torch.arange(64).view(2, 32) * 3
    with torch.no_grad():
        difference = (saved(batch).logits - network(batch)).abs().max().item()
    if difference > 1e-3:
        raise RuntimeError(
            f"transformers' logits differ by {difference:.2g} from those of the trained network"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="folder to write the checkpoint to"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument(
        "--compare-steps", type=int, default=150, help="of each short run; 0: leave them out"
    )
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--bias-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--save-every", type=int, default=100, help="steps between states to go on from"
    )
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    learned_texts, held_out_texts = demo_text.split(demo_text.chapters())
    learned, held_out = encode(learned_texts), encode(held_out_texts)

    state_file = arguments.output / "training_state.pt"
    figures = {
        "torch": torch.__version__,
        "bytes_learned": len(learned),
        "bytes_held_out": len(held_out),
    }
    network, seconds = train(
        "training", arguments.steps, arguments.bias_rate, learned, arguments, state_file
    )
    figures |= {
        "steps": arguments.steps,
        "batch_tokens": arguments.batch_tokens,
        "minutes": round(seconds / 60, 1),
    }
    round_weights(network)
    figures |= evaluate(network, held_out)
    show("trained", figures)
    save(network, arguments.output)
    (arguments.output / "held_out.txt").write_text("".join(held_out_texts))
    if arguments.compare_steps:
        figures["comparison"] = compare(learned, held_out, arguments)
    (arguments.output / "training.json").write_text(json.dumps(figures, indent=2) + "\n")
    state_file.unlink(missing_ok=True)
    print(f"saved in {arguments.output}")


if __name__ == "__main__":
    main()
