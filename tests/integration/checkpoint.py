"""Small Hugging Face checkpoints made with numpy, and safetensors files read and written by hand, so that
the tests share no code with what they test."""

import dataclasses
import json
import pathlib
import struct
from typing import Dict

import ml_dtypes
import numpy as np

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I64": np.dtype(np.int64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_safetensors(path, tensors):
    """tensors: name -> array."""
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(array.tobytes())


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return {
        name: np.frombuffer(
            body[entry["data_offsets"][0] : entry["data_offsets"][1]], DTYPES[entry["dtype"]]
        ).reshape(entry["shape"])
        for name, entry in header.items()
    }


@dataclasses.dataclass
class Checkpoint:
    """A folder on disk and what is in it."""

    path: pathlib.Path
    config: dict
    tensors: Dict[str, np.ndarray]
    dtype: np.dtype

    @property
    def d_model(self):
        return self.config["hidden_size"]

    @property
    def moe_layers(self):
        first = self.config.get("first_k_dense_replace", 0)
        return list(range(first, self.config["num_hidden_layers"]))

    @property
    def weights_file(self):
        return self.path / "model.safetensors"


def make_config(family, layers, d_model, experts, top_k, intermediate, dtype):
    config = {
        "model_type": family,
        "torch_dtype": TORCH_NAMES[dtype],
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_experts_per_tok": top_k,
        "vocab_size": 256,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    if family == "mixtral":
        config |= {
            "architectures": ["MixtralForCausalLM"],
            "num_local_experts": experts,
            "intermediate_size": intermediate,
        }
    elif family == "qwen3_moe":
        config |= {
            "architectures": ["Qwen3MoeForCausalLM"],
            "head_dim": d_model // 4,
            "num_experts": experts,
            "moe_intermediate_size": intermediate,
            "intermediate_size": 2 * intermediate,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    elif family == "deepseek_v3":
        config |= {
            "architectures": ["DeepseekV3ForCausalLM"],
            "n_routed_experts": experts,
            "n_shared_experts": 1,
            "moe_intermediate_size": intermediate,
            "intermediate_size": 2 * intermediate,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        }
    else:
        raise ValueError(family)
    return config


def make_tensors(config, seed, dtype):
    rng = np.random.default_rng(seed)
    family, d_model = config["model_type"], config["hidden_size"]

    def linear(rows, columns):
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(dtype)

    def glu(prefix, width, names=("gate_proj", "up_proj", "down_proj")):
        gate, up, down = names
        tensors[f"{prefix}.{gate}.weight"] = linear(width, d_model)
        tensors[f"{prefix}.{up}.weight"] = linear(width, d_model)
        tensors[f"{prefix}.{down}.weight"] = linear(d_model, width)

    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        if family == "mixtral":
            block = f"model.layers.{layer}.block_sparse_moe"
            experts, width = config["num_local_experts"], config["intermediate_size"]
            names = ("w1", "w3", "w2")
        else:
            block = f"model.layers.{layer}.mlp"
            experts = config.get("num_experts") or config.get("n_routed_experts")
            width = config["moe_intermediate_size"]
            names = ("gate_proj", "up_proj", "down_proj")
        if layer < config.get("first_k_dense_replace", 0):
            glu(block, config["intermediate_size"])
            continue
        # Wide logits, so that few tokens are close to a tie.
        tensors[f"{block}.gate.weight"] = (2 * linear(experts, d_model).astype(np.float32)).astype(
            dtype
        )
        if family == "deepseek_v3":
            tensors[f"{block}.gate.e_score_correction_bias"] = rng.uniform(
                -0.3, 0.3, experts
            ).astype(np.float32)
            glu(f"{block}.shared_experts", width * config["n_shared_experts"])
        for expert in range(experts):
            glu(f"{block}.experts.{expert}", width, names)
    return tensors


def make_checkpoint(
    path,
    family="qwen3_moe",
    *,
    layers=2,
    d_model=64,
    experts=12,
    top_k=3,
    intermediate=32,
    dtype="F32",
    seed=1,
):
    """Writes config.json and model.safetensors with every MoE tensor (and no others)."""
    path = pathlib.Path(path)
    path.mkdir(parents=True)
    config = make_config(family, layers, d_model, experts, top_k, intermediate, dtype)
    tensors = make_tensors(config, seed, DTYPES[dtype])
    (path / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(path / "model.safetensors", tensors)
    return Checkpoint(path, config, tensors, DTYPES[dtype])
