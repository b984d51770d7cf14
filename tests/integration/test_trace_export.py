"""Spans as a collector gets them: an independent receiver of OTLP, told to behave and to misbehave."""

import signal
import time

import numpy as np
import pytest

import expertmesh
from expertmesh import ForwardOptions
from mesh import PATIENCE, hidden_states, shards
from trace_fixtures import COMPUTE, FORWARD, STREAM, start

# pylint: disable-next=unused-import
from trace_fixtures import receiver, user  # noqa: F401  (fixtures)


def test_one_call_is_one_trace_from_the_users_span_to_the_nodes(mesh, checkpoint, receiver, user):
    start(mesh, checkpoint, receiver, "--trace-ratio=0")
    with expertmesh.Client(mesh.router.address, timeout=PATIENCE) as client:
        with user.start_as_current_span("decode") as span:
            client.forward(0, hidden_states(16, checkpoint.d_model))
        trace_id = f"{span.get_span_context().trace_id:032x}"
    spans = receiver.wait_for(
        lambda spans: spans if spans.trace(trace_id).named("expertmesh.node.compute") else None
    ).trace(trace_id)
    root = spans.only("decode")
    call = spans.only(FORWARD, kind="CLIENT")
    request = spans.only(FORWARD, kind="SERVER")
    dispatch = spans.only("expertmesh.dispatch")
    assert [spans.parent(each) for each in (call, request, dispatch)] == [root, call, request]
    assert (root.service, call.service, request.service) == ("user", "user", "expertmesh-router")
    calls = spans.named(COMPUTE, kind="CLIENT")
    assert len(calls) == 2
    for each in calls:
        assert spans.parent(each) is dispatch
        assert spans.children(each).only(COMPUTE).service == "expertmesh-expert"
    assert len(list(spans.roots())) == 1
    assert call.attributes["rpc.status_code"] == request.attributes["rpc.status_code"] == "OK"


def test_a_message_of_a_stream_is_in_the_trace_of_its_own_span(mesh, checkpoint, receiver, user):
    start(mesh, checkpoint, receiver, "--trace-ratio=0")
    rows = hidden_states(4, checkpoint.d_model)
    with expertmesh.Client(mesh.router.address, timeout=PATIENCE) as client:
        with user.start_as_current_span("decode") as span:
            for answer in client.forward_many([(layer, rows) for layer in checkpoint.moe_layers]):
                assert answer.error is None
        trace_id = f"{span.get_span_context().trace_id:032x}"
    count = len(checkpoint.moe_layers)

    def complete(spans):
        spans = spans.trace(trace_id)
        done = spans.named("expertmesh.dispatch"), spans.named(STREAM, kind="CLIENT")
        return all(len(each) == count for each in done)

    spans = receiver.wait_for(complete).trace(trace_id)
    for request in spans.named(STREAM, kind="SERVER"):
        message = spans.parent(request)
        assert (message.name, message.kind, message.service) == (STREAM, "CLIENT", "user")
        assert spans.children(request).only("expertmesh.dispatch")
    assert len(spans.named(STREAM, kind="SERVER")) == count
    assert [each.name for each in spans.roots()] == ["decode"]


def test_a_batch_of_200_is_linked_to_all_its_requests(mesh, checkpoint, receiver):
    start(mesh, checkpoint, receiver, "--max-batch-tokens=200", "--max-queue-delay-us=60000000")
    row = np.ones((1, checkpoint.d_model), dtype=np.float32)
    requests = [
        (0, row, ForwardOptions(traceparent=f"00-{i:032x}-{i:016x}-01")) for i in range(1, 201)
    ]
    for answer in mesh.client.forward_many(requests, max_in_flight=200):
        assert answer.error is None
    spans = receiver.wait_for(
        lambda spans: (
            spans if spans.named("expertmesh.batch") and len(spans.named(STREAM)) == 200 else None
        )
    )
    batch = spans.only("expertmesh.batch")
    assert batch.attributes["expertmesh.batch.requests"] == 200
    assert (len(batch.links), batch.dropped[2]) == (128, 72)
    linked = spans.linked(batch)
    assert len(linked) == 128
    assert all(each.name == "expertmesh.dispatch" for each in linked)
    members = spans.named("expertmesh.dispatch", expertmesh__batch__id=batch.trace_id)
    assert len(members) == 200
    assert all([(link.trace_id, link.span_id) for link in each.links] == [(batch.trace_id, batch.span_id)]
               for each in members)
    assert {each.trace_id for each in members} == {f"{i:032x}" for i in range(1, 201)}
    # The calls are in the trace of a request, not lost in the batch's own.
    for each in spans.named(COMPUTE, kind="CLIENT"):
        assert spans.parent(each) in list(members)


@pytest.mark.parametrize("fault", ["absent", "hang", "refuse", "exhaust"])
def test_no_fault_of_the_collector_touches_requests(mesh, checkpoint, receiver, fault):
    if fault == "absent":
        receiver.close()
    elif fault == "hang":
        receiver.hang()
    elif fault == "refuse":
        receiver.refuse()
    else:
        receiver.exhaust(delay=0.01)
    start(mesh, checkpoint, receiver, "--trace-ratio=1", "--drain-timeout=1s")
    states = hidden_states(4, checkpoint.d_model)
    for _ in range(50):
        mesh.client.forward(0, states)
    begun = time.monotonic()
    mesh.router.signal(signal.SIGTERM)
    assert mesh.router.wait() == 0
    # Two seconds for spans; the rest is for a slow machine.
    assert time.monotonic() - begun < PATIENCE
    if fault in ("absent", "hang"):
        assert "spans were not exported" in mesh.router.log()


def test_exports_say_which_program_they_are_of(mesh, checkpoint, receiver):
    start(mesh, checkpoint, receiver, "--trace-ratio=1")
    mesh.client.forward(0, hidden_states(4, checkpoint.d_model))
    receiver.wait_for(lambda spans: spans.named(FORWARD))
    version = mesh.client.describe().version.split()[0]
    agent = receiver.exports[0].metadata["user-agent"]
    assert agent.startswith(f"expertmesh/{version} OTel-OTLP-Exporter-cpp/{version} grpc-c++/")


def test_what_was_noted_is_exported_when_the_router_ends(mesh, checkpoint, receiver):
    start(mesh, checkpoint, receiver, "--trace-ratio=1", OTEL_BSP_SCHEDULE_DELAY="60000")
    for _ in range(20):
        mesh.client.forward(0, hidden_states(4, checkpoint.d_model))
    mesh.router.signal(signal.SIGTERM)
    assert mesh.router.wait() == 0
    assert len(receiver.spans.named(FORWARD, kind="SERVER")) == 20


def test_the_sampler_of_the_environment_holds_until_a_flag_says_otherwise(mesh, checkpoint, receiver):
    variables = {"OTEL_TRACES_SAMPLER": "always_on"}
    start(mesh, checkpoint, receiver, "--trace-slow=inf", **variables)
    mesh.client.forward(0, hidden_states(4, checkpoint.d_model))
    assert receiver.wait_for(lambda spans: spans.named(FORWARD, kind="SERVER"))


def test_an_endpoint_that_makes_no_sense_is_named(mesh, checkpoint):
    mesh.launcher = ["env", "OTEL_EXPORTER_OTLP_ENDPOINT=ftp://somewhere"]
    with pytest.raises(Exception, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        mesh.start(checkpoint.path, shards(1))
