"""The report: one HTML file that needs nothing else. It is well-formed XML, too."""

import math
from xml.sax.saxutils import escape

from hdrh.histogram import HdrHistogram

import plan
import results
import svg
import targets

STAGES = {
    "client_wire": "caller and its wire",
    "queue": "router queue",
    "route": "route",
    "node_wire": "wire to nodes",
    "node_queue": "node queue",
    "compute": "compute",
    "combine": "combine",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em; color: #1d2329; background: #fff }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2.2em }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #dde2e7; white-space: nowrap }
td.text, th.text { text-align: left }
.scroll { overflow-x: auto } .pass { color: #24764a; font-weight: 600 } .short { color: #a8323f; font-weight: 600 }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: #3c4650 }
svg .grid { stroke: #e3e7ea } svg .small { font-size: 10px } svg .inside { fill: #fff; font-size: 11px }
.legend span { margin-right: 1.2em; white-space: nowrap } .legend i { display: inline-block; width: 11px; height: 11px; margin-right: 5px }
.muted { color: #69737d }
"""


def _table(heading, rows):
    """Cells are text (aligned left), (text, class), or numbers."""

    def cell(tag, value):
        kind = "text" if isinstance(value, str) else ""
        if isinstance(value, tuple):
            value, kind = value
        text = value if isinstance(value, str) else "" if value is None else svg.number(value)
        return f'<{tag} class="{kind}">{escape(text)}</{tag}>'

    lines = ["".join(cell("td", value) for value in row) for row in rows]
    head = "".join(cell("th", value) for value in heading)
    return f'<div class="scroll"><table><tr>{head}</tr><tr>{"</tr><tr>".join(lines)}</tr></table></div>'


def _targets(result):
    rows = []
    for target in result["targets"]:
        sign = "≤" if target["kind"] == "at_most" else "≥"
        verdict = targets.verdict(target)
        rows.append(
            (
                target["name"],
                (targets.figure(target), ""),
                (f"{sign} {target['target']:g}", ""),
                (verdict, verdict),
            )
        )
    return _table((("what", "text"), ("figure", ""), ("target", ""), ("", "")), rows)


def _cells(result, shape, system, cells):
    found = (results.find(result, shape, cell, system) for cell in cells)
    return [entry for entry in found if entry]


def _stages(result):
    rows = {}
    for entry in result["measurements"]:
        if entry["shape"] == targets.main_shape(result) and entry["system"] == "mesh2":
            name = entry["cell"] + (
                "" if entry["loop"] == "closed" else f" ({entry['rate']:.0f}/s)"
            )
            rows[name] = [entry["stages_us"][stage] / 1000 for stage in STAGES]
    return svg.stacked_rows(rows, list(STAGES.values()), "ms") if rows else ""


def _by_tokens(result, value, unit, systems, log=True):
    counts = (1, 8, 64, 512)
    series = {}
    for system in systems:
        entries = [
            results.find(result, targets.main_shape(result), f"t{count}", system)
            for count in counts
        ]
        if any(entries):
            series[system] = [value(entry) if entry else None for entry in entries]
    categories = [f"T = {count}" for count in counts]
    return svg.grouped_bars(categories, series, unit, log) if series else ""


def _tails(result):
    """Latency against the share of requests that are slower, of one caller and of fixed rates."""
    shares = (50, 75, 90, 95, 98, 99, 99.5, 99.9)
    series = {}
    for cell in ("t8", "t8-open50", "t8-open80"):
        entry = results.find(result, targets.main_shape(result), cell, "mesh2")
        if entry:
            histogram = HdrHistogram.decode(entry["histogram_us"])
            series[cell] = [
                (-math.log10(1 - share / 100), histogram.get_value_at_percentile(share) / 1000)
                for share in shares
            ]
    labels = [
        (-math.log10(1 - share / 100), f"p{share:g}".replace(".", ""))
        for share in (50, 90, 99, 99.9)
    ]
    return svg.lines(series, labels, "ms", log=True) if series else ""


def _nodes(result):
    shape = (
        "tiny_experts"
        if results.find(result, "tiny_experts", "t8", "mesh4")
        else targets.main_shape(result)
    )
    series, labels = {}, {}
    for cell in ("t8", "t64"):
        points = []
        for entry in result["measurements"]:
            plain = entry["system"] == f"mesh{entry['nodes']}"
            if entry["shape"] == shape and entry["cell"] == cell and plain:
                points.append((math.log2(entry["nodes"]), entry["p50_ms"]))
                labels[math.log2(entry["nodes"])] = f"{entry['nodes']} nodes"
        if points:
            series[f"p50, T = {cell[1:]}"] = sorted(points)
    return svg.lines(series, sorted(labels.items()), "ms") if series else ""


def _shapes(result):
    known = plan.shapes()
    names = [name for name in known if results.find(result, name, "t64", "in_process")]
    series = {}
    for tokens in (1, 8, 64, 512):
        values = []
        for name in names:
            pair = [
                results.find(result, name, f"t{tokens}", each) for each in ("mesh2", "in_process")
            ]
            done = all(pair)
            values.append(
                pair[0]["tokens_per_second"] / pair[1]["tokens_per_second"] if done else None
            )
        series[f"T = {tokens}"] = values
    return (
        svg.grouped_bars([known[name].title for name in names], series, "of in_process")
        if names
        else ""
    )


def _everything(result):
    heading = (
        *(
            ("shape", "text"),
            ("load", "text"),
            ("system", "text"),
            ("requests", ""),
            ("tokens/s", ""),
        ),
        *(("p50 ms", ""), ("p90", ""), ("p99", ""), ("p999", ""), ("CPU s / 1k tokens", "")),
        *(("bytes / token", ""), ("nodes / token", ""), ("if drawn", "")),
        *(("MaxVio", ""), ("failed", "")),
    )
    rows = [
        (
            *(entry["shape"], entry["cell"], entry["system"], entry["requests"]),
            entry["tokens_per_second"],
            *(entry["latency_ms"][quantile] for quantile in results.QUANTILES),
            *(entry["cpu_seconds_per_1000_tokens"], entry["bytes_per_token"]),
            *(entry.get("destinations_per_token"), entry.get("uniform_destinations_per_token")),
            *(entry.get("max_violation"), entry["failed"]),
        )
        for entry in result["measurements"]
    ]
    return _table(heading, rows)


def _memory(result):
    heading = (("shape", "text"), ("system", "text"), ("process", "text"), ("peak MiB", ""))
    few = [each for each in result["memory"] if each["system"] not in ("mesh8", "mesh16", "mesh32")]
    return _table(
        heading,
        [
            (each["shape"], each["system"], each["process"], each["peak_bytes"] / 2**20)
            for each in few
        ],
    )


def _machine(result):
    described = result["machine"]
    runs = "one short run" if result["quick"] else f"median of {result['runs']} runs, in turns"
    return (
        f"{described['cpu']}, {described['cores']} cores ({', '.join(described['cpu_features']) or 'no AVX'}"
        f"{', virtual' if described['virtual'] else ''}), {described['memory_bytes'] / 2**30:.0f} GiB, "
        f"{described['system']}, Linux {described['kernel']}; load average {described['load_average_before']:.1f} "
        f"before and {described['load_average_after']:.1f} after. Commit {result['commit']}, {result['started']}, "
        f"{result['seconds'] / 60:.0f} minutes; {runs}."
    )


def _ceilings(result):
    rows = [
        (each["shape"], each["read_bytes_per_second"] / 1e9, each["product_flops_per_second"] / 1e9)
        for each in result["ceilings"]
    ]
    return _table(
        (("shape", "text"), ("memory read GB/s", ""), ("best product GFLOP/s", "")), rows
    )


HOW_TO_READ = """
<p>Everything ran on one machine in one go, over the same checkpoint, taking turns. <b>mesh<i>N</i></b> is a router and
<i>N</i> nodes, called by <code>expertmesh bench</code>; <b>_int8</b>: rows travel as int8, to and from callers and nodes;
<b>_replicas<i>r</i></b>: <i>r</i> nodes hold each expert; <b>_slices</b>: each node holds a slice of all experts. <b>in_process</b> is the same gate and experts in the caller, on all
cores: the most that can be had. <b>two_bare_hops</b> moves as many bytes over gRPC as the mesh (caller, forwarder, echo) and
computes nothing; <b>raw_tcp</b> does so over sockets. <b>rpc_per_expert</b> sends each expert its rows in an RPC of its own, in
bf16 both ways, and sums what comes back; <b>rpc_per_assignment</b> takes an RPC for each token and expert. <b>ggml_rpc</b>,
where it was asked for, is a layer of the same shape with random weights behind ggml's RPC backend, one server with a thread for
each core; it is given the routing, and float32 rows go there and back. On a machine with few cores all of a mesh's processes
share them with the caller, so that network and compute never overlap as they would on several machines.</p>
<p>A load <code>t64</code> is one caller that sends 64 tokens and waits; <code>t4x16</code> 16 such callers with 4 tokens;
<code>-k-hot</code>: all tokens to the same experts, <code>-zipf</code>: the r-th most popular expert is 1/r as likely as the
first, else all are equally likely; MaxVio is the fullest expert's load over the mean, less 1, as the router reported it. Nodes /
token is how many nodes a token was sent to, "if drawn" how many it would be if each assignment drew one of its expert's replicas
at random.
<code>-open50</code>: requests come at fixed times, at half the rate that one caller reached, and latencies count from the time
a request was meant to be sent. Bytes are those of messages, on all hops together, without what HTTP/2 and TCP add; CPU is that
of all processes and the caller. A quantile needs many requests: with n of them nothing beyond 1 - 1/n is known.</p>
"""


def html(result):
    tokens = "tokens/s"
    computing = ("in_process", "mesh2", *plan.BASELINES[3:], *plan.PEERS)
    systems = (*computing[:2], "two_bare_hops", "raw_tcp", *computing[2:])
    title = plan.shapes()[targets.main_shape(result)].title
    sections = [
        ("Targets", "Medians of the ratios of each run.", _targets(result)),
        ("How to read this", "", HOW_TO_READ),
        (
            "Where the time goes",
            f"{title}, 2 nodes, an average request; each row to its own scale.",
            _stages(result),
        ),
        (
            "Latency",
            f"{title}, p50, one caller.",
            _by_tokens(result, lambda e: e["p50_ms"], "ms", systems),
        ),
        (
            "Throughput",
            f"{title}, one caller.",
            _by_tokens(result, lambda e: e["tokens_per_second"], tokens, computing),
        ),
        ("Throughput by shape", "Two nodes, tokens/s over those of in_process.", _shapes(result)),
        ("Tails", f"{title}, 2 nodes, 8 tokens a request.", _tails(result)),
        ("Nodes", "One caller; all nodes share this machine's cores.", _nodes(result)),
        (
            "CPU",
            f"{title}, seconds for 1,000 tokens.",
            _by_tokens(result, lambda e: e["cpu_seconds_per_1000_tokens"], "CPU s", systems),
        ),
        (
            "Bytes",
            f"{title}, of messages, for a token.",
            _by_tokens(
                result,
                lambda e: e["bytes_per_token"],
                "bytes",
                ("mesh2", "mesh2_int8", "rpc_per_expert"),
                log=False,
            ),
        ),
        ("Ceilings", "", _ceilings(result)),
        ("Everything", "", _everything(result)),
        ("Memory", "Most that each process had resident.", _memory(result)),
    ]
    body = "".join(
        f'<h2>{escape(name)}</h2><p class="muted">{escape(note)}</p>{content}'
        for name, note, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/><title>Expertmesh: benchmarks</title>'
        f"<style>{STYLE}</style></head><body><h1>Expertmesh: benchmarks</h1>"
        f'<p class="muted">{escape(_machine(result))}</p>{body}</body></html>\n'
    )
