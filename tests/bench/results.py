"""From runs to figures: quantiles, medians over runs, and the targets."""

import statistics

from hdrh.histogram import HdrHistogram

QUANTILES = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9}
# Up to an hour, in microseconds, three digits.
LONGEST_US = 3600 * 1000 * 1000


def _histogram(latencies_us):
    histogram = HdrHistogram(1, LONGEST_US, 3)
    for latency in latencies_us:
        histogram.record_value(max(1, round(latency)))
    return histogram


def _quantiles(histogram):
    figures = {
        name: histogram.get_value_at_percentile(share) / 1000 for name, share in QUANTILES.items()
    }
    figures["mean"] = histogram.get_mean_value() / 1000
    figures["max"] = histogram.get_max_value() / 1000
    return figures


def _one_run(cell, run):
    tokens = max(1, run["requests"] * cell.tokens)
    figures = {
        "requests": run["requests"],
        "failed": run.get("failed", 0),
        "seconds": run["seconds"],
        "latency_ms": _quantiles(_histogram(run["latencies_us"])),
        "tokens_per_second": run["tokens_per_second"],
        "cpu_seconds_per_1000_tokens": run["cpu_seconds"] * 1000 / tokens,
        "bytes_per_token": run["bytes_per_token"],
    }
    for key in ("stages_us", "max_violation", "batch_tokens", "batch_nodes", "hop_bytes_per_token"):
        if key in run:
            figures[key] = run[key]
    if run.get("compute_us"):
        seconds = run["compute_us"] / 1e6
        figures["expert_bytes_per_second"] = run["weight_bytes"] / seconds
        figures["expert_flops_per_second"] = run["flops"] / seconds
    return figures


def _median(values):
    """Of numbers, or of each entry of lists or dictionaries of numbers."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _median([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_median(list(column)) for column in zip(*values)]
    return statistics.median(values)


def summarise(shape, cell, system, nodes, rate, runs):
    """One entry of "measurements": medians over the runs, and quantiles over all samples together."""
    histogram = _histogram([latency for run in runs for latency in run["latencies_us"]])
    each = [_one_run(cell, run) for run in runs]
    medians = _median([{key: run[key] for key in run if key != "latency_ms"} for run in each])
    medians["p50_ms"] = _median([run["latency_ms"]["p50"] for run in each])
    return {
        "shape": shape.name,
        "system": system,
        "nodes": nodes,
        "cell": cell.name,
        "tokens": cell.tokens,
        "callers": cell.callers,
        "routing": cell.routing,
        "loop": "open" if rate else "closed",
        "rate": rate,
        **medians,
        "requests": sum(run["requests"] for run in each),
        "failed": sum(run["failed"] for run in each),
        "latency_ms": _quantiles(histogram),
        "histogram_us": histogram.encode().decode(),
        "runs": each,
    }


def find(result, shape, cell, system):
    for entry in result["measurements"]:
        if (entry["shape"], entry["cell"], entry["system"]) == (shape, cell, system):
            return entry
    return None


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
    """Of several kinds, in each run, the one that is nearest to its ceiling, which is what holds it back."""
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


def targets(result):
    """The headline: ratios of figures of the same rounds, and what they should be."""
    main = "tiny" if find(result, "tiny", "t1", "mesh2") else "qwen3"
    many = "tiny" if main == "tiny" else "tiny_experts"

    def ratio(top, *below, value, shape=main):
        return _ratio(result, shape, top, below, value)

    mesh1, mesh64, mesh512 = (("t1", "mesh2"), ("t64", "mesh2"), ("t512", "mesh2"))
    at_most, at_least = "at_most", "at_least"
    figures = [
        (
            "T = 1: p50 / (two bare hops + in process)",
            (at_most, 1.2),
            ratio(mesh1, ("t1", "two_bare_hops"), ("t1", "in_process"), value=_p50),
        ),
        (
            "T = 64: tokens/s / in process",
            (at_least, 0.93),
            ratio(mesh64, ("t64", "in_process"), value=_speed),
        ),
        (
            "T = 512: tokens/s / in process",
            (at_least, 0.88),
            ratio(mesh512, ("t512", "in_process"), value=_speed),
        ),
        (
            "T = 64: tokens/s / RPC per expert",
            (at_least, 5),
            ratio(mesh64, ("t64", "rpc_per_expert"), value=_speed),
        ),
        (
            "T = 64: tokens/s / RPC per token and expert",
            (at_least, 5),
            ratio(mesh64, ("t64", "rpc_per_assignment"), value=_speed),
        ),
        (
            "T = 64: bytes / RPC per expert",
            (at_most, 0.25),
            ratio(mesh64, ("t64", "rpc_per_expert"), value=_bytes),
        ),
        (
            "16 callers of T = 4: tokens/s / one caller of T = 64",
            (at_least, 0.8),
            ratio(("t4x16", "mesh2"), mesh64, value=_speed),
        ),
        (
            "32 nodes, tiny experts, T = 8: p50 / 4 nodes",
            (at_most, 3),
            ratio(("t8", "mesh32"), ("t8", "mesh4"), value=_p50, shape=many),
        ),
        (
            "Expert library, T = 8: weights read / read bandwidth",
            (at_least, 0.85),
            _share_of_ceiling(result, main, "t8", READING),
        ),
        (
            "Expert library, T = 512: FLOP/s / best oneDNN product",
            (at_least, 0.70),
            _share_of_ceiling(result, main, "t512", MULTIPLYING),
        ),
        (
            # 32 rows to an expert: where memory is slow, reading the weights is what takes the time.
            "Expert library, T = 512: nearer one of these two",
            (at_least, 0.70),
            _share_of_ceiling(result, main, "t512", MULTIPLYING, READING),
        ),
    ]
    return [
        {
            "name": name,
            "figure": figure,
            "kind": kind,
            "target": bound,
            "met": (
                None if figure is None else figure <= bound if kind == at_most else figure >= bound
            ),
        }
        for name, (kind, bound), figure in figures
    ]


def verdict(target):
    return {True: "pass", False: "short", None: "not measured"}[target["met"]]


def headline(result):
    lines = []
    for target in result["targets"]:
        sign = "<=" if target["kind"] == "at_most" else ">="
        figure = "-" if target["figure"] is None else f"{target['figure']:.2f}"
        lines.append(
            f"{target['name']:<58} {figure:>7}  {sign} {target['target']:<5g} {verdict(target)}"
        )
    return "\n".join(lines)
