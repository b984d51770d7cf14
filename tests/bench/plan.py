"""What is measured: shapes of layers, and cells (one kind of load) for the systems of each shape."""

import dataclasses

BASELINES = ("in_process", "two_bare_hops", "raw_tcp", "rpc_per_expert", "rpc_per_assignment")
# Other people's systems, which are measured only when asked for.
PEERS = ("ggml_rpc",)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One MoE layer of a synthetic checkpoint."""

    name: str
    title: str
    family: str
    d_model: int
    intermediate: int
    experts: int
    top_k: int
    extra: tuple = ()  # More flags of `expertmesh checkpoint make`.

    def flags(self):
        return [
            *("--family", self.family, "--layers", 1, "--d-model", self.d_model),
            *("--experts", self.experts, "--top-k", self.top_k),
            *("--intermediate", self.intermediate, "--vocab", 64, "--dtype", "bf16", *self.extra),
        ]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One kind of load. `open_share`: open loop, at this share of the rate that cell `t<tokens>` reached in a closed
    one."""

    tokens: int
    routing: str = "uniform"
    callers: int = 1
    open_share: float = 0

    @property
    def name(self):
        parts = [f"t{self.tokens}"]
        if self.callers > 1:
            parts[0] += f"x{self.callers}"
        if self.routing != "uniform":
            parts.append(self.routing)
        if self.open_share:
            parts.append(f"open{self.open_share * 100:.0f}")
        return "-".join(parts)


@dataclasses.dataclass(frozen=True)
class MeshKind:
    """A router and the nodes that share all experts."""

    nodes: int
    replicas: int = 1  # Nodes that hold each expert.
    wire: str = "auto"  # Type of rows on all links, in both directions.
    slices: bool = False  # Every node holds a slice of each expert, instead of some experts.

    @property
    def name(self):
        parts = [f"mesh{self.nodes}"]
        if self.replicas > 1:
            parts.append(f"replicas{self.replicas}")
        if self.wire != "auto":
            parts.append(self.wire)
        if self.slices:
            parts.append("slices")
        return "_".join(parts)


@dataclasses.dataclass(frozen=True)
class Group:
    """Systems that run at once over one checkpoint, and what each of them is asked to do, in this order."""

    shape: Shape
    # Each is a MeshKind.
    meshes: tuple
    # (cell, systems); a system is a baseline or the name of a mesh. What moves as many bytes as a mesh moves those of
    # the last one before it.
    work: tuple

    @property
    def baselines(self):
        known = (*BASELINES, *PEERS)
        return [name for name in known if any(name in systems for _, systems in self.work)]


def shapes():
    sigmoid = ("--groups", 4, "--top-groups", 2, "--shared-experts", 1)
    return {
        shape.name: shape
        for shape in (
            Shape("qwen3", "Qwen3-30B-A3B", "qwen3_moe", 2048, 768, 128, 8),
            Shape("olmoe", "OLMoE-1B-7B", "olmoe", 2048, 1024, 64, 8),
            Shape("mixtral", "Mixtral, scaled down", "mixtral", 1024, 3584, 8, 2),
            Shape(
                "deepseek_v3", "DeepSeek-V3, scaled down", "deepseek_v3", 1792, 512, 64, 8, sigmoid
            ),
            Shape("tiny_experts", "Tiny experts", "qwen3_moe", 512, 64, 128, 8),
            Shape("tiny", "For tests", "qwen3_moe", 128, 64, 32, 4),
        )
    }


def _meshes(*nodes):
    return tuple(MeshKind(count) for count in nodes)


def _sizes(systems, tokens=(1, 8, 64, 512)):
    return tuple((Cell(count), systems) for count in tokens)


def main_group(shape, peers=()):
    """Everything the headline is made of."""
    pair = ("mesh2", "in_process")
    return Group(
        shape,
        (*_meshes(1, 2, 4), MeshKind(2, wire="int8"), MeshKind(2, slices=True)),
        (
            *_sizes(("mesh2_slices", "mesh2", *BASELINES, *peers), (1, 8)),
            *_sizes(("mesh2_slices", "mesh2_int8", "mesh2", *BASELINES, *peers), (64,)),
            # An RPC for each of 4096 assignments would take a second.
            *_sizes(("mesh2_slices", "mesh2", *BASELINES[:-1], *peers), (512,)),
            (Cell(4, callers=16), ("mesh2",)),
            *((Cell(count, routing), pair) for count in (64, 512) for routing in ("k-hot", "zipf")),
            *((Cell(8, open_share=share), ("mesh2",)) for share in (0.5, 0.8)),
            *_sizes(("mesh1", "mesh4"), (1, 64)),
        ),
    )


def replicas_group(shape):
    """Where the router has a choice of nodes."""
    mesh = MeshKind(4, replicas=2)
    return Group(shape, (mesh,), _sizes((mesh.name,), (8, 64)))


def other_group(shape):
    return Group(shape, _meshes(2), _sizes(("mesh2", "in_process")))


def many_nodes_group(shape):
    nodes = (1, 2, 4, 8, 16, 32)
    return Group(shape, _meshes(*nodes), _sizes(tuple(f"mesh{count}" for count in nodes), (8, 64)))


def groups(names, peers=()):
    """Peers take part in the main groups."""
    known = shapes()
    for name in names:
        if name not in known:
            raise SystemExit(f"--shapes: there is no {name}; these are: {', '.join(known)}")
    made = []
    for name in names:
        if name == "tiny":
            made += [main_group(known[name], peers), replicas_group(known[name])]
            made.append(Group(known[name], _meshes(4, 32), _sizes(("mesh4", "mesh32"), (8,))))
        elif name == "tiny_experts":
            made.append(many_nodes_group(known[name]))
        elif name == "qwen3":
            made += [main_group(known[name], peers), replicas_group(known[name])]
        else:
            made.append(other_group(known[name]))
    return made
