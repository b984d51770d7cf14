"""What a MoE layer costs on a GPU, reckoned from shapes, kernels and data sheets: tests/cuda/roofline.py prints the tables of
common/experts/cuda/README.md, and with --write puts them there. Standard library only.

The layer's routed experts lie on one device, and every expert is as likely as any other. Each stage (up with its
activation, down, sum) takes as long as the slowest of: device memory, L2, shared memory, tensor cores; the time of a
launch comes on top.
"""

import dataclasses
import functools
import math
import pathlib
import re
import sys

import budgets
import occupancy

ROOM = pathlib.Path(__file__).resolve().parents[2] / "common/experts/cuda"
README = ROOM / "README.md"
TYPES = (ROOM / "device_types.h").read_text(encoding="utf-8")


def constant(name):
    """A number of the kernels."""
    return int(re.search(rf"constexpr uint32_t {name} = (\d+);", TYPES)[1])


NARROW_ROWS, WIDE_ROWS, WIDEST_ROWS = (constant(name) for name in ("kNarrowRows", "kWideRowsBf16", "kWidestRowsBf16"))
FRAGMENT_TOKENS = 8  # One instruction takes eight.
NARROW_BLOCK_ROWS = 64  # Rows of weights.
# What a block has on its way from memory: four 1 KiB steps of each of four warps; two stages of 16 KiB of weights and
# 128 bytes of each token.
NARROW_FLIGHT_BYTES = 4 * 4 * 1024


def wide_flight_bytes(tokens):
    return 2 * ((16 << 10) + 128 * tokens)


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a block of the wide kernel computes at once."""

    weight_rows: int
    tokens: int


def tile_of(shape, tokens):
    """The larger one is for batches of which an expert has more rows than the smaller one."""
    few = sum(rows_of_an_expert(shape, tokens)[: WIDE_ROWS + 1]) ** shape.experts
    return Tile(128, WIDE_ROWS if few >= 0.5 else WIDEST_ROWS)


# What is built, and what others would give.
TILES = (Tile(128, WIDE_ROWS), Tile(128, WIDEST_ROWS), Tile(256, 128), Tile(256, 256))


@dataclasses.dataclass(frozen=True)
class Gpu:
    name: str
    bytes_per_s: float  # Data sheet.
    flops: float  # Data sheet: bf16, dense.
    multiprocessors: int = 132
    clock: float = 1.83e9


GPUS = (Gpu("H100", 3.35e12, 989.4e12), Gpu("H200", 4.8e12, 989.4e12))


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    experts: int
    top_k: int
    d_model: int
    intermediate: int


SHAPES = (
    Shape("Qwen3-30B", 128, 8, 2048, 768),
    Shape("Mixtral 8x7B", 8, 2, 4096, 14336),
    Shape("DeepSeek-V3", 256, 8, 7168, 2048),
)
TOKENS = (1, 8, 64, 512)

# Assumed, none of it measured here.
MEMORY_SHARE = 0.9  # Streaming reads reach that much of the data sheet's bytes.
MMA_SHARE = 0.62  # mma.sync reaches that much of the data sheet's FLOPs on Hopper; wgmma alone reaches all.
L2_BYTES_PER_S = 5.5e12
SHARED_BYTES_PER_CLOCK = 128  # In one multiprocessor.
LAUNCH_US = 3.0  # From the end of one kernel until the next has its operands on the way.
LATENCY_S = 0.7e-6  # A read of device memory under load.
LINK_BYTES_PER_S = 55e9  # PCIe 5, 16 lanes.


@dataclasses.dataclass(frozen=True)
class Work:
    """What one stage, or several, move and compute."""

    memory_bytes: float = 0
    l2_bytes: float = 0
    shared_bytes: float = 0
    flops: float = 0  # As the model has them.
    executed_flops: float = 0  # With what fills up fragments.

    def times(self, gpu):
        """Seconds by what limits."""
        return {
            "memory": self.memory_bytes / (gpu.bytes_per_s * MEMORY_SHARE),
            "L2": self.l2_bytes / L2_BYTES_PER_S,
            "shared": self.shared_bytes / (SHARED_BYTES_PER_CLOCK * gpu.clock * gpu.multiprocessors),
            "tensor": self.executed_flops / (gpu.flops * MMA_SHARE),
        }


@functools.cache
def rows_of_an_expert(shape, tokens):
    """Probability of each number of rows."""
    p = shape.top_k / shape.experts
    return [math.comb(tokens, n) * p**n * (1 - p) ** (tokens - n) for n in range(tokens + 1)]


def experts_hit(shape, tokens):
    return shape.experts * (1 - rows_of_an_expert(shape, tokens)[0])


def product(shape, tokens, rows, inner, inputs, outputs, tile):
    """[rows, inner] of every expert with its rows; `inputs` and `outputs`: bytes of device memory besides weights."""
    weights = 2 * rows * inner
    memory = l2 = shared = executed = 0.0
    for n, probability in enumerate(rows_of_an_expert(shape, tokens)):
        experts = shape.experts * probability
        padded = -(-n // FRAGMENT_TOKENS) * FRAGMENT_TOKENS
        memory += experts * weights * (n > 0)
        executed += experts * 2 * padded * rows * inner
        if 0 < n <= NARROW_ROWS:
            l2 += experts * (weights + rows / NARROW_BLOCK_ROWS * n * inner * 2)
        elif n:
            tiles, blocks = -(-n // tile.tokens), -(-rows // tile.weight_rows)
            l2 += experts * (tiles * weights + blocks * padded * inner * 2)
            # Each of a block's four warps reads its fragments of weights once for a tile, and all tokens.
            shared += experts * (tiles * weights + 4 * blocks * padded * inner * 2)
    flops = 2.0 * tokens * shape.top_k * rows * inner
    return Work(memory + inputs + outputs, l2 + outputs, shared, flops, executed)


def stages(shape, tokens, tile=None):
    tile = tile or tile_of(shape, tokens)
    assignments = tokens * shape.top_k
    d, i = shape.d_model, shape.intermediate
    return (
        product(shape, tokens, 2 * i, d, inputs=2 * tokens * d, outputs=2 * assignments * i, tile=tile),
        product(shape, tokens, d, i, inputs=2 * assignments * i, outputs=4 * assignments * d, tile=tile),
        Work(memory_bytes=4 * (assignments + tokens) * d, l2_bytes=4 * (assignments + tokens) * d),
    )


def launches(shape, tokens):
    """Kernels: few rows and many rows of an expert have each their own in both products; and the sum."""
    few = sum(rows_of_an_expert(shape, tokens)[1 : NARROW_ROWS + 1]) * shape.experts
    many = sum(rows_of_an_expert(shape, tokens)[NARROW_ROWS + 1 :]) * shape.experts
    return 2 * ((few >= 0.5) + (many >= 0.5)) + 1


@dataclasses.dataclass(frozen=True)
class Prediction:
    us: float
    limit: str
    memory_share: float  # 1: the data sheet's bytes per second.
    flops_share: float
    roof_share: float  # 1: either is used in full.


def predict(shape, tokens, gpu, tile=None):
    work = stages(shape, tokens, tile)
    times = [stage.times(gpu) for stage in work]
    seconds = sum(max(each.values()) for each in times) + launches(shape, tokens) * LAUNCH_US / 1e6
    slowest = max(times, key=lambda each: max(each.values()))
    memory, flops = (sum(getattr(stage, name) for stage in work) for name in ("memory_bytes", "flops"))
    best = max(memory / gpu.bytes_per_s, flops / gpu.flops)
    return Prediction(
        seconds * 1e6,
        max(slowest, key=slowest.get),
        memory / gpu.bytes_per_s / seconds,
        flops / gpu.flops / seconds,
        best / seconds,
    )


def table(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def layers():
    head = ["model", "T", "experts hit", "rows each", "MB", "GFLOP", "launches", "copies µs"]
    head += [f"{gpu.name}: {what}" for gpu in GPUS for what in ("µs", "limit", "% of bytes/s, FLOP/s")]
    rows = []
    for shape in SHAPES:
        for tokens in TOKENS:
            hit, work = experts_hit(shape, tokens), stages(shape, tokens)
            row = [shape.name, f"{tokens}", f"{hit:.1f}", f"{tokens * shape.top_k / hit:.1f}"]
            row += [f"{sum(w.memory_bytes for w in work) / 1e6:.0f}", f"{sum(w.flops for w in work) / 1e9:.2f}"]
            row += [f"{launches(shape, tokens)}", f"{6 * tokens * shape.d_model / LINK_BYTES_PER_S * 1e6:.0f}"]
            for gpu in GPUS:
                found = predict(shape, tokens, gpu)
                row += [f"{found.us:.0f}", found.limit]
                row.append(f"{100 * found.memory_share:.0f}, {100 * found.flops_share:.1f}")
            rows.append(row)
    return table(head, rows)


def kernels():
    """What the compiler may use (a test compares), and what that leaves on its way from memory."""
    head = ["kernel", "threads", "registers", "shared KiB", "blocks at once", "KiB on their way"]
    head += [f"{gpu.name} needs KiB" for gpu in GPUS]
    rows = []
    flights = {f"WideProductBf16<true, {tokens}>": wide_flight_bytes(tokens) for tokens in (WIDE_ROWS, WIDEST_ROWS)}
    for name, flight in ({"NarrowProductBf16<true>": NARROW_FLIGHT_BYTES} | flights).items():
        budget = budgets.read()[name]
        shared = budget.static_shared_bytes + budget.dynamic_shared_bytes
        blocks = occupancy.blocks(90, budget.threads, budget.registers, shared)
        row = [f"`{name}`", f"{budget.threads}", f"<= {budget.registers}"]
        row += [f"{shared / 1024:.0f}", f"{blocks}", f"{blocks * flight / 1024:.0f}"]
        row += [f"{gpu.bytes_per_s * LATENCY_S / gpu.multiprocessors / 1024:.0f}" for gpu in GPUS]
        rows.append(row)
    return table(head, rows)


def tiles():
    """Microseconds of a layer with tiles of the wide kernel and with others."""
    head = ["rows of weights x tokens"]
    cases = [(shape, TOKENS[-1], gpu) for shape in SHAPES for gpu in GPUS]
    head += [f"{shape.name}, T = {tokens}, {gpu.name}: µs" for shape, tokens, gpu in cases]
    rows = []
    for tile in TILES:
        row = [f"{tile.weight_rows} x {tile.tokens}"]
        for shape, tokens, gpu in cases:
            found = predict(shape, tokens, gpu, tile)
            built = ", built" if tile == tile_of(shape, tokens) else ""
            row.append(f"{found.us:.0f} ({found.limit}{built})")
        rows.append(row)
    return table(head, rows)


def ridges():
    """Rows of an expert from which tensor cores, and not memory, would limit."""
    head = ["", *(gpu.name for gpu in GPUS)]
    by = {"all of the data sheet": 1.0, "as reckoned here": MMA_SHARE / MEMORY_SHARE}
    return table(
        head, [[name, *(f"{share * gpu.flops / gpu.bytes_per_s:.0f}" for gpu in GPUS)] for name, share in by.items()]
    )


def main(words):
    tables = [layers(), ridges(), kernels(), tiles()]
    if words == ["--write"]:
        section = re.compile(r"(?<=^## Roofline\n).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
        in_order = iter(tables)
        text = README.read_text(encoding="utf-8")
        README.write_text(
            section.sub(lambda match: re.sub(r"(?:^\|.*\n?)+", lambda _: next(in_order) + "\n", match[0], flags=re.M), text),
            encoding="utf-8",
        )
    else:
        print("\n\n".join(tables))


if __name__ == "__main__":
    main(sys.argv[1:])
