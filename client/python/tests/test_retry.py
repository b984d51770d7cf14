"""Which requests are sent again, and what errors tell; both clients."""

import asyncio

import grpc
import numpy as np
import pytest

import expertmesh
from conftest import D_MODEL, Refused
from expertmesh import errors, retry, stream_state
from expertmesh.v1 import errors_pb2

ROWS = np.ones((2, D_MODEL), np.float32)
STOPPING = Refused(grpc.StatusCode.UNAVAILABLE, "stopping", "ROUTER_STOPPING")
FULL = Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", delay_ms=5)
WRONG = Refused(grpc.StatusCode.INVALID_ARGUMENT, "layer is 1", "INVALID_FIELD")


def forward(kind, router, **arguments):
    """One request; its result."""
    if kind == "blocking":
        with expertmesh.Client(router.address, **arguments) as client:
            return client.forward(1, ROWS)

    async def run():
        async with expertmesh.AsyncClient(router.address, **arguments) as client:
            return await client.forward(1, ROWS)

    return asyncio.run(run())


def forward_many(kind, router, count, **arguments):
    """Answers of `count` requests, by index."""
    items = [(i % 4, ROWS) for i in range(count)]
    if kind == "blocking":
        with expertmesh.Client(router.address, **arguments) as client:
            answers = list(client.forward_many(items))
    else:

        async def run():
            async with expertmesh.AsyncClient(router.address, **arguments) as client:
                return [answer async for answer in client.forward_many(items)]

        answers = asyncio.run(run())
    assert len({answer.index for answer in answers}) == len(answers) == count
    return sorted(answers, key=lambda answer: answer.index)


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request):
    return request.param


def test_every_reason_of_the_contract_has_its_policy():
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values[1:]:
        policy = value.GetOptions().Extensions[errors_pb2.policy]
        error = errors.from_status(errors_pb2.RequestStatus(code=policy.code))
        error.reason = value.name.removeprefix("ERROR_REASON_")
        error.retry_delay = policy.delay_ms / 1000
        pauses = [retry.pause_after(error, attempts) for attempts in (1, 2, 3)]
        if policy.retry == errors_pb2.RETRY_NEVER:
            assert pauses == [None] * 3, value.name
        elif policy.retry == errors_pb2.RETRY_ELSEWHERE:
            assert pauses == [0, 0.05, 0.1], value.name
        else:
            first = error.retry_delay
            assert first > 0 and pauses == [first, 2 * first, 4 * first], value.name


def test_without_a_reason_only_a_lost_call_is_tried_again():
    again = {
        code.name
        for code in grpc.StatusCode
        if retry.pause_after(errors.from_code(code, "why"), 1) is not None
    }
    assert again == {"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED"}


def test_retries_are_bought_with_answers():
    policy, lost = retry.RetryPolicy(2), errors.Unavailable("gone")
    assert sum(policy.after(lost, 1) is not None for _ in range(2000)) == 1000
    for _ in range(5):
        policy.answered()
    assert policy.after(lost, 1) is not None
    assert policy.after(lost, 1) is None


def test_a_call_is_made_again_until_it_is_answered(kind, router):
    router.refusals = [STOPPING, FULL, STOPPING]
    np.testing.assert_array_equal(forward(kind, router).output, 2 * ROWS)
    assert len(router.requests) == 4


def test_a_call_is_made_once_where_no_other_would_go_better(kind, router):
    router.refusals = [WRONG]
    with pytest.raises(errors.InvalidArgument) as failed:
        forward(kind, router)
    assert failed.value.reason == "INVALID_FIELD" and failed.value.metadata == {"layer": "1"}
    assert len(router.requests) == 1


def test_a_call_ends_with_the_last_error(kind, router):
    router.refusals = [FULL] * 9
    with pytest.raises(errors.ResourceExhausted) as failed:
        forward(kind, router, max_attempts=3)
    assert failed.value.reason == "QUEUE_FULL" and failed.value.retry_delay == 0.005
    assert len(router.requests) == 3


def test_no_attempt_begins_after_the_deadline(kind, router):
    router.refusals = [Refused(FULL.code, "full", "QUEUE_FULL", delay_ms=60_000)]
    with pytest.raises(errors.ResourceExhausted):
        forward(kind, router, timeout=30)
    assert len(router.requests) == 1


@pytest.mark.parametrize(
    "end",
    [
        Refused(grpc.StatusCode.UNAVAILABLE, "old", "STREAM_AGED"),
        Refused(grpc.StatusCode.INTERNAL, "a proxy's word for an idle stream"),
        Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "answers unread: no reason can be sent then"),
    ],
)
def test_a_stream_that_ends_loses_no_request(kind, router, end):
    router.ends = [(3, end), (2, end)]
    answers = forward_many(kind, router, 20)
    for answer in answers:
        np.testing.assert_array_equal(answer.unwrap().output, ROWS * (answer.index % 4 + 1))
    assert router.streams == 3


def test_a_stream_that_was_forbidden_is_not_opened_again(kind, router):
    router.ends = [(0, Refused(grpc.StatusCode.PERMISSION_DENIED, "not you"))] * 9
    with pytest.raises(errors.ExpertmeshError) as failed:
        forward_many(kind, router, 3)
    # grpc.aio forgets what the server said when a message is being written just then.
    forgotten = kind == "asyncio" and isinstance(failed.value, errors.Unavailable)
    assert forgotten or isinstance(failed.value, errors.PermissionDenied)
    assert kind == "asyncio" or router.streams == 1


def test_a_stream_that_always_ends_is_given_up(kind, router):
    router.ends = [(0, STOPPING)] * 9
    with pytest.raises(errors.Unavailable):
        forward_many(kind, router, 3, max_attempts=3)
    assert router.streams == 3


def test_a_refused_request_of_a_stream_is_sent_again(kind, router):
    router.refusals = [FULL, None, FULL, WRONG]
    answers = forward_many(kind, router, 3)
    refused = [answer for answer in answers if answer.error is not None]
    assert [answer.error.reason for answer in refused] == ["INVALID_FIELD"]
    assert router.streams == 1


@pytest.mark.parametrize("end", [None, STOPPING, Refused(grpc.StatusCode.INTERNAL, "reset")])
def test_a_watch_that_ends_goes_on(kind, router, end):
    router.watch_end = end
    if kind == "blocking":
        with expertmesh.Client(router.address) as client:
            seen = [next(watch).epoch for watch in [client.watch_topology()] for _ in range(3)]
    else:

        async def run():
            async with expertmesh.AsyncClient(router.address) as client:
                watch = client.watch_topology()
                seen = [(await watch.__anext__()).epoch for _ in range(3)]
                await watch.aclose()
                return seen

        seen = asyncio.run(run())
    assert seen == [1, 2, 3]


def test_a_watch_that_is_forbidden_ends(kind, router):
    router.watch_end = Refused(grpc.StatusCode.PERMISSION_DENIED, "not you")
    with pytest.raises(errors.PermissionDenied):
        if kind == "blocking":
            with expertmesh.Client(router.address) as client:
                list(client.watch_topology())
        else:

            async def run():
                async with expertmesh.AsyncClient(router.address) as client:
                    return [topology async for topology in client.watch_topology()]

            asyncio.run(run())
    assert router.watches == 1


def test_a_silent_stream_sends_heartbeats(kind, router, monkeypatch):
    monkeypatch.setattr(stream_state, "HEARTBEAT_SECONDS", 0.02)
    router.refusals = [Refused(FULL.code, "full", "QUEUE_FULL", delay_ms=500)]
    (answer,) = forward_many(kind, router, 1)
    assert answer.error is None
    assert router.heartbeats >= 1
