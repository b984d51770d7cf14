"""From runs to figures: quantiles, and medians over runs."""

import statistics

from hdrh.histogram import HdrHistogram

QUANTILES = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9}
# What only the runs of meshes have; schema.py says what it is.
OF_MESHES = (
    *("stages_us", "max_violation", "batch_tokens", "batch_nodes", "hop_bytes_per_token"),
    *("destinations_per_token", "uniform_destinations_per_token"),
)
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


def one_run(cell, run):
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
    for key in OF_MESHES:
        if key in run:
            figures[key] = run[key]
    if run.get("compute_us"):
        seconds = run["compute_us"] / 1e6
        figures["expert_bytes_per_second"] = run["weight_bytes"] / seconds
        figures["expert_flops_per_second"] = run["flops"] / seconds
    return figures


def _median(values):
    """The median of numbers; for lists or dictionaries of numbers, the median of each entry."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _median([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_median(list(column)) for column in zip(*values)]
    return statistics.median(values)


def summarise(shape, cell, system, rate, runs):
    """One entry of "measurements": medians over the runs, and quantiles over all samples together."""
    mesh = system.kind
    histogram = _histogram([latency for run in runs for latency in run["latencies_us"]])
    each = [one_run(cell, run) for run in runs]
    medians = _median([{key: run[key] for key in run if key != "latency_ms"} for run in each])
    medians["p50_ms"] = _median([run["latency_ms"]["p50"] for run in each])
    return {
        "shape": shape.name,
        "system": system.name,
        "nodes": mesh.nodes if mesh else 0,
        "replicas": mesh.replicas if mesh else 0,
        "slices": bool(mesh and mesh.slices),
        "wire": mesh.wire if mesh else "",
        "row_dtypes": system.row_dtypes,
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
