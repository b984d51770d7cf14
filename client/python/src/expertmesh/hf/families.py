"""Where the MoE blocks of a transformers model are, and what their callers expect. One entry per family.

A family of the transformers library is new here when its block class has a name that no entry knows: add
an entry (or the class name to one), and a builder to tests/integration/tiny_models.py.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Dict, Iterator, List, Optional, Tuple

import transformers
from torch import nn

from expertmesh import errors

TRANSFORMERS_MAJOR = int(transformers.__version__.split(".")[0])


class Answer(enum.Enum):
    """What a block returns to the decoder layer that calls it. h is [batch, sequence, d_model]."""

    HIDDEN = enum.auto()  # h
    PAIR = enum.auto()  # (h, router logits)
    FLAT_PAIR = enum.auto()  # (h as [tokens, d_model], router logits)
    NESTED = enum.auto()  # (h, (router logits, expert index))


@dataclasses.dataclass(frozen=True)
class Family:
    """How to find and to replace the blocks of one family.

    names: what a mesh may call the family; the first is used in messages.
    blocks: class names of the MoE block in any version of transformers.
    answer_v4, answer_v5: what that class returns, by major version of transformers.
    keys: regular expressions of the block's path below its layer, in a checkpoint and in a model.
    sibling: attribute of the layer that holds a shared expert outside the block. The mesh adds shared
        experts itself, so this one goes together with the block.
    by_sequence: routing looks at one sequence at a time (capacity), so the mesh is told where each ends.
    padding: the caller hands the block an attention mask as second argument, and padding gets zeros.
    """

    names: Tuple[str, ...]
    blocks: Tuple[str, ...]
    answer_v4: Answer
    answer_v5: Answer
    keys: Tuple[str, ...]
    sibling: Optional[str] = None
    by_sequence: bool = False
    padding: bool = False

    @property
    def answer(self) -> Answer:
        """For the version of transformers that is installed."""
        return self.answer_v4 if TRANSFORMERS_MAJOR < 5 else self.answer_v5

    def is_named(self, name: str) -> bool:
        """Whether `name`, as a mesh or a config.json gives it, means this family."""
        return name.lower().replace("-", "_") in self.names


_H, _P = Answer.HIDDEN, Answer.PAIR
_MIXTRAL_KEYS = ("block_sparse_moe", "mlp")
_MLP = ("mlp",)

FAMILIES: Tuple[Family, ...] = (
    Family(("mixtral",), ("MixtralSparseMoeBlock",), _P, _H, _MIXTRAL_KEYS),
    Family(("qwen2_moe",), ("Qwen2MoeSparseMoeBlock",), _P, _H, _MLP),
    Family(("qwen3_moe",), ("Qwen3MoeSparseMoeBlock",), _P, _H, _MLP),
    Family(("olmoe",), ("OlmoeSparseMoeBlock",), _P, _H, _MLP),
    Family(("granitemoe", "granite_moe"), ("GraniteMoeMoE",), _P, _H, ("block_sparse_moe",)),
    Family(
        ("granitemoeshared", "granite_moe_shared"),
        ("GraniteMoeSharedMoE",),
        _P,
        _H,
        ("block_sparse_moe", "shared_mlp"),
        sibling="shared_mlp",
    ),
    # Only as code that comes with the checkpoint.
    Family(("deepseek_moe", "deepseek"), ("DeepseekMoE",), _H, _H, _MLP),
    Family(("deepseek_v2",), ("DeepseekV2MoE", "DeepseekV2Moe"), _H, _H, _MLP),
    # Kimi-K2 is a DeepSeek-V3 under a name of its own.
    Family(("deepseek_v3", "kimi_k2"), ("DeepseekV3MoE",), _H, _H, _MLP),
    Family(("glm4_moe",), ("Glm4MoeMoE",), _H, _H, _MLP),
    Family(("gpt_oss",), ("GptOssMLP",), _P, _P, _MLP),
    Family(
        ("llama4", "llama4_text"),
        ("Llama4TextMoe",),
        Answer.FLAT_PAIR,
        Answer.FLAT_PAIR,
        ("feed_forward",),
    ),
    Family(("phimoe", "phi3_5_moe"), ("PhimoeSparseMoeBlock",), _P, _H, _MIXTRAL_KEYS),
    Family(("dbrx",), ("DbrxFFN",), _P, _H, ("ffn",)),
    Family(("jamba",), ("JambaSparseMoeBlock",), _P, _H, ("feed_forward",)),
    Family(
        ("switch_transformers", "switch"),
        ("SwitchTransformersSparseMLP",),
        Answer.NESTED,
        _H,
        (r"layer\.\d+\.mlp",),
        by_sequence=True,
    ),
    Family(("nllb_moe",), ("NllbMoeSparseMLP",), Answer.NESTED, _H, ("ffn",), padding=True),
)

_BY_BLOCK: Dict[str, Family] = {block: family for family in FAMILIES for block in family.blocks}

# "model.layers.3.mlp", "transformer.blocks.3.ffn", "decoder.block.3.layer.2.mlp": index, and what follows.
_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|block)\.(\d+)\.(.+)")


def family_of_block(module: nn.Module) -> Optional[Family]:
    """The family whose MoE block `module` is; None when it is none."""
    return _BY_BLOCK.get(type(module).__name__)


def family_named(name: str) -> Optional[Family]:
    """By the name that a mesh or a config.json's model_type gives it."""
    for family in FAMILIES:
        if family.is_named(name):
            return family
    return None


def text_config(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """The part of a model's config that describes its language model."""
    if config.is_encoder_decoder:
        # get_text_config would ask which of the two is meant; they share one config.
        return config
    result: transformers.PretrainedConfig = config.get_text_config()
    return result


def num_encoder_layers(config: transformers.PretrainedConfig) -> int:
    """Layers of the encoder, which are numbered before those of the decoder; 0 without an encoder."""
    if not config.is_encoder_decoder:
        return 0
    # num_layers: as T5; encoder_layers: as BART. The other one may be an alias of it.
    for name in ("encoder_layers", "num_layers", "num_hidden_layers"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    raise errors.InvalidArgument(
        f"config of {config.model_type} does not say how many layers its encoder has"
    )


def split_path(path: str, encoder_layers: int) -> Optional[Tuple[int, str]]:
    """Layer as the mesh counts them, and the rest of the path; None outside of layers.

    path: of a module or of a tensor, as "model.layers.3.mlp.gate.weight".
    """
    match = _LAYER.search(path)
    if match is None:
        return None
    layer = int(match[1])
    if encoder_layers and "decoder" in path[: match.start(1)].split("."):
        layer += encoder_layers
    return layer, match[2]


@dataclasses.dataclass
class Site:
    """Where a block is: `getattr(parent, name)` is the block of `layer`."""

    layer: int
    path: str
    parent: nn.Module
    name: str
    family: Family

    @property
    def block(self) -> nn.Module:
        result = getattr(self.parent, self.name)
        assert isinstance(result, nn.Module)
        return result


def find_sites(model: nn.Module, config: transformers.PretrainedConfig) -> List[Site]:
    """The MoE blocks of a model, replaced ones as well, by ascending layer."""
    encoder_layers = num_encoder_layers(config)
    found: Dict[int, Site] = {}
    for path, parent, name, block in _children(model):
        # A block that was replaced says itself what it stands for.
        family = getattr(block, "expertmesh_family", None) or family_of_block(block)
        if family is None:
            continue
        split = split_path(path, encoder_layers)
        if split is None:
            raise errors.InvalidArgument(f"{path} is a MoE block outside of the model's layers")
        if split[0] in found:
            raise errors.InvalidArgument(
                f"layer {split[0]} has two MoE blocks: {found[split[0]].path} and {path}"
            )
        found[split[0]] = Site(split[0], path, parent, name, family)
    return [found[layer] for layer in sorted(found)]


def _children(model: nn.Module) -> Iterator[Tuple[str, nn.Module, str, nn.Module]]:
    for prefix, parent in model.named_modules():
        for name, child in parent.named_children():
            yield f"{prefix}.{name}" if prefix else name, parent, name, child
