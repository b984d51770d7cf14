"""Metrics of the real programs: what they are called, that others can read them, and that their numbers are right."""

import csv
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client import openmetrics
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from expertmesh import ForwardOptions
from mesh import HOST, PATIENCE, cli, hidden_states, shards, wait_until
from prometheus_server import Prometheus, needs_prometheus, scrapes
from readmes import ROOT

sys.path.insert(0, str(ROOT / "deploy"))

# pylint: disable-next=wrong-import-position
import metric_table as tables

OPEN_METRICS = "application/openmetrics-text"
# By name, what the tables say; OpenMetrics calls a counter by its name without _total, as the parsers do.
TABLE = {metric.name.removesuffix("_total"): metric for metric in tables.read()}
# Counted by other things than requests, and so at any time.
TOKENS, TOP_K, REQUESTS = 40, 3, 6


def get(program, path="/metrics", accept="text/plain"):
    url = f"http://{HOST}:{program.metrics_port}{path}"
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


def families(program):
    """Both formats, as an independent parser reads them: {name: family}."""
    text, kind = get(program)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    open_metrics, kind = get(program, accept=OPEN_METRICS)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    parsed = (
        text_parser.text_string_to_metric_families(text),
        openmetrics_parser.text_string_to_metric_families(open_metrics),
    )
    return [{family.name: family for family in each} for each in parsed]


@pytest.fixture
def loaded(mesh, checkpoint):
    """A mesh that has answered REQUESTS requests of TOKENS tokens for each layer."""
    mesh.start(checkpoint.path, shards(2))
    x = hidden_states(TOKENS, checkpoint.d_model)
    for layer in checkpoint.moe_layers:
        for _ in range(REQUESTS):
            mesh.client.forward(layer, x)
    return mesh


def programs(mesh):
    return [mesh.router, *mesh.nodes]


def test_every_metric_is_what_its_table_says(loaded):
    seen = set()
    for program in programs(loaded):
        for parsed in families(program):
            for name, family in parsed.items():
                told = TABLE[name]
                seen.add(name)
                assert family.type == told.type, name
                assert family.documentation == told.help, name
                for sample in family.samples:
                    labels = set(sample.labels) - {"le"}
                    assert labels == set(told.labels), sample
        assert all(
            family.unit == TABLE[name].unit for name, family in families(program)[1].items()
        )
    # What has no labels is there from the start; what has them, once there is something to say.
    missing = {name for name, metric in TABLE.items() if not metric.labels} - seen
    assert not missing


def test_series_are_there_once_and_buckets_grow(loaded):
    for program in programs(loaded):
        for parsed in families(program):
            for family in parsed.values():
                series = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
                assert len(series) == len(set(series)), family.name
                check_buckets(family)


def check_buckets(family):
    if family.type != "histogram":
        return
    groups = {}
    for sample in family.samples:
        key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        groups.setdefault(key, []).append(sample)
    for group in groups.values():
        buckets = [s for s in group if s.name.endswith("_bucket")]
        bounds = [float(s.labels["le"]) for s in buckets]
        counts = [s.value for s in buckets]
        (count,) = [s.value for s in group if s.name.endswith("_count")]
        assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), family.name
        assert counts == sorted(counts) and counts[-1] == count, family.name


def test_a_doubled_series_and_a_shrinking_bucket_would_be_seen():
    text = "# TYPE a histogram\n" + "".join(
        f'a_bucket{{le="{le}"}} {count}\n' for le, count in (("1.0", 2), ("2.0", 1), ("+Inf", 3))
    )
    (family,) = text_parser.text_string_to_metric_families(text + "a_sum 1\na_count 3\n")
    with pytest.raises(AssertionError):
        check_buckets(family)


def values(family):
    return [(sample.labels, sample.value) for sample in family.samples]


def counters_that_differ(program, process):
    """Names of counters whose values are not the same in both formats; their names are."""
    one, other = families(program)
    assert one.keys() == other.keys()
    counters = [name for name in one if TABLE[name].process == process and TABLE[name].type == "counter"]
    assert counters
    return [name for name in counters if values(one[name]) != values(other[name])]


def test_both_formats_say_the_same(loaded):
    for program in programs(loaded):
        process = "router" if program is loaded.router else "node"
        # One is asked for after the other, and what becomes of traces is counted a moment after the answers.
        wait_until(lambda: not counters_that_differ(program, process), "both say the same")  # pylint: disable=cell-var-from-loop


def test_counts_are_exact(loaded, checkpoint):
    router, layers = loaded.router, len(checkpoint.moe_layers)
    batches = layers * REQUESTS
    assert router.metric("expertmesh_router_request_duration_seconds_count") == batches
    assert router.metric("expertmesh_router_batch_requests_sum") == batches
    for stage in ("route", "plan", "experts", "combine"):
        count = router.metric("expertmesh_router_stage_duration_seconds_count", stage=stage)
        assert count == batches, stage
    calls = sum(
        router.metric("expertmesh_router_node_call_duration_seconds_count", node=node.address)
        for node in loaded.nodes
    )
    assert calls == router.metric("expertmesh_router_batch_nodes_sum")
    for layer in map(str, checkpoint.moe_layers):
        tokens = REQUESTS * TOKENS
        assert router.metric("expertmesh_router_layer_tokens_total", layer=layer) == tokens
        routed = router.metric("expertmesh_router_layer_assignments_total", layer=layer)
        assert routed == TOP_K * tokens
        computed = [
            node.metric("expertmesh_expert_layer_tokens_total", layer=layer)
            for node in loaded.nodes
        ]
        assert sum(computed) == routed
    # All that the router sent has arrived; the node got a few bytes of other calls, too.
    for node in loaded.nodes:
        sent = router.metric("expertmesh_router_node_bytes_total", node=node.address, direction="sent")
        there = node.metric("expertmesh_process_message_bytes_total", direction="received")
        assert 0 <= there - sent < 64


def test_calls_of_grpc_are_counted_by_the_methods_that_there_are(loaded, checkpoint):
    calls = len(checkpoint.moe_layers) * REQUESTS
    forward = {"grpc_service": "expertmesh.v1.Router", "grpc_method": "Forward"}
    for name in ("grpc_server_started_total", "grpc_server_handling_seconds_count"):
        assert loaded.router.metric(name, **forward) == calls
    assert loaded.router.metric("grpc_server_handled_total", grpc_code="OK", **forward) == calls
    with pytest.raises(Exception, match="UNIMPLEMENTED"):
        loaded.client.channel.unary_unary("/made.up.Service/Method")(b"", timeout=PATIENCE)
    assert "made.up" not in get(loaded.router)[0]


def test_a_sampled_request_is_the_exemplar_of_its_bucket(loaded, checkpoint):
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    options = ForwardOptions(traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    layer = checkpoint.moe_layers[0]
    loaded.client.forward(layer, hidden_states(1, checkpoint.d_model), options)
    found = families(loaded.router)[1]
    for name, series in (("request", 1), ("stage", 4), ("node_call", 1)):
        buckets = [
            sample
            for sample in found[f"expertmesh_router_{name}_duration_seconds"].samples
            if sample.exemplar and sample.exemplar.labels["trace_id"] == trace_id
        ]
        # A token goes to one node or to both.
        assert series <= len(buckets) <= max(series, 2), name
        for bucket in buckets:
            assert bucket.exemplar.value <= float(bucket.labels["le"])
            # The calendar's time, without which Prometheus keeps it where nothing looks for it.
            assert float(bucket.exemplar.timestamp) == pytest.approx(time.time(), abs=3600)
    # The span is the router's, as `expertmesh trace` shows it.
    shown = cli("trace", "--router", loaded.router.address, trace_id).stdout
    assert "Forward" in shown


def assignments(program, query=""):
    """What /load.json and /load.csv say, which must agree: {(layer, expert): count}."""
    told = json.loads(get(program, f"/load.json{query}")[0])
    counts = {
        (layer["layer"], expert): count
        for layer in told["layers"]
        for expert, count in enumerate(layer["assignments"])
    }
    rows = csv.DictReader(get(program, f"/load.csv{query}")[0].splitlines())
    assert counts == {(int(r["layer"]), int(r["expert"])): int(r["assignments"]) for r in rows}
    return counts


def expert_series(program, name):
    found = re.findall(rf'{name}{{expert="(\d+)",layer="(\d+)"}} (\S+)', get(program)[0])
    return {(int(layer), int(expert)): float(count) for expert, layer, count in found}


def test_the_whole_matrix_is_served_and_few_series(loaded, checkpoint):
    counts = assignments(loaded.router)
    assert counts == assignments(loaded.router, "?scope=router&window_ms=0")
    assert len(counts) == len(checkpoint.moe_layers) * 12
    assert sum(counts.values()) == len(checkpoint.moe_layers) * REQUESTS * TOKENS * TOP_K
    shown = expert_series(loaded.router, "expertmesh_router_expert_tokens_total")
    for layer in checkpoint.moe_layers:
        of_layer = sorted((c for (l, _), c in counts.items() if l == layer), reverse=True)
        assert sorted((c for (l, _), c in shown.items() if l == layer), reverse=True) == of_layer[:8]
    assert shown.items() <= counts.items()
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get(loaded.router, "/load.json?scope=world")


@pytest.mark.parametrize(("mode", "series"), [("off", 0), ("full", 12), ("top", 2)])
def test_series_of_experts_are_a_matter_of_choice(mesh, checkpoint, mode, series):
    flags = ["--expert-metrics", mode, "--expert-metrics-top", "2"]
    mesh.start(checkpoint.path, [flags], *flags)
    layer = checkpoint.moe_layers[0]
    mesh.client.forward(layer, hidden_states(TOKENS, checkpoint.d_model))
    counts = assignments(mesh.router)
    for program, name in (
        (mesh.router, "expertmesh_router_expert_tokens_total"),
        (mesh.nodes[0], "expertmesh_expert_tokens_total"),
    ):
        shown = {key: c for key, c in expert_series(program, name).items() if key[0] == layer}
        assert len(shown) == series
        assert shown.items() <= counts.items()


def test_logs_in_json(mesh, checkpoint):
    mesh.start(checkpoint.path, [["--log-format", "json"]], "--log-format", "json")
    for program, process in ((mesh.router, "expertmesh-router"), (mesh.nodes[0], "expertmesh-expert")):
        lines = [json.loads(line) for line in program.log().splitlines()]
        assert lines
        for line in lines:
            assert line["process"] == process and line["level"] and line["message"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])


@needs_prometheus
def test_promtool_finds_no_fault(loaded):
    for program in programs(loaded):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=get(program)[0],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_prometheus
def test_prometheus_scrapes_every_metric(loaded, tmp_path):
    ports = [program.metrics_port for program in programs(loaded)]
    with Prometheus(tmp_path, scrapes(ports)) as prometheus:
        prometheus.wait_up(len(ports))
        tokens = loaded.router.metric("expertmesh_router_tokens_total")
        assert prometheus.values("expertmesh_router_tokens_total") == [tokens]
        names = set(prometheus.ask("label/__name__/values"))
        for name, metric in TABLE.items():
            series = f"{metric.name}_bucket" if metric.type == "histogram" else metric.name
            assert metric.labels or series in names, name


@needs_prometheus
def test_prometheus_keeps_exemplars(tmp_path):
    argv = [os.environ["EXPERTMESH_EXEMPLAR_SERVER"]]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served:
        with Prometheus(tmp_path, scrapes([int(served.stdout.readline())])) as prometheus:
            prometheus.wait_up(1)
            now = time.time()
            span = {"start": now - 3600, "end": now + 3600}
            (series,) = wait_until(
                lambda: prometheus.ask(
                    "query_exemplars", query="exemplar_server_wait_seconds_bucket", **span
                ),
                "the exemplar is stored",
            )
        served.stdin.close()
    (exemplar,) = series["exemplars"]
    assert exemplar["labels"] == {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
    }
    assert float(exemplar["value"]) == 0.007
    assert float(series["seriesLabels"]["le"]) == 0.008


def test_the_oracle_speaks_the_version_that_is_served():
    assert openmetrics.exposition.CONTENT_TYPE_LATEST.startswith(OPEN_METRICS)
