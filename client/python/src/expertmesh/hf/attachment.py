"""attach: the MoE blocks of a loaded model become calls into a mesh."""

from __future__ import annotations

import dataclasses
import inspect
import os
import threading
import warnings
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Type, Union

import torch
import transformers

from expertmesh import errors
from expertmesh.client import Client
from expertmesh.hf.block import MeshBlock
from expertmesh.hf.families import Site, family_named, find_sites, text_config
from expertmesh.hf.mapped import leave_mapped_files
from expertmesh.types import ForwardOptions
from expertmesh.v1 import router_pb2

# Name of a module of the model's layer -> what it was.
_Kept = Dict[str, Optional[torch.nn.Module]]


class Attachment:
    """A model whose MoE blocks are computed by a mesh. Made by `attach`; `model.expertmesh` names it.

    layers: the layers that the mesh computes, ascending, in its numbering.

    As a context manager it ends by `detach` when the weights were kept, else by `close`.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        client: Any,
        *,
        owns_client: bool,
        timeout: Optional[float],
        checkpoint: Optional[str],
    ) -> None:
        self.model = model
        self.layers: List[int] = []
        self._client = client
        self._owns_client = owns_client
        self._timeout = timeout
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._state = "attached"
        self._kept: Optional[Dict[int, _Kept]] = None
        self._undo: List[Callable[[], None]] = []

    def __enter__(self) -> Attachment:
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return _refuse_copying()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._kept is not None:
            self.detach()
        else:
            self.close()

    @property
    def client(self) -> Any:
        """The client that the blocks call."""
        return self._client

    def forward(self, layer: int, rows: torch.Tensor, options: ForwardOptions) -> torch.Tensor:
        """What a block calls: [tokens, d_model] -> the same shape and dtype, on the CPU."""
        if self._state != "attached":
            raise errors.FailedPrecondition(
                f"layer {layer} was called after its attachment was {self._state}; attach the model again"
            )
        limits = [limit for limit in (options.timeout, self._timeout) if limit is not None]
        options = dataclasses.replace(options, timeout=min(limits, default=None))
        result = self._client.forward(layer, rows, options)
        output: torch.Tensor = result.output
        return output

    def close(self) -> None:
        """Ends the connection and leaves the model without its experts; may be called twice.

        The blocks stay replaced and raise FailedPrecondition; `attach` connects them again.
        """
        with self._lock:
            if self._state != "attached":
                return
            self._state = "closed"
        self._leave_model()

    def detach(self, checkpoint: Union[str, os.PathLike[str], None] = None) -> None:
        """Puts MoE blocks with weights back, and ends the connection; a second call does nothing.

        Blocks that were kept (`keep_weights`) are put back as they are. Otherwise they are read from
        `checkpoint`, or from the folder that the model was loaded from: the whole model is loaded
        once more for that, and needs the memory of one.

        Raises FailedPrecondition when there is neither, or when it is too late (`close`); the model
        then stays attached.
        """
        with self._lock:
            if self._state == "detached":
                return
            if self._state == "closed":
                raise errors.FailedPrecondition(
                    "the attachment is closed; attach the model again, or reload it"
                )
            blocks = self._kept if self._kept is not None else self._reload(checkpoint)
            for site in find_sites(self.model, self.model.config):
                for name, module in blocks.get(site.layer, {}).items():
                    setattr(site.parent, name, module)
            self._kept = None
            self._state = "detached"
        self._leave_model()

    def _reload(self, checkpoint: Union[str, os.PathLike[str], None]) -> Dict[int, _Kept]:
        path = os.fspath(checkpoint) if checkpoint is not None else self._checkpoint
        if path is None or not os.path.isdir(path):
            raise errors.FailedPrecondition(
                f"the weights were freed, and {path!r} is no folder to read them from; name the "
                "checkpoint, detach(path), or attach with keep_weights=True"
            )
        model = self.model
        donor = type(model).from_pretrained(path, dtype=model.dtype)
        donor.to(model.device).eval()
        wanted = set(self.layers)
        return {
            site.layer: _modules_of(site)
            for site in find_sites(donor, donor.config)
            if site.layer in wanted
        }

    def _leave_model(self) -> None:
        if getattr(self.model, "expertmesh", None) is self:
            delattr(self.model, "expertmesh")
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        for site in find_sites(self.model, self.model.config):
            if isinstance(site.block, MeshBlock) and site.block.mesh is self:
                site.block.mesh = None
        if self._owns_client:
            self._client.close()

    def _take_over(self, sites: List[Site], keep_weights: bool) -> None:
        kept: Dict[int, _Kept] = {}
        for site in sites:
            if not isinstance(site.block, MeshBlock):
                kept[site.layer] = _modules_of(site)
                replace_block(site)
            block = site.block
            assert isinstance(block, MeshBlock)
            block.mesh = self
        if keep_weights:
            self._kept = kept
        self.layers = [site.layer for site in sites]
        setattr(self.model, "expertmesh", self)
        self._undo.append(refuse_router_logits(self.model))
        self._undo.append(_replace_method(self.model, "save_pretrained", _refuse_saving))
        # What copy and pickle ask for, before they copy the first weight.
        self._undo.append(_replace_method(self.model, "__reduce_ex__", _refuse_copying))


def _modules_of(site: Site) -> _Kept:
    """What `replace_block` replaces, by the name that the layer has for it."""
    modules: _Kept = {site.name: site.block}
    if site.family.sibling is not None:
        modules[site.family.sibling] = getattr(site.parent, site.family.sibling)
    return modules


def replace_block(site: Site) -> None:
    """Puts a block without weights, and without a mesh, in the place of a real one."""
    setattr(site.parent, site.name, MeshBlock(site.family, site.layer))
    if site.family.sibling is not None:
        # The layer leaves a shared expert out that is None; the mesh has added it.
        setattr(site.parent, site.family.sibling, None)


def refuse_router_logits(model: transformers.PreTrainedModel) -> Callable[[], None]:
    """Makes forward() refuse output_router_logits, which only the mesh could know. Returns the undoing."""
    parameter = inspect.signature(type(model).forward).parameters.get("output_router_logits")
    by_default = parameter is not None and parameter.default is True

    def check(
        module: torch.nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> Optional[Tuple[Tuple[Any, ...], Dict[str, Any]]]:
        asked = kwargs.get("output_router_logits")
        if asked is None and not by_default:
            asked = getattr(text_config(model.config), "output_router_logits", False)
        if asked:
            raise errors.FailedPrecondition(
                "output_router_logits is set, and the mesh computes the gates: their logits are not "
                "here. Leave it unset (also in model.config), or detach; for the experts of given "
                "hidden states use Client.forward with ForwardOptions(return_routing=True)"
            )
        if by_default:
            kwargs["output_router_logits"] = False
        return args, kwargs

    remove: Callable[[], None] = model.register_forward_pre_hook(check, with_kwargs=True).remove
    return remove


def _refuse_saving(*args: Any, **kwargs: Any) -> None:
    raise errors.FailedPrecondition(
        "the model's experts are in the mesh: what would be saved is no whole model; detach first"
    )


def _refuse_copying(*args: Any) -> Tuple[Any, ...]:
    raise TypeError(
        "a model that is attached to a mesh cannot be copied or pickled: its experts are in the mesh; "
        "detach it first, or load the model where it is needed and attach it there"
    )


def _replace_method(
    model: transformers.PreTrainedModel, name: str, method: Callable[..., Any]
) -> Callable[[], None]:
    """`method` instead of what the model's class has. Returns the undoing."""
    setattr(model, name, method)
    return lambda: delattr(model, name)


def _first(config: Any, names: Iterable[str]) -> Optional[int]:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return None


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "experts_per_token", "moe_top_k")


def check_model(
    sites: List[Site],
    config: transformers.PretrainedConfig,
    served: router_pb2.DescribeModelResponse,
) -> None:
    """Raises InvalidArgument when the mesh serves another model than this one; names the difference."""
    family = sites[0].family
    if not family.is_named(served.family):
        known = family_named(served.family)
        raise errors.InvalidArgument(
            f"the mesh serves family {known.names[0] if known else served.family}, the model is "
            f"{family.names[0]}; use the address of a mesh that serves this model"
        )
    text = text_config(config)
    if served.d_model != text.hidden_size:
        raise errors.InvalidArgument(
            f"the mesh serves d_model {served.d_model}, the model has {text.hidden_size}; use the address "
            "of a mesh that serves this model"
        )
    here = {site.layer for site in sites}
    there = {layer.layer: layer for layer in served.layers}
    if here != set(there):
        raise errors.InvalidArgument(
            f"the mesh serves MoE layers {_ranges(there)}, the model has {_ranges(here)}; use the "
            "address of a mesh that serves this model"
        )
    # DBRX has its experts in a part of its own.
    parts = [text, getattr(text, "ffn_config", None)]
    for what, names, values in (
        ("num_experts", _EXPERTS, {n: layer.num_experts for n, layer in there.items()}),
        ("experts_per_token", _TOP_K, {n: layer.experts_per_token for n, layer in there.items()}),
    ):
        mine = next((v for v in (_first(part, names) for part in parts) if v is not None), None)
        for number, value in sorted(values.items()):
            if mine is not None and value not in (0, mine):
                raise errors.InvalidArgument(
                    f"layer {number}: the mesh has {what} {value}, the model has {mine}; use the address "
                    "of a mesh that serves this model"
                )


def _ranges(layers: Iterable[int]) -> str:
    """ "1-3, 5" for 1, 2, 3, 5."""
    runs: List[List[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs) or "none"


def _chosen(sites: List[Site], layers: Optional[Iterable[int]]) -> List[Site]:
    if layers is None:
        return sites
    wanted = set(layers)
    known = {site.layer for site in sites}
    if not wanted or not wanted <= known:
        raise errors.InvalidArgument(
            f"layers is {sorted(wanted)}; the model's MoE layers are {_ranges(known)}"
        )
    return [site for site in sites if site.layer in wanted]


def _warn_of_other_routing(sites: List[Site], config: transformers.PretrainedConfig) -> None:
    """Says where the mesh does what config.json says and the library's own block does not."""
    library = any(
        type(site.block).__module__.startswith("transformers.models.deepseek_v2") for site in sites
    )
    if library and getattr(text_config(config), "norm_topk_prob", False):
        warnings.warn(
            "config.norm_topk_prob is true: the mesh divides a token's weights by their sum, as "
            "DeepSeek's own code does, and transformers does not; what the model says will differ. "
            "Set it to false in the checkpoint's config.json for what transformers computes",
            stacklevel=3,
        )


def _checkpoint_of(model: transformers.PreTrainedModel) -> Optional[str]:
    path = getattr(model, "name_or_path", None) or getattr(model.config, "_name_or_path", None)
    return path if path and os.path.isdir(path) else None


def attach(
    model: transformers.PreTrainedModel,
    address: Union[str, Client, Any],
    layers: Optional[Iterable[int]] = None,
    *,
    timeout: Optional[float] = 30.0,
    keep_weights: bool = False,
) -> Attachment:
    """Replaces MoE blocks of a loaded transformers model (4.57 or 5) by calls into a mesh.

    address: "host:port" of the router, or an `expertmesh.Client` (with TLS, say), which stays yours.
    layers: MoE layers to replace, an encoder's counted before the decoder's; None: all.
    timeout: seconds that each call of a layer may take; None: the client's own. `hf.deadline` bounds a
        whole generate().
    keep_weights: keep the replaced blocks for `detach`; otherwise their memory is freed. (What is left of
        a model in mapped checkpoint files is copied out of them, so that they go.)

    A block goes with its gate and its shared experts, all of which the mesh computes. Nothing else
    changes: generate(), batches, several threads and every dtype and device work as before. What goes
    wrong in the mesh is raised by the model as the ExpertmeshError that `Client.forward` raises.
    Training, saving and output_router_logits raise FailedPrecondition while attached.

    Raises InvalidArgument when the model has no MoE block of a known family, or when the mesh serves
    another model (family, d_model, layers, experts); Unavailable when the router cannot be reached; the
    model is then unchanged.
    """
    sites = find_sites(model, model.config)
    if not sites:
        raise errors.InvalidArgument(
            f"{type(model).__name__} has no MoE block of a family that Expertmesh knows"
        )
    chosen = _chosen(sites, layers)
    for site in chosen:
        if isinstance(site.block, MeshBlock) and site.block.mesh is not None:
            raise errors.FailedPrecondition(
                f"layer {site.layer} is attached already; detach it first (model.expertmesh)"
            )
    other = getattr(model, "expertmesh", None)
    if isinstance(other, Attachment):
        raise errors.FailedPrecondition(
            f"layers {_ranges(other.layers)} are attached already; name all layers in one "
            "attach, after model.expertmesh.detach()"
        )
    if keep_weights and any(isinstance(site.block, MeshBlock) for site in chosen):
        raise errors.InvalidArgument("keep_weights is set, but the model was loaded without them")
    owns_client = isinstance(address, str)
    client = Client(address, timeout=timeout) if isinstance(address, str) else address
    attachment = Attachment(
        model,
        client,
        owns_client=owns_client,
        timeout=timeout,
        checkpoint=_checkpoint_of(model),
    )
    try:
        check_model(sites, model.config, client.describe())
        _warn_of_other_routing(chosen, model.config)
    except BaseException:
        if owns_client:
            client.close()
        raise
    attachment._take_over(chosen, keep_weights)
    if not keep_weights:
        leave_mapped_files(model)
    return attachment
