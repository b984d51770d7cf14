"""Callers that take more than their share: what each does, as a context manager around what others do meanwhile.
Each gives a function that tells whether it is over."""

import contextlib
import socket
import struct
import threading

import grpc

from expertmesh.v1 import control_pb2, control_pb2_grpc, router_pb2, tensor_pb2
from mesh import HOST, PATIENCE

MANY_IDS = 240 << 20
RESETS = 50_000
_STREAMS_PER_WRITE = 200
FORWARD = "/expertmesh.v1.Router/Forward"


class Idle:
    """Connections that say nothing."""

    def __init__(self, port, count):
        self._port, self._count, self._sockets = port, count, []

    def __enter__(self):
        for _ in range(self._count):
            self._sockets.append(socket.create_connection((HOST, self._port), timeout=PATIENCE))
        return self

    def __exit__(self, *exception):
        for idle in self._sockets:
            idle.close()


@contextlib.contextmanager
def _in_background(work):
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        thread.join(PATIENCE)


def _varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def huge_request(router, _checkpoint, size=MANY_IDS):
    """One legal request that is nearly all token ids of one byte."""

    def send():
        # Field 10, packed.
        request = b"\x52" + _varint(size) + b"\x01" * size
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(router.address, options) as channel:
            with contextlib.suppress(grpc.RpcError):
                channel.unary_unary(FORWARD)(request, timeout=PATIENCE)

    return _in_background(send)


def _frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(text):
    return bytes([len(text)]) + text.encode()


def _call_headers(path, address):
    """In HPACK, all literal but for what its static table has whole: POST and http."""
    block = b"\x83\x86\x04" + _literal(path) + b"\x01" + _literal(address)
    for name, value in (("content-type", "application/grpc"), ("te", "trailers")):
        block += b"\x00" + _literal(name) + _literal(value)
    return block


def reset_streams(router, _checkpoint, count=RESETS):
    """Calls that are begun and taken back at once, on one connection, until the router ends it."""

    def send():
        headers = _call_headers(FORWARD, router.address)
        with socket.create_connection((HOST, router.grpc_port), timeout=PATIENCE) as link:
            reader = threading.Thread(target=_discard, args=(link,))
            reader.start()
            with contextlib.suppress(OSError):
                link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
                for first in range(0, count, _STREAMS_PER_WRITE):
                    link.sendall(
                        b"".join(
                            _frame(1, 4, stream, headers) + _frame(3, 0, stream, b"\0\0\0\x08")
                            for stream in range(2 * first + 1, 2 * (first + _STREAMS_PER_WRITE), 2)
                        )
                    )
                link.shutdown(socket.SHUT_WR)
            reader.join(PATIENCE)

    return _in_background(send)


def _discard(link):
    with contextlib.suppress(OSError):
        while link.recv(1 << 16):
            pass


@contextlib.contextmanager
def slow_reader(router, checkpoint, requests=50):
    """A stream whose answers are not read, and connections that say nothing."""
    x = tensor_pb2.Tensor(
        dtype=tensor_pb2.DTYPE_F32, shape=[64, checkpoint.d_model], data=bytes(256 * checkpoint.d_model)
    )
    request = router_pb2.ForwardRequest(layer=checkpoint.moe_layers[0], hidden_states=x)
    with Idle(router.grpc_port, 50), grpc.insecure_channel(router.address) as channel:
        calls = channel.stream_stream("/expertmesh.v1.Router/ForwardStream")(
            iter([request.SerializeToString()] * requests), timeout=PATIENCE
        )
        yield lambda: True
        calls.cancel()


@contextlib.contextmanager
def idle(router, _checkpoint):
    with Idle(router.grpc_port, 500):
        yield lambda: True


@contextlib.contextmanager
def quiet(_router, _checkpoint):
    yield lambda: True


ALL = (quiet, idle, slow_reader, huge_request, reset_streams)


def disconnects(mesh):
    """How often the router has lost a node."""
    stub = control_pb2_grpc.ControlStub(mesh.client.channel)
    topology = stub.GetTopology(control_pb2.GetTopologyRequest(), timeout=PATIENCE).topology
    return sum(node.disconnects for node in topology.nodes)
