"""deploy/observability on this machine: the real collector, Jaeger, Zipkin and Prometheus, with spans that OpenTelemetry's
own SDK for Python sends. tests/run.sh --observability."""

import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from mesh import PATIENCE, wait_until
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

ROOT = pathlib.Path(__file__).parents[2]
UP = ROOT / "deploy" / "observability" / "up.sh"
# What up.sh's first line of each service says.
LINE = re.compile(r"^(\w+) +(http://127\.0\.0\.1:\d+)", re.MULTILINE)
MS = 1_000_000


def run_up(*arguments, code=0):
    done = subprocess.run(
        [UP, *arguments], capture_output=True, text=True, timeout=20 * PATIENCE, check=False
    )
    assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_ports(count):
    """The first of `count` ports in a row that nothing listens on."""
    for base in range(20000 + os.getpid() % 10000, 60000, count):
        with socket.socket() as probe:
            probe.settimeout(1)
            if all(probe.connect_ex(("127.0.0.1", base + i)) for i in range(count)):
                return base
    raise AssertionError("no ports are free")


class Stack:
    """Addresses are those that up.sh printed."""

    def __init__(self, folder):
        self.folder = folder
        self.mesh = folder / "mesh"
        self.flags = ["--state", str(folder / "state"), "--mesh", str(self.mesh)]
        self.flags += ["--port", str(free_ports(9))]
        self.said = run_up("--detach", "--sample", "0", "--decision-wait", "2", *self.flags)
        self.at = dict(LINE.findall(self.said))

    def get(self, service, path, **query):
        """The JSON at that path; None where there is none."""
        url = f"{self.at[service]}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code == 404, f"{url}: {error.code} {error.read()}"
            return None

    def jaeger(self, span):
        """Spans of its trace by name, as OTLP; {} where there is none."""
        found = self.get("jaeger", f"/api/v3/traces/{trace_id(span)}")
        groups = found["result"]["resourceSpans"] if found else []
        spans = [each for g in groups for scope in g["scopeSpans"] for each in scope.get("spans", [])]
        return {each["name"]: each for each in spans}

    def zipkin(self, span):
        found = self.get("zipkin", f"/api/v2/trace/{trace_id(span)}")
        return {each["name"]: each for each in found or []}

    def prometheus(self, query):
        """Values by labels."""
        answer = self.get("prometheus", "/api/v1/query", query=query)
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    made = Stack(tmp_path_factory.mktemp("observability"))
    try:
        yield made
    finally:
        run_up("down", *made.flags)


def trace_id(span):
    return f"{span.context.trace_id:032x}"


def plain(attributes):
    """A dict of OTLP's JSON attributes; its integers are strings."""
    return {each["key"]: next(iter(each["value"].values())) for each in attributes}


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
        wait_until(lambda kept=kept: stack.jaeger(sent[kept]), f"Jaeger has the trace {kept}")
        wait_until(lambda kept=kept: stack.zipkin(sent[kept]), f"Zipkin has the trace {kept}")
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
    spans = stack.jaeger(sent["served"])
    assert sorted(spans) == ["compute", "request"]
    assert spans["compute"]["parentSpanId"] == spans["request"]["spanId"]
    assert plain(spans["compute"]["attributes"])["expertmesh.keep"] == "batch"
    drawn = stack.zipkin(sent["served"])
    assert drawn["compute"]["parentId"] == drawn["request"]["id"]
    services = {name: span["localEndpoint"]["serviceName"] for name, span in drawn.items()}
    assert services == {"request": "expertmesh-router", "compute": "expertmesh-expert"}


def test_links_and_their_attributes_arrive(stack, sent):
    links = stack.jaeger(sent["batch"])["batch"]["links"]
    assert [(link["traceId"], plain(link["attributes"])) for link in links] == [
        (trace_id(sent["served"]), {"expertmesh.rows": "3"}),
        (trace_id(sent["dropped"]), {"expertmesh.rows": "4"}),
    ]
    # Zipkin has no links: they are tags.
    tags = stack.zipkin(sent["batch"])["batch"]["tags"]
    assert trace_id(sent["served"]) in tags["otlp.link.0"]
    assert trace_id(sent["dropped"]) in tags["otlp.link.1"]


def test_what_is_kept_is_kept_by_what_it_says(stack, sent):
    for kept in ("served", "batch", "failed", "long"):
        assert stack.jaeger(sent[kept]) and stack.zipkin(sent[kept]), kept
    # Older than all of them, so that it was decided on before.
    assert not stack.jaeger(sent["dropped"]) and not stack.zipkin(sent["dropped"])


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
    calls = wait_until(lambda: len(found := stack.prometheus(query)) == 4 and found, "spans are counted")
    counted = {labels["span_name"]: value for labels, value in calls}
    assert counted == {"fast": 1, "request": 1, "failed": 1, "long": 1}


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
