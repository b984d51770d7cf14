"""What two builds are compared on: models, and layouts of nodes that serve them."""

import dataclasses
import json
from typing import Optional, Tuple

from families import FAMILIES
from mesh import shards

# Sums of more than one run of a kernel, and sizes that are no multiples of what kernels like.
SIZES = dict(d_model=320, experts=16, top_k=4, intermediate=288, layers=2)


@dataclasses.dataclass(frozen=True)
class Layout:
    name: str
    # Flags of each node.
    nodes: Tuple
    # Which node is killed.
    victim: int
    # Some expert is on several nodes, so that the router has a choice.
    replicated: bool = False
    # Without the victim every expert is still on some node.
    survives: bool = False


def _layout(name, nodes, victim, **options):
    return Layout(name, tuple(map(tuple, nodes)), victim, **options)


LAYOUTS = {
    layout.name: layout
    for layout in (
        _layout("one node", shards(1, "--threads", "2"), 0),
        _layout("two nodes", shards(2), 1),
        _layout("three nodes", shards(3), 2),
        _layout("two copies", shards(1) * 2, 0, replicated=True, survives=True),
        _layout("two replicas", shards(4, "--replicas", "2"), 2, replicated=True, survives=True),
        _layout("slices", [[*s, "--slice", f"{i}/2"] for i in range(2) for s in shards(2)], 3),
        _layout(
            "by hand",
            [["--experts", "0-9,14", "--max-batch-rows", "5"], ["--experts", "5,8-15"]],
            1,
            replicated=True,
        ),
    )
}
# For what has less to do with where experts are.
FEW_LAYOUTS = ("three nodes", "two replicas")


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint, and flags of the programs that serve it."""

    # In the table; models of one label are counted together.
    label: str
    family: str
    dtype: str = "F32"
    quantised: Optional[str] = None
    node_flags: Tuple[str, ...] = ()
    router_flags: Tuple[str, ...] = ()
    layouts: Tuple[str, ...] = tuple(LAYOUTS)

    @property
    def name(self):
        return f"{self.label} {self.dtype.lower()}"


def _few(label, family="qwen2_moe", **options):
    return Model(label, family, layouts=FEW_LAYOUTS, **options)


def _family_models():
    for family in FAMILIES:
        for dtype in ("F32", "BF16"):
            yield Model(family, family, dtype)


def _quantised_models():
    for family, entry in FAMILIES.items():
        for quantised in entry.quantised:
            for mode in ("expanded", "compressed"):
                yield _few(
                    f"{family}, {quantised} {mode}",
                    family,
                    dtype="BF16",
                    quantised=quantised,
                    node_flags=("--weights", mode),
                )


def _wire_models():
    for hidden, partials in (("bf16", "bf16"), ("f16", "f16"), ("int8", "int8"), ("int8", "bf16")):
        flags = (f"--wire-hidden-states={hidden}", f"--wire-partials={partials}")
        yield _few(f"wire {hidden}, {partials}", router_flags=flags)
    yield _few("wire f32 of bf16", dtype="BF16", router_flags=("--wire-partials=f32",))
    yield _few("frame checksums", router_flags=("--frame-checksums",))


def _batch_models():
    """Other ways for a batch through the programs."""
    f32 = ("--compute-dtype=f32",)
    yield _few("bf16 in float32", dtype="BF16", node_flags=f32, router_flags=f32)
    yield _few(
        "nothing inline",
        node_flags=("--inline-parameters=0",),
        router_flags=("--inline-tokens=0", "--max-linger-percent=0"),
    )
    yield _few("batches of 128 tokens", router_flags=("--max-batch-tokens=128",))
    yield _few("frames of 64 KiB", router_flags=("--max-frame-bytes=65536",))
    yield _few("ties as torch-cpu", "mixtral", router_flags=("--tie-order=torch-cpu",))


ROUTERS = {
    "capacity": {"top_k": 1, "capacity_factor": 1.25, "drop": "position"},
    "random second expert": {"top_k": 2, "second_expert": "random", "capacity_factor": 1},
    "batch prioritised": {"top_k": 2, "capacity_factor": 1.05, "drop": "batch_prioritised"},
    "next best expert": {"top_k": 1, "capacity_factor": 1, "drop": "next_best"},
    "expert choice": {"choice": "expert_choice", "capacity_factor": 2},
    "noise": {"scope": "selected", "noise": "normal", "noise_scale": 1, "renormalise": "none"},
    "hash": {"choice": "hash", "top_k": 1},
    "pass through": {"top_k": 1, "score": "sigmoid", "pass_through": "complement"},
}


def _routing_models():
    for name, options in ROUTERS.items():
        # The checkpoint's own renormalisation does not go with all of these.
        routing = json.dumps({"renormalise": "none"} | options)
        yield _few(f"routing: {name}", "qwen3_moe", router_flags=("--routing", routing))


MODELS = (
    *_family_models(),
    *_quantised_models(),
    *_wire_models(),
    *_batch_models(),
    *_routing_models(),
)
