"""The receiver of spans that tests use, against the exporter of OpenTelemetry's own SDK and against plain calls."""

import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otlp_receiver import PATIENCE, OtlpReceiver


@pytest.fixture
def receiver():
    with OtlpReceiver() as made:
        yield made


def provider(receiver, service):
    made = TracerProvider(resource=Resource({"service.name": service}))
    made.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(receiver.endpoint, insecure=True)))
    return made


def request(*names):
    """An export of spans with these names."""
    made = trace_service_pb2.ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    for i, name in enumerate(names, 1):
        scope.spans.add(
            trace_id=bytes(15) + bytes([i]),
            span_id=bytes(7) + bytes([i]),
            name=name,
            start_time_unix_nano=i,
            end_time_unix_nano=i + 1,
        )
    return made


def export(receiver, *names, timeout=PATIENCE):
    with grpc.insecure_channel(receiver.address) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        return stub.Export(request(*names), timeout=timeout, metadata=(("who", "me"),))


def refused(receiver, *names, timeout=PATIENCE):
    with pytest.raises(grpc.RpcError) as caught:
        export(receiver, *names, timeout=timeout)
    return caught.value


def names(spans):
    return [span.name for span in spans]


def test_a_trace_of_two_services_with_a_batch(receiver):
    client = provider(receiver, "client").get_tracer("caller", "1.2")
    server = provider(receiver, "router").get_tracer("router")
    attributes = {"a": 1, "b": [1.5, 2.5]}
    with client.start_as_current_span("call", kind=trace.SpanKind.CLIENT, attributes=attributes):
        with server.start_as_current_span("serve", kind=trace.SpanKind.SERVER) as serve:
            serve.add_event("retry", {"n": 2})
            serve.set_status(trace.StatusCode.ERROR, "why")
            link = trace.Link(serve.get_span_context(), {"rows": 3})
            with server.start_as_current_span("batch", Context(), links=[link]):
                pass
    spans = receiver.wait_for(lambda spans: len(spans) == 3)
    call = spans.only("call", service="client", kind="CLIENT", a=1)
    serve, batch = spans.only(kind="SERVER"), spans.only("batch")
    assert call.attributes == attributes and call.scope == ("caller", "1.2")
    # "It is known whether the parent is remote": this SDK leaves the W3C's own flags out.
    assert call.flags == 0x100 and call.nanoseconds > 0 and call.parent_id == ""
    assert call.resource["service.name"] == "client"
    assert (serve.status, serve.message) == ("ERROR", "why")
    assert [(event.name, event.attributes) for event in serve.events] == [("retry", {"n": 2})]
    assert [link.attributes for link in batch.links] == [{"rows": 3}]
    assert spans.parent(serve) is call and names(spans.children(call)) == ["serve"]
    assert names(spans.linked(batch)) == ["serve"] and names(spans.linking(serve)) == ["batch"]
    assert batch.trace_id != call.trace_id and len(spans.trace_ids) == 2
    assert spans.trace(call.trace_id).tree().splitlines() == [
        "client: call [CLIENT]",
        "  router: serve [SERVER ERROR]",
    ]
    assert spans.tree().endswith("router: batch [INTERNAL] -> router: serve [SERVER ERROR]")
    assert names(spans.trace(call.trace_id).named("serve").roots()) == ["serve"]
    assert "its parent is not here" in spans.named("serve").tree()


def test_what_it_keeps_of_an_export(receiver):
    export(receiver, "a", "b")
    (kept,) = receiver.exports
    assert (kept.outcome, names(kept.spans), kept.metadata["who"]) == ("accepted", ["a", "b"], "me")
    assert kept.bytes == request("a", "b").ByteSize()
    receiver.clear()
    assert not receiver.exports and not receiver.spans


def test_it_refuses(receiver):
    receiver.refuse(times=2)
    assert [refused(receiver, "a").code() for _ in range(2)] == [grpc.StatusCode.UNAVAILABLE] * 2
    export(receiver, "b")
    assert [kept.outcome for kept in receiver.exports] == ["UNAVAILABLE"] * 2 + ["accepted"]
    assert names(receiver.spans) == ["b"]
    receiver.refuse(grpc.StatusCode.INVALID_ARGUMENT)
    assert refused(receiver, "c").code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("delay", [None, 0.25])
def test_it_is_exhausted(receiver, delay):
    receiver.exhaust(delay, times=1)
    error = refused(receiver, "a")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
    told = []
    for detail in details:
        retry = error_details_pb2.RetryInfo()
        assert detail.Unpack(retry)
        told.append(retry.retry_delay.ToMicroseconds() / 1e6)
    assert told == ([] if delay is None else [delay])
    export(receiver, "b")
    assert names(receiver.spans) == ["b"]


def test_an_exporter_heeds_its_delay(receiver):
    receiver.exhaust(0.3, times=1)
    provider(receiver, "client").get_tracer("t").start_span("patient").end()
    first, second = receiver.wait_for_exports(2)
    assert (first.outcome, second.outcome) == ("RESOURCE_EXHAUSTED", "accepted")
    assert second.at - first.at >= 0.3
    assert names(receiver.spans) == ["patient"]


def test_it_accepts_some(receiver):
    receiver.be_partial(1, "too old", times=1)
    partial = export(receiver, "a", "b").partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, "too old")
    assert names(receiver.spans) == ["b"]
    receiver.clear()
    assert not export(receiver, "c").HasField("partial_success")


def test_it_hangs_until_it_is_told_to_accept(receiver):
    receiver.hang()
    assert refused(receiver, "lost", timeout=0.2).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    caller = threading.Thread(target=export, args=(receiver, "kept"))
    caller.start()
    receiver.wait_for_exports(2)
    assert receiver.hanging == 2 and not receiver.spans
    receiver.accept()
    caller.join()
    spans = receiver.wait_for(lambda spans: len(receiver.exports) == 2)
    assert names(spans) == ["kept"] and receiver.hanging == 0
    assert sorted(kept.outcome for kept in receiver.exports) == ["CANCELLED", "accepted"]


def test_it_ends_while_exports_hang():
    with OtlpReceiver() as receiver:
        receiver.hang()
        errors = []
        caller = threading.Thread(target=lambda: errors.append(refused(receiver, "a")))
        caller.start()
        receiver.wait_for_exports(1)
    caller.join()
    assert errors[0].code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_it_is_slow(receiver):
    receiver.be_slow(0.2, times=1)
    begun = time.monotonic()
    export(receiver, "a")
    assert time.monotonic() - begun >= 0.2


def test_waiting_in_vain_says_what_there_is(receiver):
    export(receiver, "a")
    with pytest.raises(AssertionError, match="there are 1 spans:\n.*: a "):
        receiver.wait_for(lambda spans: spans.named("b"), timeout=0.05)
    with pytest.raises(AssertionError, match="0 spans"):
        receiver.spans.only("b")


@pytest.mark.parametrize("field", ["trace_id", "span_id", "name", "start_time_unix_nano"])
def test_it_takes_no_span_that_breaks_the_protocol(receiver, field):
    broken = request("a")
    broken.resource_spans[0].scope_spans[0].spans[0].ClearField(field)
    with grpc.insecure_channel(receiver.address) as channel:
        trace_service_pb2_grpc.TraceServiceStub(channel).Export(broken, timeout=PATIENCE)
    with pytest.raises(AssertionError):
        receiver.spans  # pylint: disable=pointless-statement


def test_an_attribute_that_is_there_twice_is_a_fault(receiver):
    broken = request("a")
    for _ in range(2):
        broken.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="a").value.int_value = 1
    with grpc.insecure_channel(receiver.address) as channel:
        trace_service_pb2_grpc.TraceServiceStub(channel).Export(broken, timeout=PATIENCE)
    with pytest.raises(AssertionError, match="twice"):
        receiver.wait_for(len)
