"""deploy/observability on this machine: the real collector, Jaeger, Zipkin and Prometheus, with spans that OpenTelemetry's
own SDK for Python sends. tests/run.sh --observability."""

import json
import os
import pathlib
import re
import subprocess
import time

import pytest
from mesh import wait_until
from observability_stack import ROOT, UP, plain, run_up

# pylint: disable-next=unused-import
from observability_stack import stack  # noqa: F401  (a fixture)
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

MS = 1_000_000


def trace_id(span):
    return f"{span.context.trace_id:032x}"


def jaeger(stack, span):
    """Spans of its trace by name."""
    return {each["name"]: each for each in stack.jaeger(trace_id(span))}


def zipkin(stack, span):
    return {each["name"]: each for each in stack.zipkin(trace_id(span))}


class Mesh:
    """Makes spans as a mesh does, of two services, at times of its own."""

    def __init__(self, stack):
        self._tracers = {}
        for service in ("expertmesh-router", "expertmesh-expert"):
            provider = TracerProvider(resource=Resource({"service.name": service}))
            exporter = OTLPSpanExporter(stack.at["collector"], insecure=True)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            self._tracers[service] = provider.get_tracer("mesh")

    def span(self, service, name, milliseconds, parent=None, links=(), error=False, **attributes):
        attributes = {key.replace("__", "."): value for key, value in attributes.items()}
        context = Context() if parent is None else trace.set_span_in_context(parent)
        start = time.time_ns() - 2000 * MS
        made = self._tracers[f"expertmesh-{service}"].start_span(
            name, context, trace.SpanKind.SERVER, attributes, list(links), start_time=start
        )
        if error:
            made.set_status(trace.StatusCode.ERROR)
        made.end(start + milliseconds * MS)
        return made


@pytest.fixture(scope="module")
def sent(stack):
    """A mesh's spans, once Jaeger has those that must be there: by what each trace is."""
    mesh = Mesh(stack)
    sent = {"dropped": mesh.span("router", "fast", 2)}
    sent["served"] = mesh.span("router", "request", 3, expertmesh__keep="batch")
    mesh.span("expert", "compute", 2, sent["served"], expertmesh__keep="batch")
    links = [trace.Link(sent["served"].get_span_context(), {"expertmesh.rows": 3})]
    links += [trace.Link(sent["dropped"].get_span_context(), {"expertmesh.rows": 4})]
    sent["batch"] = mesh.span("expert", "batch", 4, links=links, expertmesh__keep="slow")
    sent["failed"] = mesh.span("router", "failed", 1, error=True)
    sent["long"] = mesh.span("router", "long", 400)
    for kept in ("served", "batch", "failed", "long"):
        wait_until(lambda kept=kept: jaeger(stack, sent[kept]), f"Jaeger has the trace {kept}")
        wait_until(lambda kept=kept: zipkin(stack, sent[kept]), f"Zipkin has the trace {kept}")
    return sent


def test_it_says_where_everything_is(stack):
    assert sorted(stack.at) == ["collector", "jaeger", "prometheus", "zipkin"]
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT={stack.at['collector']}" in stack.said
    said = run_up("status", *stack.flags)
    assert [line.split()[0] for line in said.splitlines()] == ["jaeger", "zipkin", "collector", "prometheus"]


def listening(pid):
    """Addresses (hexadecimal, as in /proc/net) on which a process listens."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
        except FileNotFoundError:
            pass  # Closed meanwhile.
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].split(":")[0])
    return found


def test_all_of_it_listens_on_loopback_alone(stack):
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    lines = run_up("status", *stack.flags).splitlines()
    for name, _, pid in map(str.split, lines):
        at = listening(pid)
        assert at and set(at) <= loopback, f"{name} listens on {at}"


def test_a_trace_of_two_services_reaches_jaeger_and_zipkin(stack, sent):
    spans = jaeger(stack, sent["served"])
    assert sorted(spans) == ["compute", "request"]
    assert spans["compute"]["parentSpanId"] == spans["request"]["spanId"]
    assert plain(spans["compute"]["attributes"])["expertmesh.keep"] == "batch"
    drawn = zipkin(stack, sent["served"])
    assert drawn["compute"]["parentId"] == drawn["request"]["id"]
    services = {name: span["localEndpoint"]["serviceName"] for name, span in drawn.items()}
    assert services == {"request": "expertmesh-router", "compute": "expertmesh-expert"}


def test_links_and_their_attributes_arrive(stack, sent):
    links = jaeger(stack, sent["batch"])["batch"]["links"]
    assert [(link["traceId"], plain(link["attributes"])) for link in links] == [
        (trace_id(sent["served"]), {"expertmesh.rows": "3"}),
        (trace_id(sent["dropped"]), {"expertmesh.rows": "4"}),
    ]
    # Zipkin has no links: they are tags.
    tags = zipkin(stack, sent["batch"])["batch"]["tags"]
    assert trace_id(sent["served"]) in tags["otlp.link.0"]
    assert trace_id(sent["dropped"]) in tags["otlp.link.1"]


def test_what_is_kept_is_kept_by_what_it_says(stack, sent):
    for kept in ("served", "batch", "failed", "long"):
        assert jaeger(stack, sent[kept]) and zipkin(stack, sent[kept]), kept
    # Older than all of them, so that it was decided on before.
    assert not jaeger(stack, sent["dropped"]) and not zipkin(stack, sent["dropped"])


def test_jaeger_finds_by_service_and_attribute(stack, sent):
    now = time.time()
    times = {
        f"query.start_time_{end}": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
        for end, when in (("min", now - 3600), ("max", now + 3600))
    }
    found = stack.get(
        "jaeger",
        "/api/v3/traces",
        **{"query.service_name": "expertmesh-expert", "query.num_traces": 20, **times},
    )
    ids = {
        span["traceId"]
        for group in found["result"]["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope.get("spans", [])
    }
    assert ids == {trace_id(sent["served"]), trace_id(sent["batch"])}


def test_prometheus_counts_the_spans_that_were_dropped_too(stack, sent):
    assert sent
    query = 'traces_span_metrics_calls_total{service_name="expertmesh-router"}'
    wanted = {"fast": 1, "request": 1, "failed": 1, "long": 1}

    def counted():
        # They begin at 0, so that there is a rate of the first.
        return {labels["span_name"]: value for labels, value in stack.prometheus(query)} == wanted

    wait_until(counted, f"the spans are counted: {wanted}")


def test_prometheus_scrapes_the_mesh_that_is_there(stack):
    """The mesh comes later, and goes."""
    targets = [{"targets": ["127.0.0.1:1"], "labels": {"job": "expertmesh-router"}}]
    (stack.mesh / "targets.json").write_text(json.dumps(targets))
    wait_until(lambda: stack.prometheus('up{job="expertmesh-router"} == 0'), "it is scraped")
    (stack.mesh / "targets.json").unlink()
    wait_until(lambda: not stack.prometheus('up{job="expertmesh-router"}'), "it is not scraped")


def test_configurations_pass_their_programs_own_checks(stack):
    config = stack.folder / "state" / "prometheus" / "prometheus.yaml"
    cache = pathlib.Path(os.environ.get("EXPERTMESH_OBSERVABILITY", ROOT / "build" / "observability"))
    promtool = next(cache.glob("prometheus/usr/bin/promtool"), "promtool")
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_a_port_that_is_taken_is_named(stack, tmp_path):
    port = stack.at["collector"].rpartition(":")[2]
    flags = ["--state", str(tmp_path / "state"), "--mesh", str(tmp_path / "mesh"), "--port", port]
    done = subprocess.run([UP, "--detach", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"port {port} of 127.0.0.1" in done.stderr
