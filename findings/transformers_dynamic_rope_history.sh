#!/usr/bin/env bash
# transformers 4.57.6 (PyPI, with torch 2.13.0 on the CPU): under `rope_type: dynamic` what a model makes of a sequence
# depends on which sequences it has seen before. Frequencies are stretched for the longest one so far, and go back only
# when one comes that fits the unstretched context; so a sequence between the two has other logits after a longer one
# than before it, and in a batch beside a longer one than alone. "The model's output for this prompt" is then no
# reference unless the model is new.
#
# Seen: "after a longer one, and beside one: logits differ by 0.52 of their norm; of a new model: 0".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q torch==2.13.0 transformers==4.57.6 numpy

cat >history.py <<'CODE'
import torch
import transformers

CONFIG = transformers.LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=16,
    rope_scaling={"rope_type": "dynamic", "factor": 4.0},
    initializer_range=0.3,
)


def new_model():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(CONFIG).eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0]


def change(a, b):
    return ((a - b).norm() / a.norm()).item()


prompt = [i * 7 % 64 for i in range(24)]
longer = [i * 5 % 64 for i in range(60)]
model = new_model()
first = logits(model, prompt)
logits(model, longer)
again = logits(model, prompt)
logits(model, prompt[:8])
short_between = logits(model, prompt)
batch = torch.tensor([prompt + [0] * (len(longer) - len(prompt)), longer])
with torch.no_grad():
    # What follows a token has no influence on it.
    in_batch = new_model()(batch, use_cache=False).logits[0, : len(prompt)]
beside = change(first, in_batch)
after, new = change(first, again), change(first, logits(new_model(), prompt))
print(f"transformers {transformers.__version__}, torch {torch.__version__}")
print(f"after a longer one: logits differ by {after:.2f} of their norm, beside one by {beside:.2f}; of a new model: {new:.2g}")
print(f"after a longer one and a short one: {change(first, short_between):.2g}")
assert min(after, beside) > 0.1 and new == 0 and change(first, short_between) == 0
CODE
venv/bin/python history.py
echo "still so in transformers 4.57.6"
