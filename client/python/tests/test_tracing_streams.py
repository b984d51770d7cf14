"""Spans of the requests of a stream, one each, as OpenTelemetry's own SDK has them."""

import asyncio

import grpc
import numpy as np
import pytest
import tracing_sdk
from conftest import D_MODEL, PATIENCE, Refused
from opentelemetry import trace
from tracing_sdk import TRACER, sent, spans

import expertmesh
from expertmesh import ForwardOptions

ROWS = np.ones((2, D_MODEL), np.float32)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FULL = Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", delay_ms=5)
WRONG = Refused(grpc.StatusCode.INVALID_ARGUMENT, "layer is wrong", "INVALID_FIELD")
AGED = Refused(grpc.StatusCode.UNAVAILABLE, "old", "STREAM_AGED")


@pytest.fixture(autouse=True)
def no_spans():
    tracing_sdk.EXPORTER.clear()


@pytest.fixture(params=["blocking", "asyncio"])
def stream(request, router):
    """stream(items, take=n, **of the client): the first n answers of forward_many(items), by index."""

    def blocking(items, take=None, **arguments):
        with expertmesh.Client(router.address, timeout=PATIENCE, **arguments) as client:
            answers = client.forward_many(items)
            taken = list(answers) if take is None else [next(answers) for _ in range(take)]
            answers.close()
            return taken

    def awaited(items, take=None, **arguments):
        async def run():
            async with expertmesh.AsyncClient(router.address, timeout=PATIENCE, **arguments) as client:
                answers = client.forward_many(items)
                if take is None:
                    return [answer async for answer in answers]
                taken = [await answers.__anext__() for _ in range(take)]
                await answers.aclose()
                return taken

        return asyncio.run(run())

    made = blocking if request.param == "blocking" else awaited
    return lambda *args, **kwargs: sorted(made(*args, **kwargs), key=lambda answer: answer.index)


def by_layer():
    """The spans by their layer; each must have one of its own."""
    made = {span.attributes["expertmesh.layer"]: span for span in spans()}
    assert len(made) == len(spans())
    return made


def test_each_request_is_a_span_whose_context_it_has(router, stream):
    with TRACER.start_as_current_span("decode") as decode:
        stream([(layer, np.ones((layer + 1, D_MODEL), np.float32)) for layer in range(4)])
    made = by_layer()
    assert len(made) == 4
    for request in router.requests:
        span = made[request.layer]
        assert span.name == "expertmesh.v1.Router/ForwardStream"
        assert span.kind is trace.SpanKind.CLIENT
        assert span.parent.span_id == decode.context.span_id
        assert request.traceparent == sent(span)
        assert dict(span.attributes) == {
            "rpc.system.name": "grpc",
            "rpc.method": "expertmesh.v1.Router/ForwardStream",
            "rpc.status_code": "OK",
            "server.address": "127.0.0.1",
            "server.port": int(router.address.rpartition(":")[2]),
            "expertmesh.layer": request.layer,
            "expertmesh.tokens": request.layer + 1,
        }
    # The stream outlives its requests, and belongs to none of them.
    assert "traceparent" not in router.calls[0][1]


def test_the_span_that_is_current_where_an_item_comes_from_is_its_parent(router, stream):
    def items():
        yield 0, ROWS
        for layer in (1, 2):
            with TRACER.start_as_current_span(f"layer {layer}"):
                yield layer, ROWS
        yield 3, ROWS, ForwardOptions(traceparent=PARENT, tracestate="a=1")

    with TRACER.start_as_current_span("decode"):
        stream(items())
    names = {span.context.span_id: span.name for span in spans("the program around")}
    made = by_layer()
    parents = [names.get(made[layer].parent.span_id) for layer in range(4)]
    assert parents == ["decode", "layer 1", "layer 2", None]
    assert f"{made[3].parent.span_id:016x}" in PARENT
    (last,) = [request for request in router.requests if request.layer == 3]
    assert (last.traceparent, last.tracestate) == (sent(made[3]), "a=1")


def test_a_refused_request_is_sent_again_in_its_span(router, stream):
    router.refusals = [FULL, None, WRONG]
    answers = stream([(layer, ROWS) for layer in range(3)])
    (failed,) = [answer.layer for answer in answers if answer.error is not None]
    made = by_layer()
    assert made[failed].attributes["error.type"] == "INVALID_ARGUMENT"
    assert made[failed].attributes["expertmesh.reason"] == "INVALID_FIELD"
    assert made[failed].status.description == "layer is wrong"
    events = [event for layer in range(3) for event in made[layer].events]
    assert [dict(event.attributes)["expertmesh.reason"] for event in events] == ["QUEUE_FULL"]
    sent_by_layer = {layer: {r.traceparent for r in router.requests if r.layer == layer} for layer in range(3)}
    assert sent_by_layer == {layer: {sent(made[layer])} for layer in range(3)}


def test_a_request_outlives_its_stream_in_one_span(router, stream):
    router.ends = [(1, AGED), (0, AGED)]
    stream([(layer, ROWS) for layer in range(3)])
    made = by_layer()
    assert len(made) == 3
    assert {span.attributes["rpc.status_code"] for span in made.values()} == {"OK"}
    again = [event for span in made.values() for event in span.events]
    # grpc.aio forgets what the server said when a message is being written just then.
    assert again and {dict(event.attributes)["rpc.status_code"] for event in again} == {"UNAVAILABLE"}


def test_what_a_lost_stream_takes_along_is_an_error(router, stream):
    router.ends = [(0, AGED)] * 9
    with pytest.raises(expertmesh.Unavailable):
        stream([(layer, ROWS) for layer in range(3)], max_attempts=2)
    made = by_layer()
    assert len(made) == 3
    assert {span.attributes["error.type"] for span in made.values()} == {"UNAVAILABLE"}


def test_a_request_that_is_not_sent_once_more_is_an_error(router, stream):
    router.ends = [(1, AGED), (1, AGED)]
    router.refusals = [None, FULL]
    answers = stream([(layer, ROWS) for layer in range(2)], max_attempts=3)
    assert [answer.error is None for answer in answers] == [True, False]
    made = by_layer()
    assert made[0].attributes["rpc.status_code"] == "OK"
    assert made[1].attributes["error.type"] == "UNAVAILABLE"
    assert [dict(event.attributes)["expertmesh.attempt"] for event in made[1].events] == [1, 2]


def test_what_is_given_up_is_cancelled(router, stream):
    router.reverse_after = 2
    stream([(layer, ROWS) for layer in range(3)], take=1)
    made = by_layer()
    codes = {layer: span.attributes["rpc.status_code"] for layer, span in made.items()}
    # The last one may not have been read from the source.
    assert codes.pop(2, "CANCELLED") == "CANCELLED"
    assert codes == {0: "CANCELLED", 1: "OK"}


def test_a_request_that_cannot_be_sent_has_no_span(router, stream):
    answers = stream([(0, ROWS), (1, np.ones(8, np.float32)), (2, ROWS)])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert sorted(by_layer()) == [0, 2]
