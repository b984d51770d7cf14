"""Small Hugging Face checkpoints made with numpy, and safetensors files read and written by hand, so that
the tests share no code with what they test."""

import dataclasses
import json
import pathlib
import struct
from typing import Dict

import ml_dtypes
import numpy as np

from expertmesh.v1 import tensor_pb2
from families import FAMILIES, Sizes

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
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
    # The type of the weights.
    dtype: np.dtype
    # The type of activations: what a model rounds to where it rounds.
    activations: np.dtype = None

    def __post_init__(self):
        self.activations = self.activations or self.dtype

    def computed_by(self, mesh):
        """The same with the type that this mesh computes in, which depends on flags and CPU."""
        name = tensor_pb2.Dtype.Name(mesh.client.describe().activation_dtype)
        return dataclasses.replace(self, activations=DTYPES[name.removeprefix("DTYPE_")])

    @property
    def family(self):
        return FAMILIES[self.config["model_type"]]

    @property
    def moe(self):
        return self.family.moe(self.config)

    @property
    def d_model(self):
        return self.config[self.family.d_model]

    @property
    def moe_layers(self):
        return sorted(self.moe.prefixes)

    @property
    def weights_file(self):
        return self.path / "model.safetensors"

    def reader(self, layer):
        """Function from a name in that layer to its tensor."""
        prefix = self.moe.prefixes[layer]
        return lambda name: self.tensors[prefix + name]


# quantization_config of the types in Family.quantised.
_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
QUANTISATION = {
    "fp8": _FP8,
    "fp8_ue8m0": _FP8 | {"scale_fmt": "ue8m0"},
    # What Qwen's files hold; their config.json does not say so.
    "fp8_bf16": _FP8 | {"scale_fmt": "bf16"},
    "fp8_f16": _FP8 | {"scale_fmt": "f16"},
    "mxfp4": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"],
    },
}


def make_config(family, sizes, dtype, quantised=None):
    config = {
        "model_type": family,
        "torch_dtype": TORCH_NAMES[dtype],
        "hidden_size": sizes.d_model,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 256,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    if FAMILIES[family].d_model == "d_model":
        # Models that call everything by other names.
        config = {"model_type": family, "torch_dtype": TORCH_NAMES[dtype], "vocab_size": 256}
        config["d_model"] = sizes.d_model
    config |= FAMILIES[family].config(sizes)
    if quantised:
        config["quantization_config"] = QUANTISATION[quantised]
    return config


def make_tensors(config, moe, d_model, seed, dtype):
    rng = np.random.default_rng(seed)

    def linear(rows, columns, scale=1.0):
        return (scale * rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(dtype)

    def expert(width, gated, biased):
        parts = {"up": (width, d_model), "down": (d_model, width)}
        if gated:
            parts["gate"] = (width, d_model)
        made = {part: linear(*shape) for part, shape in parts.items()}
        if biased:
            for part, shape in parts.items():
                made[part + "_bias"] = (0.3 * rng.standard_normal(shape[0])).astype(dtype)
        return made

    tensors = {}
    for prefix in moe.prefixes.values():
        # Wide logits, so that few tokens are close to a tie.
        block = {moe.gate: linear(moe.experts, d_model, scale=2.0)}
        if moe.logit_bias:
            block[moe.logit_bias] = rng.standard_normal(moe.experts).astype(dtype)
        if moe.select_bias:
            bias = rng.uniform(-0.3, 0.3, moe.experts).astype(np.float32)
            if config["model_type"] == "ernie4_5_moe":
                # Wide beside softmax scores, and stored as one row.
                bias = bias.reshape(1, -1) / 2
            block[moe.select_bias] = bias
        if moe.shared_gate:
            block[moe.shared_gate] = linear(1, d_model)
        if moe.shared:
            block |= moe.shared.pack([expert(moe.shared_width, True, False)])
        block |= moe.layout.pack(
            [expert(moe.width, moe.gated, moe.biased) for _ in range(moe.experts)]
        )
        tensors |= {prefix + name: tensor for name, tensor in block.items()}
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
    quantised=None,
    seed=1,
    changes=None,
):
    """Writes config.json and model.safetensors with every MoE tensor (and no others). layers: as the family
    counts them; some have dense layers among them, or more. changes: to config.json."""
    path = pathlib.Path(path)
    path.mkdir(parents=True)
    sizes = Sizes(layers, d_model, experts, top_k, intermediate)
    config = make_config(family, sizes, dtype, quantised) | (changes or {})
    moe = FAMILIES[family].moe(config)
    tensors = make_tensors(config, moe, d_model, seed, DTYPES[dtype])
    (path / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(path / "model.safetensors", tensors)
    return Checkpoint(path, config, tensors, DTYPES[dtype])
