"""The headline: what was measured against what it should be, in ratios of figures of the same rounds."""

import statistics

from results import find


def _ratio(result, shape, top, below, value):
    """Median over runs of value(top) / sum of value(each of below); None when something was not measured. Runs are
    compared with runs of the same round, since the machine drifts."""
    entries = [find(result, shape, *which) for which in (top, *below)]
    if None in entries:
        return None
    rounds = zip(*([value(run) for run in entry["runs"]] for entry in entries))
    return statistics.median(first / sum(rest) for first, *rest in rounds)


# What the expert library does, and the ceiling for it.
READING = ("expert_bytes_per_second", "read_bytes_per_second")
MULTIPLYING = ("expert_flops_per_second", "product_flops_per_second")


def _share_of_ceiling(result, shape, cell, *kinds):
    """How near the library comes to a ceiling: the median over all runs. With several kinds, a run
    counts the one nearest to its ceiling, as that one holds it back."""
    entry = find(result, shape, cell, "in_process")
    ceilings = [each for each in result["ceilings"] if each["shape"] == shape]
    if entry is None or not ceilings:
        return None
    return statistics.median(
        max(run[value] / best[ceiling] for value, ceiling in kinds)
        for run, best in zip(entry["runs"], ceilings)
    )


def _p50(run):
    return run["latency_ms"]["p50"]


def _speed(run):
    return run["tokens_per_second"]


def _bytes(run):
    return run["bytes_per_token"]


def _fewer_destinations(result, shape):
    """Nodes that a token goes to, over what they would be if each assignment drew a replica."""
    entry = find(result, shape, "t64", "mesh4_replicas2")
    if entry is None:
        return None
    kinds = ("destinations_per_token", "uniform_destinations_per_token")
    return statistics.median(run[kinds[0]] / run[kinds[1]] for run in entry["runs"])


def _at_most(name, bound, figure):
    return _target(name, "at_most", bound, figure)


def _at_least(name, bound, figure):
    return _target(name, "at_least", bound, figure)


def _target(name, kind, bound, figure):
    met = None
    if figure is not None:
        met = figure <= bound if kind == "at_most" else figure >= bound
    return {"name": name, "figure": figure, "kind": kind, "target": bound, "met": met}


def _speed_targets(result, shape):
    """Compares the mesh with what else could be done on the same machine."""

    def speed(tokens, below, top="mesh2"):
        return _ratio(result, shape, (f"t{tokens}", top), [(f"t{tokens}", below)], _speed)

    hops_and_experts = [("t1", "two_bare_hops"), ("t1", "in_process")]
    many_callers = _ratio(result, shape, ("t4x16", "mesh2"), [("t64", "mesh2")], _speed)
    return [
        _at_most(
            "T = 1: p50 / (two bare hops + in process)",
            1.2,
            _ratio(result, shape, ("t1", "mesh2"), hops_and_experts, _p50),
        ),
        _at_most(
            "T = 1, slices of experts: the same",
            1.2,
            _ratio(result, shape, ("t1", "mesh2_slices"), hops_and_experts, _p50),
        ),
        _at_least("T = 64: tokens/s / in process", 0.93, speed(64, "in_process")),
        _at_least("T = 512: tokens/s / in process", 0.88, speed(512, "in_process")),
        _at_least("T = 64: tokens/s / RPC per expert", 5, speed(64, "rpc_per_expert")),
        _at_least(
            "T = 64: tokens/s / RPC per token and expert", 5, speed(64, "rpc_per_assignment")
        ),
        *targets_of_peers(result),
        _at_least("16 callers of T = 4: tokens/s / one caller of T = 64", 0.8, many_callers),
    ]


def targets_of_peers(result):
    """None where no peer was asked for: nothing is missing then."""
    shape = main_shape(result)
    if find(result, shape, "t512", "ggml_rpc") is None:
        return []
    ratio = _ratio(result, shape, ("t512", "mesh2"), [("t512", "ggml_rpc")], _speed)
    return [_at_least("T = 512: tokens/s against ggml RPC", 2.5, ratio)]


def _byte_targets(result, shape):
    def of_rpc_per_expert(system):
        return _ratio(result, shape, ("t64", system), [("t64", "rpc_per_expert")], _bytes)

    return [
        _at_most("T = 64: bytes / RPC per expert", 0.25, of_rpc_per_expert("mesh2")),
        _at_most(
            "T = 64, int8 everywhere: bytes / RPC per expert", 0.25, of_rpc_per_expert("mesh2_int8")
        ),
        _at_most(
            "4 nodes, 2 replicas, T = 64: nodes per token / drawn",
            0.75,
            _fewer_destinations(result, shape),
        ),
    ]


def _library_targets(result, shape):
    return [
        _at_least(
            "Expert library, T = 8: weights read / read bandwidth",
            0.85,
            _share_of_ceiling(result, shape, "t8", READING),
        ),
        _at_least(
            "Expert library, T = 512: FLOP/s / best product",
            0.70,
            _share_of_ceiling(result, shape, "t512", MULTIPLYING),
        ),
        _at_least(
            # 32 rows to an expert: where memory is slow, reading the weights is what takes the time.
            "Expert library, T = 512: nearer one of these two",
            0.70,
            _share_of_ceiling(result, shape, "t512", MULTIPLYING, READING),
        ),
    ]


def main_shape(result):
    return "tiny" if find(result, "tiny", "t1", "mesh2") else "qwen3"


def targets(result):
    """Figures are None where something was not measured."""
    shape = main_shape(result)
    many = "tiny" if shape == "tiny" else "tiny_experts"
    many_nodes = _ratio(result, many, ("t8", "mesh32"), [("t8", "mesh4")], _p50)
    return [
        *_speed_targets(result, shape),
        *_byte_targets(result, shape),
        _at_most("32 nodes, tiny experts, T = 8: p50 / 4 nodes", 3, many_nodes),
        *_library_targets(result, shape),
    ]


def verdict(target):
    return {True: "pass", False: "short", None: "not measured"}[target["met"]]


def figure(target):
    return "-" if target["figure"] is None else f"{target['figure']:.3g}"


def headline(result):
    lines = []
    for target in result["targets"]:
        sign = "<=" if target["kind"] == "at_most" else ">="
        lines.append(
            f"{target['name']:<58} {figure(target):>7}  {sign} {target['target']:<5g} {verdict(target)}"
        )
    return "\n".join(lines)
