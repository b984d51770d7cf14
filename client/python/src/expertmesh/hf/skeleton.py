"""skeleton: a checkpoint loaded without the weights of its experts."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pathlib
import re
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple, Type, Union

import torch
import transformers

from expertmesh import errors
from expertmesh.hf.attachment import attach, replace_block
from expertmesh.hf.families import (
    Family,
    family_named,
    find_sites,
    num_encoder_layers,
    split_path,
    text_config,
)
from expertmesh.hf.safetensors_file import SafetensorsFile, checkpoint_files

_SCALE = "_scale_inv"


def skeleton(
    path: Union[str, os.PathLike[str]],
    dtype: Union[str, torch.dtype, None] = None,
    device: Union[str, torch.device, None] = None,
    address: Any = None,
    *,
    layers: Optional[Iterable[int]] = None,
    timeout: Optional[float] = 30.0,
    **options: Any,
) -> transformers.PreTrainedModel:
    """Loads a checkpoint without the weights that a mesh computes with: a model in eval mode.

    path: folder with config.json and safetensors files, as `save_pretrained` and the Hub have them.
    dtype: of the model ("bfloat16" or torch.bfloat16); None: what config.json says. DeepSeek's block
        FP8 is expanded to it.
    device: where to put the model; None: the CPU. The weights go through the CPU's memory.
    address: attach to this router (or Client) at once, with `timeout`; None: call `attach` later. Until
        then a MoE layer that is called raises FailedPrecondition.
    layers: MoE layers to leave out, as in `attach`; None: all.
    options: to the model's from_pretrained (attn_implementation, say).

    Routed experts, shared experts and gates of these layers are neither read nor given memory: the
    peak is the other weights plus the largest tensor that is converted.

    Raises InvalidArgument when the folder is no such checkpoint, its model has no MoE layers that
    Expertmesh knows, or a weight is missing; and, given `address`, what `attach` raises.
    """
    folder = pathlib.Path(path)
    if not (folder / "config.json").is_file():
        raise errors.InvalidArgument(
            f"{folder} has no config.json; give the folder of a checkpoint (of one on the Hub: what "
            "huggingface_hub.snapshot_download returns)"
        )
    config = transformers.AutoConfig.from_pretrained(folder)
    family = family_named(text_config(config).model_type) or family_named(config.model_type)
    if family is None:
        raise errors.InvalidArgument(
            f"{folder} has model_type {config.model_type}, which is no MoE family that Expertmesh knows"
        )
    block_scale = _quantisation(config, folder)
    real = _model_class(config, folder)
    wanted = _dtype(dtype, config)
    left_out = _LeftOut(family, config, _moe_layers(real, config, layers))
    tensors = _read(checkpoint_files(folder), left_out, wanted, _kept_in_float32(real), block_scale)
    if wanted is not None:
        options["dtype"] = wanted
    with _no_report():
        model, report = _without_blocks(real, left_out.layers).from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, **options
        )
    del tensors
    # What was made is the real class; the other one only built it.
    model.__class__ = real
    model.config._name_or_path = model.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    missing = sorted(report["missing_keys"])
    if missing:
        raise errors.InvalidArgument(
            f"{folder} lacks {len(missing)} weights of {real.__name__}, {missing[0]} for one; download "
            "the checkpoint again"
        )
    model.eval()
    if device is not None:
        model.to(device)
    if address is not None:
        attach(model, address, left_out.layers, timeout=timeout)
    result: transformers.PreTrainedModel = model
    return result


class _LeftOut:
    """Which tensors of a checkpoint are left out: those of the MoE blocks of `layers`."""

    def __init__(
        self, family: Family, config: transformers.PretrainedConfig, layers: Set[int]
    ) -> None:
        self.layers = layers
        self._encoder_layers = num_encoder_layers(config)
        self._below_layer = re.compile(rf"(?:{'|'.join(family.keys)})\.")

    def __contains__(self, name: str) -> bool:
        split = split_path(name, self._encoder_layers)
        if split is None or split[0] not in self.layers:
            return False
        return self._below_layer.match(split[1]) is not None


def _moe_layers(
    real: Type[transformers.PreTrainedModel],
    config: transformers.PretrainedConfig,
    layers: Optional[Iterable[int]],
) -> Set[int]:
    # On the meta device a model of any size takes next to no memory.
    with torch.device("meta"):
        sites = find_sites(real(copy.deepcopy(config)), config)
    known = {site.layer for site in sites}
    wanted = known if layers is None else set(layers)
    if not wanted or not wanted <= known:
        raise errors.InvalidArgument(
            f"layers is {sorted(wanted)}; the model's MoE layers are {sorted(known)}"
        )
    return wanted


def _model_class(
    config: transformers.PretrainedConfig, folder: pathlib.Path
) -> Type[transformers.PreTrainedModel]:
    for name in config.architectures or []:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    raise errors.InvalidArgument(
        f"{folder}/config.json has architectures {config.architectures}, of which transformers "
        f"{transformers.__version__} knows none"
    )


def _without_blocks(
    real: Type[transformers.PreTrainedModel], layers: Set[int]
) -> Type[transformers.PreTrainedModel]:
    """A class whose models lose the MoE blocks of `layers` while they are on the meta device, before
    anything is loaded: transformers then gives those no memory, and loads all else in its own way."""

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        real.__init__(self, config, *args, **kwargs)
        for site in find_sites(self, config):
            if site.layer in layers:
                replace_block(site)

    return type(
        real.__name__,
        (real,),
        {
            "__init__": __init__,
            "__module__": real.__module__,
            "__qualname__": real.__qualname__,
            "__doc__": real.__doc__,
        },
    )


def _dtype(
    dtype: Union[str, torch.dtype, None], config: transformers.PretrainedConfig
) -> Optional[torch.dtype]:
    """What is asked for, else what config.json says, else None: as the tensors are."""
    value = dtype
    for part in (config, text_config(config)):
        for name in ("dtype", "torch_dtype"):
            # v4 knows both, and complains when asked for the old one.
            if value is None and name in vars(part):
                value = vars(part)[name]
    if isinstance(value, str):
        value = getattr(torch, value.removeprefix("torch."), value)
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise errors.InvalidArgument(f"dtype is {dtype!r}; use float32, float16 or bfloat16")
    return value


def _kept_in_float32(real: Type[transformers.PreTrainedModel]) -> List[str]:
    names: List[str] = []
    for attribute in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
        names += getattr(real, attribute, None) or []
    return names


def _quantisation(
    config: transformers.PretrainedConfig, folder: pathlib.Path
) -> Optional[Tuple[int, int]]:
    """Takes quantization_config out of `config`; returns the block of FP8 weights, if they are FP8."""
    found = None
    for part in (config, text_config(config)):
        found = vars(part).pop("quantization_config", None) or found
    if found is None:
        return None
    if not isinstance(found, dict):
        found = found.to_dict()
    method = str(found.get("quant_method"))
    if method == "mxfp4":
        # Experts only.
        return None
    block = found.get("weight_block_size")
    if method == "fp8" and isinstance(block, (list, tuple)) and len(block) == 2:
        return int(block[0]), int(block[1])
    raise errors.InvalidArgument(
        f"{folder} is quantised as {method} (weight_block_size {block}); skeleton reads fp8 with blocks, "
        "mxfp4 and plain weights"
    )


def _read(
    files: Dict[str, pathlib.Path],
    left_out: _LeftOut,
    dtype: Optional[torch.dtype],
    kept_in_float32: List[str],
    block: Optional[Tuple[int, int]],
) -> Dict[str, torch.Tensor]:
    """All tensors that are not left out, in `dtype` where they are floating point."""
    by_file: Dict[pathlib.Path, List[str]] = {}
    for name, path in files.items():
        if name not in left_out and not (block and name.endswith(_SCALE)):
            by_file.setdefault(path, []).append(name)
    tensors: Dict[str, torch.Tensor] = {}
    with contextlib.ExitStack() as stack:
        opened: Dict[pathlib.Path, SafetensorsFile] = {}

        def read(name: str) -> torch.Tensor:
            path = files[name]
            if path not in opened:
                if not path.is_file():
                    raise errors.InvalidArgument(f"{path} is missing; download it")
                opened[path] = stack.enter_context(SafetensorsFile(path))
            return opened[path].read(name)

        for names in by_file.values():
            for name in names:
                tensor = read(name)
                if block is not None and name + _SCALE in files:
                    tensor = expand_blocks(name, tensor, read(name + _SCALE), block)
                keep = any(part in name for part in kept_in_float32)
                if dtype is not None and tensor.is_floating_point() and not keep:
                    tensor = tensor.to(dtype)
                tensors[name] = tensor
    return tensors


def expand_blocks(
    name: str, weight: torch.Tensor, scale: torch.Tensor, block: Tuple[int, int]
) -> torch.Tensor:
    """[out, in] FP8 times the scale of its block, in bfloat16 (rounded once from float32).

    scale: [ceil(out / block[0]), ceil(in / block[1])] float32, bfloat16 or float16, or bytes that are
    exponents: 2^(b - 127), and NaN for 255.
    """
    rows, columns = (-(-size // b) for size, b in zip(weight.shape, block))
    if weight.dim() != 2 or list(scale.shape) != [rows, columns]:
        raise errors.InvalidArgument(
            f"{name} has shape {list(weight.shape)} and scales {list(scale.shape)}; expected scales "
            f"{[rows, columns]}"
        )
    if scale.dtype == torch.uint8:
        powers = torch.exp2(scale.float() - 127)
        scale = powers.masked_fill(scale == 255, float("nan"))
    result = torch.empty(weight.shape, dtype=torch.bfloat16)
    # A strip of blocks at a time: the float32 copy stays small.
    for row in range(rows):
        strip = slice(row * block[0], (row + 1) * block[0])
        factors = scale[row].float().repeat_interleave(block[1])[: weight.shape[1]]
        result[strip] = (weight[strip].float() * factors).to(torch.bfloat16)
    return result


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """transformers would complain about every weight and every plan of the blocks that are not there."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)
