"""Loads to plan for, the file they travel in, and what a plan makes of them."""

import dataclasses
import random
import struct


@dataclasses.dataclass
class Problem:
    loads: list  # [layers][experts]
    nodes: int
    slots: int  # A node has so many for each layer.


@dataclasses.dataclass
class Figures:
    mean: float  # The layers' fullest node over their mean node.
    worst: float
    beside: int  # Copies on a node that has another of the same expert.
    copies: int


def zipf(layers, experts, exponent, seed):
    """Each layer's experts in an order of its own."""
    shuffled = random.Random(seed)
    row = [1 / (i + 1) ** exponent for i in range(experts)]
    return [shuffled.sample(row, experts) for _ in range(layers)]


def write(path, problem):
    layers, experts = len(problem.loads), len(problem.loads[0])
    with open(path, "wb") as file:
        file.write(struct.pack("<4I", layers, experts, problem.nodes, problem.slots))
        for row in problem.loads:
            file.write(struct.pack(f"<{experts}d", *row))


def read(path):
    with open(path, "rb") as file:
        layers, experts, nodes, slots = struct.unpack("<4I", file.read(16))
        rows = [list(struct.unpack(f"<{experts}d", file.read(8 * experts))) for _ in range(layers)]
    return Problem(rows, nodes, slots)


def figures(problem, copies):
    """copies: [layers] of [expert, node, share]. ValueError for what is no plan of the problem."""
    ratios = []
    beside = 0
    for layer, row in enumerate(problem.loads):
        work = [0.0] * problem.nodes
        used = [0] * problem.nodes
        shares = [0.0] * len(row)
        seen = set()
        for expert, node, share in copies[layer]:
            work[node] += row[expert] * share
            used[node] += 1
            shares[expert] += share
            beside += (expert, node) in seen
            seen.add((expert, node))
        if max(used) > problem.slots:
            raise ValueError(f"layer {layer}: a node has {max(used)} copies")
        if any(abs(share - 1) > 1e-5 for share in shares):
            raise ValueError(f"layer {layer}: shares of an expert do not add up to 1")
        ratios.append(max(work) * problem.nodes / sum(row))
    return Figures(sum(ratios) / len(ratios), max(ratios), beside, sum(map(len, copies)))
