#!/usr/bin/env python3
"""Records by how much the rotary embeddings of the transformers library turn, as transformers.json in this folder.

Needs torch and transformers (recorded with 2.13.0 and 4.57.6, on a CPU) and is not run by the tests: the record
is what they compare the decoder's RoPE with. A model's own module is asked, forward after forward, each with one
sequence of the given length, as a prompt and every token after it are read.

Usage: record_transformers.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import pathlib
import sys

import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

HEADS = 4
YARN = {"rope_type": "yarn", "factor": 4.0}
# Name, head_dim, config.json, lengths of one sequence as it grows.
CASES = [
    ("default", 16, {}, [1, 64]),
    ("linear", 16, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, [1, 64]),
    (
        "llama3",
        16,
        {
            "rope_theta": 500000.0,
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        [64],
    ),
    (
        "yarn as the card of Qwen3 says",
        32,
        {
            "rope_theta": 1e6,
            "max_position_embeddings": 40960,
            "rope_scaling": YARN | {"original_max_position_embeddings": 32768},
        },
        [64],
    ),
    ("yarn without its original context", 16, {"rope_scaling": YARN}, [64]),
    ("yarn with attention_factor", 16, {"rope_scaling": YARN | {"attention_factor": 1.5}}, [64]),
    ("yarn with mscale alone", 16, {"rope_scaling": YARN | {"mscale": 0.7}}, [64]),
    (
        "yarn with mscale and mscale_all_dim",
        16,
        {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}},
        [64],
    ),
    (
        "yarn with other betas, not truncated",
        32,
        {"rope_scaling": YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}},
        [64],
    ),
    ("yarn that shrinks", 16, {"rope_scaling": {"rope_type": "yarn", "factor": 0.5}}, [64]),
    (
        "dynamic",
        16,
        {"max_position_embeddings": 32, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        [8, 32, 33, 40, 64, 65, 128],
    ),
    (
        "dynamic, a long prompt",
        8,
        {
            "rope_theta": 1e6,
            "max_position_embeddings": 16,
            "rope_scaling": {"type": "dynamic", "factor": 4.0},
        },
        [50, 51, 64],
    ),
]


def record(name, head_dim, config, lengths):
    defaults = {"rope_theta": 10000.0, "max_position_embeddings": 2048}
    config = defaults | config
    module = MixtralRotaryEmbedding(
        MixtralConfig(
            hidden_size=head_dim * HEADS,
            num_attention_heads=HEADS,
            head_dim=head_dim,
            **json.loads(json.dumps(config)),
        )
    )
    steps = []
    for length in lengths:
        module(torch.zeros(1, 1, head_dim * HEADS), torch.arange(length)[None])
        steps.append(
            {
                "length": length,
                "inverse_frequencies": module.inv_freq.tolist(),
                "magnitude": float(module.attention_scaling),
            }
        )
    return {"name": name, "head_dim": head_dim, "config": config, "steps": steps}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    cases = [record(*case) for case in CASES]
    (folder / "transformers.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
