"""A mesh's own spans through the real collector, which samples tails, into the real Jaeger and the real Zipkin.
tests/run.sh --observability."""

import json
import os
import pathlib
import urllib.request

import grpc
import numpy as np
import pytest

from browser import Browser
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2_grpc, trace_pb2
from mesh import HOST, PATIENCE, Mesh, hidden_states, shards, wait_until
from observability_stack import plain

# pylint: disable-next=unused-import
from observability_stack import stack  # noqa: F401  (a fixture)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from otlp_spans import Spans, spans_of

# Links of a batch at most, the limit that OpenTelemetry sets.
MOST_LINKS = 128
REQUESTS = 40


def start(folder, checkpoint, stack, *flags):
    mesh = Mesh(folder)
    mesh.launcher = [
        "env",
        f"OTEL_EXPORTER_OTLP_ENDPOINT={stack.at['collector']}",
        "OTEL_BSP_SCHEDULE_DELAY=50",
        "OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=a",
    ]
    return mesh.start(checkpoint.path, shards(2), *flags)


@pytest.fixture(scope="module")
def slow(tmp_path_factory, checkpoint, stack):
    """A mesh that takes every request for slow. Requests wait for one another until REQUESTS tokens are there."""
    flags = ("--trace-ratio=0", "--trace-slow=1us", "--trace-keep-per-second=1000")
    flags += (f"--max-batch-tokens={REQUESTS}", "--max-queue-delay-us=60000000")
    with start(tmp_path_factory.mktemp("slow"), checkpoint, stack, *flags) as mesh:
        yield mesh


def id_of(number):
    """A trace's id. Jaeger shortens those whose first half is zero."""
    return f"{number:016x}{number:016x}"


def traceparent(number, flags="00"):
    return f"00-{id_of(number)}-{7:016x}-{flags}"


def from_router(mesh, trace_id):
    """What the router has of a trace itself, once it has it: notes come a moment after the answer."""
    stub = control_pb2_grpc.ControlStub(mesh.client.channel)

    def found():
        try:
            return stub.GetTrace(trace_pb2.GetTraceRequest(trace_id=trace_id), timeout=PATIENCE)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return None

    answer = wait_until(found, f"the router has {trace_id}")
    export = trace_service_pb2.ExportTraceServiceRequest.FromString(answer.traces_data)
    return Spans(spans_of(export))


def in_jaeger(stack, mesh, trace_id):
    """All spans of a trace, by id, once they are there: as many as the router has."""
    count = len(from_router(mesh, trace_id))

    def found():
        spans = stack.jaeger(trace_id)
        return {span["spanId"]: span for span in spans} if len(spans) == count else None

    return wait_until(found, f"Jaeger has the {count} spans of {trace_id}")


def links_of(span):
    return [(link["traceId"], link["spanId"]) for link in span.get("links", [])]


def assert_same(jaeger, router):
    """Ids, names, parents, times, attributes and links with theirs."""
    assert set(jaeger) == {span.span_id for span in router}
    for span in router:
        told = jaeger[span.span_id]
        assert (told["name"], told.get("parentSpanId", "")) == (span.name, span.parent_id)
        assert int(told["startTimeUnixNano"]) == span.start_ns
        assert int(told["endTimeUnixNano"]) == span.end_ns
        attributes = plain(told.get("attributes", []))
        for key, value in span.attributes.items():
            assert attributes[key] == (str(value) if type(value) is int else value), key
        assert links_of(told) == [(link.trace_id, link.span_id) for link in span.links]
        for link, sent in zip(told.get("links", []), span.links, strict=True):
            assert set(plain(link.get("attributes", []))) == set(sent.attributes)


def test_one_request_is_in_jaeger_what_the_router_made_of_it(stack, slow, checkpoint):
    states = hidden_states(REQUESTS, checkpoint.d_model)
    slow.client.forward(0, states, ForwardOptions(traceparent=traceparent(0xA1)))
    trace_id = id_of(0xA1)
    spans = in_jaeger(stack, slow, trace_id)
    router = from_router(slow, trace_id)
    assert {span.service for span in router} == {"expertmesh-router", "expertmesh-expert"}
    assert_same(spans, router)
    (request,) = [span for span in spans.values() if span["name"] == "expertmesh.v1.Router/Forward"]
    assert plain(request["attributes"])["expertmesh.keep"] == "slow"


def test_the_routers_answer_in_jaegers_form_is_jaegers(stack, slow, checkpoint):
    """The paths that Jaeger's page and Grafana read, of both, for one trace."""
    states = hidden_states(REQUESTS, checkpoint.d_model)
    slow.client.forward(0, states, ForwardOptions(traceparent=traceparent(0xB1, "01")))
    path = f"/api/traces/{id_of(0xB1)}"
    in_jaeger(stack, slow, id_of(0xB1))
    (theirs,) = stack.get("jaeger", path)["data"]
    with urllib.request.urlopen(f"http://{HOST}:{slow.router.metrics_port}{path}", timeout=PATIENCE) as answer:
        (ours,) = json.load(answer)["data"]
    assert set(ours) == set(theirs)
    processes = [
        {name: (p["serviceName"], tags_of(p)) for name, p in each["processes"].items()}
        for each in (ours, theirs)
    ]
    assert sorted(processes[0].values()) == sorted(processes[1].values())
    by_id = [{span["spanID"]: span for span in each["spans"]} for each in (ours, theirs)]
    assert set(by_id[0]) == set(by_id[1])
    for span_id, span in by_id[0].items():
        told = by_id[1][span_id]
        for key in ("traceID", "operationName", "startTime", "duration", "logs"):
            assert span[key] == told[key], key
        assert as_set(span["references"]) == as_set(told["references"])
        assert tags_of(span) == tags_of(told)
        assert processes[0][span["processID"]] == processes[1][told["processID"]]


def as_set(objects):
    return {tuple(sorted(each.items())) for each in objects}


def tags_of(holder):
    """What Jaeger says of its own storage is no tag of a span."""
    tags = {(tag["key"], tag["type"], tag["value"]) for tag in holder["tags"]}
    return {tag for tag in tags if not tag[0].startswith(("@jaeger", "internal."))}


def test_a_slow_batch_keeps_all_the_requests_that_it_links_to(stack, slow, checkpoint):
    numbers = range(0xC01, 0xC01 + REQUESTS)
    requests = [
        (0, row[np.newaxis], ForwardOptions(traceparent=traceparent(number)))
        for number, row in zip(numbers, hidden_states(REQUESTS, checkpoint.d_model), strict=True)
    ]
    for answer in slow.client.forward_many(requests, max_in_flight=REQUESTS):
        assert answer.error is None
    member = from_router(slow, id_of(numbers[0])).only("expertmesh.dispatch")
    (link,) = member.links
    batch = from_router(slow, link.trace_id)
    jaeger = in_jaeger(stack, slow, link.trace_id)
    assert_same(jaeger, batch)
    linked = links_of(jaeger[link.span_id])
    assert len(linked) == min(REQUESTS, MOST_LINKS)
    assert {trace_id for trace_id, _ in linked} == {id_of(number) for number in numbers}
    for trace_id, span_id in linked:
        spans = in_jaeger(stack, slow, trace_id)
        assert (link.trace_id, link.span_id) in links_of(spans[span_id])
    # A viewer without links finds the members by the batch's id; and the calls are in one of their traces.
    assert all(span.attributes["expertmesh.batch.id"] == link.trace_id for span in batch)
    calls = [
        span["name"]
        for trace_id, _ in linked
        for span in stack.jaeger(trace_id)
        if span["name"].endswith("Expert/Compute")
    ]
    assert len(calls) == 4  # Both sides of the calls of two nodes.


def test_what_nothing_speaks_for_is_dropped_by_the_collector(stack, slow, checkpoint, tmp_path):
    """So the others are there since they are kept, not since all are."""
    with start(tmp_path, checkpoint, stack, "--trace-slow=inf") as mesh:
        states = hidden_states(2, checkpoint.d_model)
        mesh.client.forward(0, states, ForwardOptions(traceparent=traceparent(0xD1, "01")))
    # Sent when that router ended; what is sent from now on is decided on later.
    states = hidden_states(REQUESTS, checkpoint.d_model)
    slow.client.forward(0, states, ForwardOptions(traceparent=traceparent(0xD2)))
    in_jaeger(stack, slow, id_of(0xD2))
    assert not stack.jaeger(id_of(0xD1)) and not stack.zipkin(id_of(0xD1))


def test_zipkins_page_shows_the_way_through_router_and_nodes(stack, slow, checkpoint, tmp_path):
    states = hidden_states(REQUESTS, checkpoint.d_model)
    slow.client.forward(0, states, ForwardOptions(traceparent=traceparent(0xE1)))
    trace_id = id_of(0xE1)
    count = len(in_jaeger(stack, slow, trace_id))
    drawn = wait_until(
        lambda: stack.zipkin(trace_id) if len(stack.zipkin(trace_id)) == count else None,
        f"Zipkin has the {count} spans of {trace_id}",
    )
    assert {span["localEndpoint"]["serviceName"] for span in drawn} == {
        "expertmesh-router",
        "expertmesh-expert",
    }
    # Another folder for the picture of deploy/observability/README.md, say.
    pictures = pathlib.Path(os.environ.get("EXPERTMESH_PICTURES", tmp_path))
    with Browser() as browser:
        page = browser.visit(f"{stack.at['zipkin']}/zipkin/traces/{trace_id}")
        page.get_by_text("expertmesh.node.compute").first.wait_for()
        text = page.inner_text("body").lower()
        page.screenshot(path=pictures / "zipkin.png")
    for shown in ("expertmesh-router", "expertmesh-expert", "expertmesh.v1.router/forward", "expertmesh.dispatch"):
        assert shown in text, shown
