"""Clients that read slowly get everything; what is held for them is little, and given back."""

import threading

import grpc
import numpy as np
import pytest

from mesh import PATIENCE, hidden_states, shards, wait_until

# 4 MiB of answer each.
ROWS = 16384
COUNT = 40
ANSWER_BYTES = ROWS * 64 * 4


@pytest.fixture(name="requests")
def make_requests(checkpoint):
    assert checkpoint.d_model * ROWS * 4 == ANSWER_BYTES
    return [(i % 2, hidden_states(ROWS, checkpoint.d_model, seed=i)) for i in range(4)]


def buffered(program):
    return program.metric("expertmesh_process_buffered_bytes")


def check_all(answers):
    """Each request has its one answer, and requests of the same rows have the same."""
    assert sorted(answer.index for answer in answers) == list(range(COUNT))
    first = {}
    for answer in sorted(answers, key=lambda each: each.index):
        assert answer.error is None, answer.error
        output = first.setdefault(answer.index % 4, answer.result.output)
        assert np.array_equal(output, answer.result.output)


@pytest.mark.parametrize("in_flight", [4, COUNT])
def test_forward_many_works_at_any_pace_of_its_consumer(mesh, checkpoint, requests, in_flight):
    mesh.start(checkpoint.path, shards(2))
    sent = (requests[i % 4] for i in range(COUNT))
    answers, most = [], 0
    for answer in mesh.client.forward_many(sent, max_in_flight=in_flight):
        answers.append(answer)
        # As slow as a consumer can be: until nothing moves any more.
        wait_until(lambda: settled(mesh.router), "the router rests")
        most = max(most, buffered(mesh.router))
    check_all(answers)
    assert most <= 80e6, "what the window lets through, and no more"
    wait_until(lambda: buffered(mesh.router) == 0, "all is sent")


def settled(router):
    """Nothing is worked on."""
    return router.metric("expertmesh_router_tokens_in_flight") == 0


def test_consumers_without_pauses_get_every_answer(mesh, checkpoint, requests):
    mesh.start(checkpoint.path, shards(2))
    sent = (requests[i % 4] for i in range(COUNT))
    check_all(list(mesh.client.forward_many(sent, max_in_flight=COUNT)))


def test_readers_that_stopped_share_what_the_router_may_hold(mesh, checkpoint, requests):
    limit = 64 << 20
    mesh.start(checkpoint.path, shards(2), f"--max-buffered-bytes={limit}")
    many = mesh.client
    streams = [many.forward_many((requests[i % 4] for i in range(COUNT))) for _ in range(6)]
    first = [next(stream) for stream in streams]
    wait_until(lambda: settled(mesh.router), "the router rests")
    assert buffered(mesh.router) <= limit
    # Others are served meanwhile.
    assert many.forward(0, hidden_states(8, checkpoint.d_model)).output.shape[0] == 8
    for answer, stream in zip(first, streams):
        assert answer.error is None
        stream.close()
    wait_until(lambda: buffered(mesh.router) == 0, "nothing is held for streams that are gone")


def test_memory_is_given_back_at_rest(mesh, checkpoint, requests):
    mesh.start(checkpoint.path, shards(2))
    many = [requests[i % 4] for i in range(COUNT)]
    list(mesh.client.forward_many(many[:4]))
    before = resident(mesh.router)
    threads = [
        threading.Thread(target=lambda: list(mesh.client.forward_many(many))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All but what working memory grew by: it was for smaller batches before.
    most = before + (resident(mesh.router) - before) / 3
    returned = "expertmesh_process_returned_bytes_total"
    wait_until(lambda: mesh.router.metric(returned) > 0, "the router has found that it rests")
    wait_until(lambda: resident(mesh.router) <= most, "memory is given back")


def resident(program):
    return program.metric("expertmesh_process_resident_bytes")


def test_a_large_refused_upload_is_not_held(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2))
    raw = mesh.client.channel.unary_unary("/expertmesh.v1.Router/Forward")
    refusals = []

    def upload():
        with pytest.raises(grpc.RpcError) as failed:
            raw(b"\xff" * (50 << 20), timeout=PATIENCE)
        refusals.append(failed.value.code())

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) == 8
    wait_until(lambda: buffered(mesh.router) == 0, "nothing is held")
