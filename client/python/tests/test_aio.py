"""What AsyncClient promises, against the small router of conftest.py."""

import asyncio

import numpy as np
import pytest
from arrays import assert_same

import expertmesh
from expertmesh import ForwardOptions

# A bound on what takes milliseconds where no other process is in the way.
PATIENCE = 300


def hidden(*shape):
    return np.arange(np.prod(shape)).reshape(shape).astype(np.float32)


def with_client(router, body):
    async def run():
        async with expertmesh.AsyncClient(router.address, timeout=PATIENCE) as client:
            return await asyncio.wait_for(body(client), PATIENCE)

    return asyncio.run(run())


def test_forward_concurrently(router):
    async def body(client):
        return await asyncio.gather(*(client.forward(i % 4, hidden(i + 1, 8)) for i in range(20)))

    for i, result in enumerate(with_client(router, body)):
        assert_same(result.output, hidden(i + 1, 8) * (i % 4 + 1))


def test_errors(router):
    async def body(client):
        with pytest.raises(expertmesh.InvalidArgument, match="layer is 9"):
            await client.forward(9, hidden(1, 8))
        refused = client.forward(0, hidden(8))  # Raises where it is awaited, as all else does.
        with pytest.raises(expertmesh.InvalidArgument, match="hidden states are"):
            await refused
        router.hold.clear()
        with pytest.raises(expertmesh.DeadlineExceeded):
            await client.forward(0, hidden(1, 8), ForwardOptions(timeout=0.05))
        router.hold.set()
        return client

    client = with_client(router, body)

    async def closed():
        with pytest.raises(expertmesh.Cancelled):
            await client.describe()

    asyncio.run(closed())


def test_describe_topology_health(router):
    async def body(client):
        assert (await client.describe()).family == "qwen3_moe"
        assert (await client.topology()).ready
        assert await client.health() is expertmesh.Health.SERVING
        assert await client.health("nobody") is expertmesh.Health.SERVICE_UNKNOWN

    with_client(router, body)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_stream_answers_out_of_order_are_matched(router, asynchronous):
    router.reverse_after = 4
    xs = [np.full((i + 1, 8), i, np.float32) for i in range(12)]

    async def source():
        for i, x in enumerate(xs):
            yield i % 4, x

    async def body(client):
        requests = source() if asynchronous else [(i % 4, x) for i, x in enumerate(xs)]
        return [answer async for answer in client.forward_many(requests)]

    answers = with_client(router, body)
    assert [answer.index for answer in answers[:4]] == [3, 2, 1, 0]
    assert sorted(answer.index for answer in answers) == list(range(12))
    for answer in answers:
        i = answer.index
        assert_same(answer.unwrap().output, xs[i] * (i % 4 + 1))


def test_stream_errors_stay_with_their_request(router):
    async def body(client):
        requests = [(0, hidden(1, 8)), (9, hidden(1, 8)), (0, hidden(8)), (1, hidden(1, 8))]
        return {answer.index: answer async for answer in client.forward_many(requests)}

    answers = with_client(router, body)
    assert sorted(answers) == [0, 1, 2, 3]
    assert "layer is 9" in str(answers[1].error)
    assert "[tokens, d_model]" in str(answers[2].error)
    assert_same(answers[3].unwrap().output, hidden(1, 8) * 2)


def test_stream_passes_on_the_sources_exception(router):
    def requests():
        yield 0, hidden(1, 8)
        raise KeyError("the caller's own")

    async def body(client):
        answers = []
        with pytest.raises(KeyError, match="the caller's own"):
            async for answer in client.forward_many(requests()):
                answers.append(answer.index)
        return answers

    assert with_client(router, body) == [0]


def test_stream_bounds_what_is_in_flight(router):
    router.reverse_after = 3
    drawn = []

    def requests():
        for i in range(300):
            drawn.append(i)
            yield 0, hidden(1, 8)

    async def body(client):
        seen = 0
        async for answer in client.forward_many(requests(), max_in_flight=3):
            answer.unwrap()
            seen += 1
            # Three in flight, one more drawn and waiting for room.
            assert len(drawn) <= seen - 1 + 3 + 1
        return seen

    assert with_client(router, body) == 300


def test_stream_left_early(router):
    def endless():
        while True:
            yield 0, hidden(1, 8)

    async def body(client):
        stream = client.forward_many(endless(), max_in_flight=3)
        async for answer in stream:
            if answer.index >= 5:
                break
        await stream.aclose()
        return (await client.forward(0, hidden(1, 8))).output.shape

    assert with_client(router, body) == (1, 8)


def test_stream_without_router():
    async def body():
        async with expertmesh.AsyncClient("127.0.0.1:1", timeout=PATIENCE) as client:
            with pytest.raises(expertmesh.Unavailable):
                async for _ in client.forward_many([(0, hidden(1, 8))]):
                    pass

    asyncio.run(body())


def test_routing_options_and_answers(router):
    router.assignments = [1, 3]
    router.dropped = [(0, 2)]

    async def body(client):
        result = await client.forward(
            0,
            hidden(2, 8),
            ForwardOptions(
                return_routing=True, group_sizes=[1, 1], token_ids=[4, 5], routing_seed=6
            ),
        )
        items = [(0, hidden(2, 8), ForwardOptions(return_routing=True, token_ids=[7, 8]))]
        streamed = [
            a.unwrap()
            async for a in client.forward_many(items, ForwardOptions(return_routing=True))
        ]
        return result, streamed[0]

    for result in with_client(router, body):
        assert_same(result.assignments_per_token, [1, 3])
        assert_same(result.dropped, [[0, 2]])
    first, second = router.requests
    assert (list(first.group_sizes), list(first.token_ids), first.routing_seed) == (
        [1, 1],
        [4, 5],
        6,
    )
    assert list(second.token_ids) == [7, 8]
