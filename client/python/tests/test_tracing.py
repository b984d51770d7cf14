"""Spans of the clients' calls, as OpenTelemetry's own SDK has them."""

import asyncio
import threading

import grpc
import numpy as np
import pytest
import tracing_sdk
from conftest import D_MODEL, PATIENCE, Refused
from opentelemetry import trace
from tracing_sdk import TRACER, sent, spans

import expertmesh
from expertmesh import ForwardOptions, tracing

ROWS = np.ones((2, 3, D_MODEL), np.float32)
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"
STOPPING = Refused(grpc.StatusCode.UNAVAILABLE, "stopping", "ROUTER_STOPPING")
FULL = Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", delay_ms=5)
WRONG = Refused(grpc.StatusCode.INVALID_ARGUMENT, "layer is wrong", "INVALID_FIELD")


@pytest.fixture(autouse=True)
def no_spans():
    tracing_sdk.EXPORTER.clear()
    tracing_sdk.FAULTY.broken = frozenset()
    yield
    tracing_sdk.FAULTY.broken = frozenset()


def attributes(router, method="expertmesh.v1.Router/Forward", **more):
    host, _, port = router.address.rpartition(":")
    return {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
        **more,
    }


def of_forward(router, **more):
    return attributes(router, **{"expertmesh.layer": 1, "expertmesh.tokens": 6}, **more)


def test_a_call_is_one_span_whose_context_is_sent(router, ask):
    ask(lambda client: client.forward(1, ROWS))
    (span,) = spans()
    assert span.name == "expertmesh.v1.Router/Forward"
    assert span.kind is trace.SpanKind.CLIENT and span.parent is None
    assert dict(span.attributes) == of_forward(router)
    assert span.status.status_code is trace.StatusCode.UNSET and not span.events
    assert span.instrumentation_scope.version == expertmesh.__version__
    assert router.requests[0].traceparent == sent(span)
    ((_, metadata),) = router.calls
    assert metadata["traceparent"] == sent(span) and "tracestate" not in metadata


def test_every_method_has_a_span_of_its_name(router, ask):
    calls = [
        lambda client: client.describe(),
        lambda client: client.health(),
        lambda client: client.topology(),
        lambda client: client.get_load(),
        lambda client: client.balance(),
        lambda client: client.set_balance(rule="sign"),
        lambda client: client.bias(),
        lambda client: client.set_bias({1: [0.5]}),
        lambda client: client.placement(),
        lambda client: client.plan_placement(),
        lambda client: client.set_placement(),
        lambda client: client.apply_placement(),
    ]
    for call in calls:
        ask(call)
    made = spans()
    assert [f"/{span.name}" for span in made] == [method for method, _ in router.calls]
    for span, (_, metadata) in zip(made, router.calls, strict=True):
        assert dict(span.attributes) == attributes(router, span.name)
        assert metadata["traceparent"] == sent(span)
    assert len({span.name for span in made}) == len(calls)


def test_the_current_span_is_the_parent(router, ask):
    with TRACER.start_as_current_span("decode") as decode:
        ask(lambda client: client.forward(1, ROWS))
        ask(lambda client: client.topology())
    for span in spans():
        assert span.parent.span_id == decode.context.span_id and not span.parent.is_remote
        assert span.context.trace_id == decode.context.trace_id


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("given", ["current", "explicit"])
def test_flags_and_tracestate_pass_untouched(router, ask, given, flags):
    state = "zipkin=a b,ot=th:fd70a4;rv:0123456789abcd,fw529a3039@dt=FfAB"
    if given == "current":
        with trace.use_span(tracing_sdk.parent(TRACE, SPAN, flags, state)):
            ask(lambda client: client.forward(1, ROWS))
    else:
        options = ForwardOptions(traceparent=f"{PARENT[:-1]}{flags}", tracestate=state)
        with TRACER.start_as_current_span("another trace"):
            ask(lambda client: client.forward(1, ROWS, options))
    (request,) = router.requests
    ((_, metadata),) = router.calls
    assert request.tracestate == metadata["tracestate"] == state
    assert request.traceparent == metadata["traceparent"]
    version, trace_id, span_id, sent_flags = request.traceparent.split("-")
    assert (version, int(trace_id, 16), int(sent_flags, 16)) == ("00", TRACE, flags)
    assert int(span_id, 16) != SPAN
    assert [span.parent.span_id for span in spans()] == ([SPAN] if flags & 1 else [])


def test_a_tracestate_is_cut_before_it_fills_the_metadata(router, ask):
    state = ",".join(f"k{i}={'v' * 100}" for i in range(32))
    ask(lambda client: client.forward(1, ROWS, ForwardOptions(traceparent=PARENT, tracestate=state)))
    sent_state = router.requests[0].tracestate
    assert 1900 < len(sent_state) <= 2048 and state.startswith(sent_state + ",")
    assert router.calls[0][1]["tracestate"] == sent_state


def test_an_explicit_context_is_the_parent_before_the_current_span(router, ask):
    with TRACER.start_as_current_span("another trace"):
        ask(lambda client: client.forward(1, ROWS, ForwardOptions(traceparent=PARENT)))
    (span,) = spans()
    assert (span.context.trace_id, span.parent.span_id) == (TRACE, SPAN) and span.parent.is_remote
    assert router.requests[0].traceparent == sent(span) != PARENT


def test_an_invalid_explicit_context_counts_as_none(router, ask):
    options = ForwardOptions(traceparent=PARENT.upper(), tracestate="a=1")
    with TRACER.start_as_current_span("decode") as decode:
        ask(lambda client: client.forward(1, ROWS, options))
    (span,) = spans()
    assert span.parent.span_id == decode.context.span_id
    assert (router.requests[0].traceparent, router.requests[0].tracestate) == (sent(span), "")


def test_one_span_covers_all_attempts(router, ask):
    router.refusals = [STOPPING, FULL]
    ask(lambda client: client.forward(1, ROWS))
    (span,) = spans()
    assert dict(span.attributes) == of_forward(router)
    assert {request.traceparent for request in router.requests} == {sent(span)}
    assert [event.name for event in span.events] == ["expertmesh.retry"] * 2
    told = [dict(event.attributes) for event in span.events]
    pauses = [attributes.pop("expertmesh.pause") for attributes in told]
    assert pauses[0] == 0 and 0.004 <= pauses[1] <= 0.012
    assert told == [
        {"expertmesh.attempt": 1, "rpc.status_code": "UNAVAILABLE", "expertmesh.reason": "ROUTER_STOPPING"},
        {"expertmesh.attempt": 2, "rpc.status_code": "RESOURCE_EXHAUSTED", "expertmesh.reason": "QUEUE_FULL"},
    ]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_other_status_is_an_error(router, ask, code):
    router.refusals = [Refused(code, "why", "INVALID_FIELD")]
    with pytest.raises(expertmesh.ExpertmeshError):
        ask(lambda client: client.forward(1, ROWS))
    (span,) = spans()
    failed = {"rpc.status_code": code.name, "error.type": code.name, "expertmesh.reason": "INVALID_FIELD"}
    assert dict(span.attributes) == of_forward(router, **failed)
    assert span.status.status_code is trace.StatusCode.ERROR and span.status.description == "why"


def test_an_error_that_stands_for_an_answer_is_one_in_the_span(router, ask):
    assert ask(lambda client: client.health("x")) is expertmesh.Health.SERVICE_UNKNOWN
    (span,) = spans()
    assert span.attributes["rpc.status_code"] == "NOT_FOUND"
    assert span.status.status_code is trace.StatusCode.ERROR


def test_what_is_refused_here_makes_no_span(router, ask):
    with pytest.raises(expertmesh.InvalidArgument):
        ask(lambda client: client.forward(1, np.ones(8, np.float32)))
    assert not spans() and not router.calls


def test_an_answer_that_makes_no_sense_is_an_error(router, ask, monkeypatch):
    answer = router.answer

    def wrong(request):
        response = answer(request)
        response.output.data = b""
        return response

    monkeypatch.setattr(router, "answer", wrong)
    with pytest.raises(expertmesh.Internal):
        ask(lambda client: client.forward(1, ROWS))
    (span,) = spans()
    assert span.attributes["rpc.status_code"] == "INTERNAL"


def test_a_closed_client(router):
    client = expertmesh.Client(router.address)
    client.close()
    with pytest.raises(expertmesh.Cancelled):
        client.forward(1, ROWS)
    (span,) = spans()
    assert span.attributes["error.type"] == "CANCELLED"


def test_a_cancelled_task(router):
    router.hold.clear()

    async def run():
        async with expertmesh.AsyncClient(router.address) as client:
            task = asyncio.create_task(client.forward(1, ROWS))
            while not router.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    (span,) = spans()
    assert span.attributes["rpc.status_code"] == "CANCELLED"
    assert span.status.status_code is trace.StatusCode.ERROR


def of_its_own(number):
    """The parent of request `number`, which layer and rows say as well."""
    return tracing_sdk.parent(number + 1, number + 1, 1)


def check_that_each_kept_its_own(router, count):
    made = {sent(span): span for span in spans()}
    assert len(made) == len(router.requests) == count
    for request in router.requests:
        tokens = request.hidden_states.shape[0]
        span = made[request.traceparent]
        assert span.attributes["expertmesh.tokens"] == tokens
        assert span.context.trace_id == span.parent.span_id == tokens


def test_concurrent_tasks_keep_their_own_parents(router):
    async def one(client, number):
        with trace.use_span(of_its_own(number)):
            await asyncio.sleep(0)
            await client.forward(1, np.ones((number + 1, D_MODEL), np.float32))

    async def run():
        async with expertmesh.AsyncClient(router.address, timeout=PATIENCE) as client:
            await asyncio.gather(*(one(client, number) for number in range(40)))

    asyncio.run(run())
    check_that_each_kept_its_own(router, 40)


def test_concurrent_threads_keep_their_own_parents(router):
    with expertmesh.Client(router.address, timeout=PATIENCE) as client:

        def one(number):
            with trace.use_span(of_its_own(number)):
                client.forward(1, np.ones((number + 1, D_MODEL), np.float32))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check_that_each_kept_its_own(router, 16)


@pytest.mark.parametrize("broken", [{"start"}, {"end"}, {"start", "end"}])
def test_a_fault_of_tracing_harms_no_call(router, ask, broken):
    tracing_sdk.FAULTY.broken = frozenset(broken)
    np.testing.assert_array_equal(ask(lambda client: client.forward(1, ROWS)).output, ROWS * 2)
    options = ForwardOptions(traceparent=PARENT)
    np.testing.assert_array_equal(ask(lambda client: client.forward(1, ROWS, options)).output, ROWS * 2)
    if "start" in broken:
        assert router.requests[1].traceparent == PARENT


@pytest.mark.parametrize(
    ("target", "server"),
    [
        ("router.internal:50050", ("router.internal", 50050)),
        ("dns:///router.internal:50050", ("router.internal", 50050)),
        ("dns://10.0.0.1/router.internal:50050", ("router.internal", 50050)),
        ("dns:router.internal:50050", ("router.internal", 50050)),
        ("[::1]:50050", ("::1", 50050)),
        ("ipv6:[::1]:50050", ("::1", 50050)),
        ("ipv4:10.0.0.1:50050,10.0.0.2:50050", ("ipv4:10.0.0.1:50050,10.0.0.2:50050", None)),
        ("unix:/run/router:1", ("unix:/run/router:1", None)),
        ("router.internal", ("router.internal", None)),
    ],
)
def test_the_server_of_a_target(target, server):
    tracing.Tracer(target).begin("expertmesh.v1.Router/DescribeModel", None, None).end()
    (span,) = spans()
    assert (span.attributes["server.address"], span.attributes.get("server.port")) == server
