"""Timeouts that are none, and the way that a call takes."""

import numpy as np
import pytest

import expertmesh
from conftest import D_MODEL
from expertmesh import ForwardOptions


def test_the_proxy_of_the_environment_is_left_alone(router, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with expertmesh.Client(router.address, timeout=30) as client:
        assert client.describe().d_model == D_MODEL


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_an_endless_timeout_is_none(router, timeout):
    x = np.ones((1, D_MODEL), np.float32)
    options = ForwardOptions(timeout=timeout)
    with expertmesh.Client(router.address, timeout=timeout) as client:
        assert client.forward(0, x, options).output.shape == x.shape
        (answer,) = client.forward_many([(0, x)], options)
        assert answer.error is None
    assert not router.requests[-1].HasField("timeout_us")


def test_a_timeout_that_is_no_number_is_refused(router):
    x = np.ones((1, D_MODEL), np.float32)
    options = ForwardOptions(timeout=float("nan"))
    with expertmesh.Client(router.address) as client:
        with pytest.raises(expertmesh.InvalidArgument, match="timeout is nan"):
            client.forward(0, x, options)
        (answer,) = client.forward_many([(0, x)], options)
        assert isinstance(answer.error, expertmesh.InvalidArgument)
