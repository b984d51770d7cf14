"""Requests seen from outside: the spans that a router makes, as its own methods, the command and viewers get them."""

import json
import signal
import subprocess

import grpc
import pytest

import expertmesh
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2_grpc, trace_pb2
from mesh import PATIENCE, Mesh, cli, hidden_states, program, shards, wait_until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from otlp_spans import Spans, spans_of
from trace_fixtures import COMPUTE, FORWARD, STREAM, export_to

# pylint: disable-next=unused-import
from trace_fixtures import receiver  # noqa: F401  (a fixture)


def traceparent(number, flags="01"):
    return f"00-{number:032x}-{7:016x}-{flags}"


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.launcher = ["env", "OTEL_RESOURCE_ATTRIBUTES=k8s.namespace.name=moe,k8s.pod.name=a%2Cb"]
        yield mesh.start(checkpoint.path, shards(2), "--trace-ratio=0", "--trace-slow=inf")


def spans_from(mesh, trace_id):
    """What the router has of a trace, read as an independent reader of OTLP reads an export."""
    stub = control_pb2_grpc.ControlStub(mesh.client.channel)
    answer = stub.GetTrace(trace_pb2.GetTraceRequest(trace_id=trace_id), timeout=PATIENCE)
    # TracesData and the request of an export have the same fields.
    export = trace_service_pb2.ExportTraceServiceRequest.FromString(answer.traces_data)
    return Spans(spans_of(export))


def trace_of(mesh, number):
    """All spans of a trace whose requests are answered: the last are made a moment after the answer."""
    trace_id = f"{number:032x}"

    def found():
        try:
            spans = spans_from(mesh, trace_id)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return None
        return spans if spans.named("expertmesh.dispatch") else None

    return wait_until(found, f"trace {trace_id}")


def forward(mesh, checkpoint, number, flags="01", **options):
    states = hidden_states(16, checkpoint.d_model)
    return mesh.client.forward(0, states, ForwardOptions(traceparent=traceparent(number, flags), **options))


def test_a_request_is_one_trace_of_all_processes(serving, checkpoint):
    forward(serving, checkpoint, 0x1001)
    spans = trace_of(serving, 0x1001)
    request = spans.only(FORWARD)
    assert (request.kind, request.parent_id) == ("SERVER", f"{7:016x}")
    assert request.service == "expertmesh-router"
    assert request.resource["k8s.pod.name"] == "a,b"
    assert request.attributes["rpc.status_code"] == "OK"
    assert request.attributes["expertmesh.tokens"] == 16
    dispatch = spans.only("expertmesh.dispatch")
    assert spans.parent(dispatch) is request
    calls = spans.named(COMPUTE, kind="CLIENT")
    assert {call.attributes["expertmesh.node"] for call in calls} == {"node0", "node1"}
    for call in calls:
        assert spans.parent(call) is dispatch
        node = next(iter(spans.children(call)))
        assert (node.name, node.kind, node.service) == (COMPUTE, "SERVER", "expertmesh-expert")
        assert node.resource["expertmesh.node"] == call.attributes["expertmesh.node"]
        assert node.resource["k8s.namespace.name"] == "moe"
        assert call.start_ns <= node.start_ns <= node.end_ns <= call.end_ns
        names = [span.name for span in spans.children(node)]
        assert names == ["expertmesh.node.queue", "expertmesh.node.compute"]
        compute = spans.children(node).only("expertmesh.node.compute")
        assert compute.attributes["expertmesh.node.merged_batches"] >= 1
    for span in spans:
        assert request.start_ns <= span.start_ns and span.end_ns <= request.end_ns + 10**9


def test_a_message_of_a_stream_has_its_own_trace(serving, checkpoint):
    states = hidden_states(4, checkpoint.d_model)
    numbers = (0x2001, 0x2002)
    requests = [(0, states, ForwardOptions(traceparent=traceparent(number))) for number in numbers]
    for answer in serving.client.forward_many(requests):
        assert answer.error is None
    for number in numbers:
        request = trace_of(serving, number).only(STREAM)
        assert request.trace_id == f"{number:032x}"
        assert "expertmesh.request_id" in request.attributes


def test_what_nobody_samples_leaves_nothing(serving, checkpoint):
    forward(serving, checkpoint, 0x3001, flags="00")
    forward(serving, checkpoint, 0x3002)
    trace_of(serving, 0x3002)
    with pytest.raises(grpc.RpcError) as caught:
        spans_from(serving, f"{0x3001:032x}")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_trace_id_that_is_none(serving):
    with pytest.raises(grpc.RpcError) as caught:
        spans_from(serving, "nonsense")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "nonsense" in caught.value.details()


def test_the_command_draws_a_trace(serving, checkpoint):
    forward(serving, checkpoint, 0x4001)
    spans = trace_of(serving, 0x4001)
    at = ("--router", serving.router.address)
    drawn = cli("trace", *at, f"{0x4001:032x}").stdout.splitlines()
    assert f"{len(spans)} spans" in drawn[0]
    assert len(drawn) == len(spans) + 2
    assert any("expertmesh-expert" in line and "expertmesh.node.compute" in line for line in drawn)
    exported = json.loads(cli("trace", *at, "--json", f"{0x4001:032x}").stdout)
    ids = {
        span["spanId"]
        for process in exported["resourceSpans"]
        for scope in process["scopeSpans"]
        for span in scope["spans"]
    }
    assert ids == {span.span_id for span in spans}
    listed = json.loads(cli("traces", *at, "--json").stdout)
    entry = next(each for each in listed if each["trace_id"] == f"{0x4001:032x}")
    assert (entry["layer"], entry["tokens"], entry["code"], entry["kept"]) == (0, 16, "OK", "sampled")
    assert f"{0x4001:032x}" in cli("traces", *at, "--slowest", "--limit", "1000").stdout
    missing = cli("trace", *at, "f" * 32, code=1).stderr
    assert "not here" in missing and "traceparent" in missing


def test_a_failed_over_call_is_kept_and_shows_why(mesh, checkpoint, receiver):
    export_to(mesh, receiver)
    mesh.start(checkpoint.path, shards(1) * 2, "--trace-ratio=0", "--trace-slow=inf", "--max-attempts=3")
    number = 0x5000

    def kept_retry():
        nonlocal number
        number += 1
        node = mesh.nodes[number % 2]  # A batch this small goes to one of them.
        node.signal(signal.SIGSTOP)
        try:
            forward(mesh, checkpoint, number, flags="00")
        finally:
            node.signal(signal.SIGCONT)
        mesh.wait_ready()
        listed = json.loads(cli("traces", "--router", mesh.router.address, "--json").stdout)
        return [each for each in listed if each["kept"] == "retried"]

    trace_id = wait_until(kept_retry, "a request that a node let wait")[0]["trace_id"]
    count = len(spans_from(mesh, trace_id))
    spans = receiver.wait_for(lambda spans: len(spans.trace(trace_id)) == count).trace(trace_id)
    assert spans.only(FORWARD).attributes["expertmesh.keep"] == "retried"
    calls = spans.named(COMPUTE, kind="CLIENT")
    lost = [call for call in calls if not call.attributes["expertmesh.contributes"]]
    assert lost and all(call.status == "ERROR" and call.message for call in lost)
    again = [call for call in calls if call.attributes["expertmesh.attempt"] == 2]
    asked = {call.attributes["expertmesh.node"] for call in lost + again}
    assert again and asked == {"node0", "node1"}
    dispatch = spans.only("expertmesh.dispatch")
    assert "expertmesh.retry" in [event.name for event in dispatch.events]


def test_a_request_that_failed_is_in_the_log_with_its_trace(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2), "--trace-ratio=0", "--log-format=json")
    mesh.nodes[0].kill()
    mesh.watch(lambda topology: not topology.ready, "a node is gone")
    with pytest.raises(expertmesh.Unavailable):
        forward(mesh, checkpoint, 0x5501, flags="00")

    def logged():
        lines = [json.loads(line) for line in mesh.router.log().splitlines()]
        return [line for line in lines if "trace_id" in line]

    line = wait_until(logged, "the request in the log")[0]
    assert line["level"] == "warning"
    assert "a request of 16 tokens failed with UNAVAILABLE" in line["message"]
    assert line["trace_id"] == f"{0x5501:032x}"
    # The client asked again.
    attempts = spans_from(mesh, line["trace_id"]).named(FORWARD)
    assert line["span_id"] in [attempt.span_id for attempt in attempts]
    mesh.nodes[0].start()


def test_without_tracing_nothing_is_kept(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2), "--tracing=off")
    forward(mesh, checkpoint, 0x6001)
    with pytest.raises(grpc.RpcError) as caught:
        spans_from(mesh, f"{0x6001:032x}")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "--tracing" in caught.value.details()


@pytest.mark.parametrize(
    "flag", ["--tracing=yes", "--trace-ratio=1.5", "--trace-slow=-1s", "--trace-keep-per-second=-1"]
)
def test_a_flag_of_tracing_that_makes_no_sense_is_named(checkpoint, flag):
    argv = [program("router"), "--model", checkpoint.path, "--nodes", "localhost:1", flag]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert flag.partition("=")[0] in done.stderr and "use" in done.stderr
