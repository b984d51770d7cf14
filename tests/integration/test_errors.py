"""What errors tell programs: every reason of the contract that a caller can meet, as another library than ours
reads it, on unary calls and on streams."""

import signal
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from expertmesh.v1 import (
    control_pb2,
    control_pb2_grpc,
    errors_pb2,
    router_pb2,
    router_pb2_grpc,
    tensor_pb2,
)
from mesh import PATIENCE, Mesh, hidden_states, shards, wait_until

MAX_METADATA_BYTES = 4096


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(
            checkpoint.path, shards(2), f"--max-metadata-bytes={MAX_METADATA_BYTES}"
        )


def details_of(status):
    """ErrorInfo, RetryInfo and BadRequest of a google.rpc.Status; None where there is none."""
    found = []
    for kind in ("ErrorInfo", "RetryInfo", "BadRequest"):
        message = getattr(error_details_pb2, kind)()
        found.append(message if any(detail.Unpack(message) for detail in status.details) else None)
    return found


def check(status, reason):
    """Code, reason and delay of a status are those of the contract's table. Returns the ErrorInfo."""
    value = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name[f"ERROR_REASON_{reason}"]
    policy = value.GetOptions().Extensions[errors_pb2.policy]
    info, retry, bad = details_of(status)
    assert (info.reason, info.domain) == (reason, "expertmesh.v1"), status
    assert status.code == policy.code
    assert status.message
    assert (retry is not None) == (policy.retry == errors_pb2.RETRY_LATER)
    if retry is not None:
        assert retry.retry_delay.ToMilliseconds() == policy.delay_ms
    assert (bad is not None) == (reason == "INVALID_FIELD")
    return info


def unary_status(call):
    """The google.rpc.Status of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == caught.value.code().value[0]
    assert status.message == caught.value.details()
    return status


def as_google_status(status):
    """The same bytes, read as google.rpc.Status: the contract says that they may be."""
    return status_pb2.Status.FromString(status.SerializeToString())


def request(checkpoint, tokens=3, **fields):
    x = hidden_states(tokens, checkpoint.d_model)
    fields.setdefault("layer", 0)
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=x.shape, data=x.tobytes())
    return router_pb2.ForwardRequest(hidden_states=tensor, **fields)


CASES = {
    "wrong layer": (dict(layer=99), "INVALID_FIELD", {}),
    "late": (dict(timeout_us=0), "DEADLINE_PASSED", {}),
    "large answer": (dict(max_response_bytes=700), "ANSWER_TOO_LARGE", {"limit": "700"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refused_request(serving, checkpoint, case):
    fields, reason, metadata = CASES[case]
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    bad = request(checkpoint, **fields)
    statuses = [unary_status(lambda: stub.Forward(bad, timeout=PATIENCE))]
    good = request(checkpoint, request_id=1)
    answers = {a.request_id: a for a in stub.ForwardStream(iter([bad, good]), timeout=PATIENCE)}
    assert answers[1].status.code == 0
    statuses.append(as_google_status(answers[0].status))
    for status in statuses:
        info = check(status, reason)
        for key, value in metadata.items():
            assert info.metadata[key] == value
        if reason == "INVALID_FIELD":
            (violation,) = details_of(status)[2].field_violations
            assert violation.field == "layer" and "99" in violation.description


def test_an_answer_of_the_accepted_size_is_given(serving, checkpoint):
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    answer = stub.Forward(request(checkpoint, tokens=100), timeout=PATIENCE)
    limit = answer.ByteSize() + 256  # What is left for what is not the output.
    again = request(checkpoint, tokens=100, max_response_bytes=limit)
    assert stub.Forward(again, timeout=PATIENCE).ByteSize() <= limit


def test_a_value_beyond_the_output(serving, checkpoint):
    x = hidden_states(3, checkpoint.d_model) * 1e9
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=x.shape, data=x.tobytes())
    large = router_pb2.ForwardRequest(
        layer=0, output_dtype=tensor_pb2.DTYPE_F16, hidden_states=tensor
    )
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    status = unary_status(lambda: stub.Forward(large, timeout=PATIENCE))
    assert check(status, "OUTPUT_OUT_OF_RANGE").metadata["token"] == "0"


def test_too_much_metadata(serving, checkpoint):
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    much = (("much", "m" * 2 * MAX_METADATA_BYTES),)
    status = unary_status(
        lambda: stub.Forward(request(checkpoint), timeout=PATIENCE, metadata=much)
    )
    info = check(status, "METADATA_TOO_LARGE")
    assert info.metadata["limit"] == str(MAX_METADATA_BYTES)


def test_an_unknown_node(serving):
    stub = control_pb2_grpc.ControlStub(serving.client.channel)
    drain = control_pb2.DrainNodeRequest(address="nowhere:1")
    status = unary_status(lambda: stub.DrainNode(drain, timeout=PATIENCE))
    assert check(status, "NODE_UNKNOWN").metadata["address"] == "nowhere:1"


def test_missing_experts(mesh, checkpoint):
    mesh.start_nodes(checkpoint.path, [("--experts", "0-10")])  # There are 12.
    mesh.start_router(checkpoint.path)
    mesh.watch(lambda topology: topology.missing[0].experts == [11], "all but one")
    stub = router_pb2_grpc.RouterStub(mesh.client.channel)
    many = request(checkpoint, tokens=64, layer=1)  # Some need it.
    status = unary_status(lambda: stub.Forward(many, timeout=PATIENCE))
    info = check(status, "EXPERTS_MISSING")
    assert dict(info.metadata) == {"layer": "1", "experts": "11"}


def test_a_full_queue(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2), "--max-tokens-in-flight=8")
    stub = router_pb2_grpc.RouterStub(mesh.client.channel)
    refused = None
    # A node may answer the first request before it stands still, and a router that runs late takes it for
    # lost before the second request comes; then once more.
    for _ in range(20):
        mesh.wait_ready()
        mesh.nodes[0].signal(signal.SIGSTOP)
        first = stub.Forward.future(request(checkpoint, tokens=8), timeout=PATIENCE)
        wait_until(
            lambda: first.done() or mesh.router.metric("expertmesh_router_tokens_in_flight") == 8,
            "the first is there",
        )
        second = stub.Forward.future(request(checkpoint), timeout=PATIENCE)
        try:
            refused = second.exception()
        finally:
            mesh.nodes[0].signal(signal.SIGCONT)
        code = refused and refused.code()
        if first.exception() is None and code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
    assert check(unary_status(second.result), "QUEUE_FULL").metadata["limit"] == "8"
    assert first.result().status.code == 0


def test_streams_and_watches_age_and_calls_go_on(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(2), "--max-connection-age=1s")
    stub = router_pb2_grpc.RouterStub(mesh.client.channel)
    control = control_pb2_grpc.ControlStub(mesh.client.channel)
    watch = control.WatchTopology(control_pb2.WatchTopologyRequest(), timeout=PATIENCE)
    sent = []

    def requests():
        while True:  # Until the call is over.
            sent.append(len(sent) + 1)
            yield request(checkpoint, request_id=sent[-1])
            time.sleep(0.01)

    answered = []
    stream = stub.ForwardStream(requests(), timeout=PATIENCE)

    def read():
        for answer in stream:
            assert answer.status.code == 0
            answered.append(answer.request_id)

    check(unary_status(read), "STREAM_AGED")
    # Every request that was begun was answered.
    assert sorted(answered) == sent[: len(answered)] and len(answered) > 10
    check(unary_status(lambda: list(watch)), "STREAM_AGED")
    # Clients of this tree notice nothing.
    items = [(i % 2, hidden_states(2, checkpoint.d_model)) for i in range(300)]
    slowly = (time.sleep(0.01) or item for item in items)
    assert all(a.error is None for a in mesh.client.forward_many(slowly, max_in_flight=4))


def test_heartbeats(serving, checkpoint):
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    beat = router_pb2.ForwardRequest(request_id=7, heartbeat=True, layer=99)
    answers = list(stub.ForwardStream(iter([beat, beat]), timeout=PATIENCE))
    assert answers == [router_pb2.ForwardResponse(request_id=7, heartbeat=True)] * 2
    control = control_pb2_grpc.ControlStub(serving.client.channel)
    watch = control.WatchTopology(
        control_pb2.WatchTopologyRequest(heartbeat_ms=10), timeout=PATIENCE
    )
    epochs = [next(watch).topology.epoch for _ in range(5)]
    assert len(set(epochs)) == 1
    watch.cancel()
