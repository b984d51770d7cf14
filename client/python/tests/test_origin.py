"""Copies of clients, and clients after a fork."""

import asyncio
import copy
import os
import pickle
import subprocess
import sys

import grpc
import pytest

import expertmesh
from conftest import D_MODEL

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda client: pickle.loads(pickle.dumps(client)),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_another_client(router, how):
    client = expertmesh.Client(router.address, timeout=0)
    with COPIES[how](client) as made:
        client.close()
        assert made.channel is not client.channel
        assert made.describe(timeout=30).d_model == D_MODEL
        # What it was made with holds for the copy.
        with pytest.raises(expertmesh.DeadlineExceeded, match="timeout is 0"):
            made.describe()


def test_a_copy_of_an_async_client_is_another(router):
    async def both():
        async with expertmesh.AsyncClient(router.address, timeout=30) as client:
            async with pickle.loads(pickle.dumps(client)) as made:
                return (await client.describe()).d_model, (await made.describe()).d_model

    assert asyncio.run(both()) == (D_MODEL, D_MODEL)


@pytest.mark.parametrize("how", COPIES)
def test_credentials_are_not_copied(how):
    credentials = grpc.ssl_channel_credentials()
    with expertmesh.Client("127.0.0.1:1", credentials=credentials) as client:
        with pytest.raises(TypeError, match="Client with credentials cannot be copied or pickled"):
            COPIES[how](client)


FORKED = """
import os, sys, numpy, expertmesh
client = expertmesh.Client(sys.argv[1], timeout=30)
x = numpy.zeros((1, 8), numpy.float32)
calls = {
    "describe": client.describe,
    "forward": lambda: client.forward(0, x),
    "forward_many": lambda: list(client.forward_many([(0, x)])),
    "watch_topology": lambda: next(client.watch_topology()),
    "watch_balance": lambda: next(client.watch_balance()),
}
if os.fork() == 0:
    for name, call in calls.items():
        try:
            call()
        except expertmesh.FailedPrecondition as error:
            print(name, error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_client_of_the_parent_is_refused_after_a_fork():
    argv = [sys.executable, "-c", FORKED, "127.0.0.1:1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "describe",
        "forward",
        "forward_many",
        "watch_topology",
        "watch_balance",
    ], done
    assert all("make one in this process" in line for line in lines)
