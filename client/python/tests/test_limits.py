"""Timeouts that are none, and the way that a call takes."""

import grpc
import numpy as np
import pytest

import expertmesh
from conftest import D_MODEL
from expertmesh import ForwardOptions, codec, errors
from expertmesh.v1 import router_pb2, tensor_pb2


def test_the_proxy_of_the_environment_is_left_alone(router, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with expertmesh.Client(router.address, timeout=30) as client:
        assert client.describe().d_model == D_MODEL


ENDLESS = [None, float("inf"), 1e300, 10**400, np.float64("inf"), np.float32("inf")]


@pytest.mark.parametrize("timeout", ENDLESS, ids="{!r:.20}".format)
def test_an_endless_timeout_is_none(router, timeout):
    x = np.ones((1, D_MODEL), np.float32)
    options = ForwardOptions(timeout=timeout)
    with expertmesh.Client(router.address, timeout=timeout) as client:
        assert client.forward(0, x, options).output.shape == x.shape
        assert client.describe(timeout=timeout).d_model == D_MODEL
        assert client.topology(timeout=timeout).ready
        assert next(client.watch_topology()).epoch == 1
        (answer,) = client.forward_many([(0, x)], options)
        assert answer.error is None
    assert not router.requests[-1].HasField("timeout_us")


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, np.int64, int, np.array])
def test_a_timeout_of_any_type_of_number_holds(router, number):
    """Added to a time of day, one of 16 or 32 bits would be off by minutes."""
    x = np.ones((1, D_MODEL), np.float32)
    options = ForwardOptions(timeout=number(300))
    with expertmesh.Client(router.address, timeout=number(300)) as client:
        for _ in range(3):
            assert client.describe().d_model == D_MODEL
            assert client.forward(0, x, options).output.shape == x.shape
        (answer,) = client.forward_many([(0, x)], options)
        assert answer.error is None
    assert router.requests[-1].timeout_us == 300_000_000


WRONG = {
    float("nan"): (expertmesh.InvalidArgument, "timeout is nan; use seconds"),
    np.float32("nan"): (expertmesh.InvalidArgument, "use seconds, or None"),
    "5": (expertmesh.InvalidArgument, "timeout is '5'; use seconds"),
    (1, 2): (expertmesh.InvalidArgument, r"timeout is \(1, 2\); use seconds"),
    0: (expertmesh.DeadlineExceeded, "timeout is 0: no time is left"),
    -1.5: (expertmesh.DeadlineExceeded, "timeout is -1.5: no time is left"),
    float("-inf"): (expertmesh.DeadlineExceeded, "timeout is -inf: no time is left"),
}


@pytest.mark.parametrize("timeout", WRONG)
def test_a_timeout_that_makes_no_sense_is_refused(router, timeout):
    kind, text = WRONG[timeout]
    x = np.ones((1, D_MODEL), np.float32)
    options = ForwardOptions(timeout=timeout)
    with expertmesh.Client(router.address) as client:
        for call in (
            lambda: client.forward(0, x, options),
            lambda: client.describe(timeout=timeout),
            lambda: client.topology(timeout=timeout),
            lambda: client.health(timeout=timeout),
        ):
            with pytest.raises(kind, match=text):
                call()
        (answer,) = client.forward_many([(0, x)], options)
        assert isinstance(answer.error, kind)
    with expertmesh.Client(router.address, timeout=timeout) as client:
        with pytest.raises(kind, match=text):
            client.describe()
        (answer,) = client.forward_many([(0, x)])
        assert isinstance(answer.error, kind)


def test_a_tiny_timeout_on_a_stream_is_no_endless_one(router):
    x = np.ones((1, D_MODEL), np.float32)
    with expertmesh.Client(router.address) as client:
        list(client.forward_many([(0, x)], ForwardOptions(timeout=1e-9)))
    assert router.requests[-1].timeout_us == 1


def test_what_a_router_says_is_shown_on_one_line_and_bounded():
    error = errors.from_code(grpc.StatusCode.INTERNAL, "\x1b[31mtwo\nlines " + "x" * 5_000_000)
    assert error.message.startswith(r"\x1b[31mtwo\nlines xxx") and len(error.message) < 5000
    assert errors.from_code(grpc.StatusCode.INTERNAL, "naïve 模型").message == "naïve 模型"


def test_a_shape_of_many_dimensions_is_counted(router):
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=[1] * 1_000_000, data=b"1234")
    _, shape = codec.encode_request(0, np.ones((1, D_MODEL), np.float32), ForwardOptions())
    response = router_pb2.ForwardResponse(output=tensor)
    with pytest.raises(expertmesh.Internal, match="has 1000000 dimensions") as caught:
        codec.decode_response(response, shape)
    assert len(str(caught.value)) < 500
