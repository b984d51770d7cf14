"""A deadline that passes on the server must not disturb other calls of the connection. grpclib closes the connection
when a server breaks HTTP/2, for example by ending a stream twice."""

import asyncio

from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline

from expertmesh.v1 import control_grpc, control_pb2

DEADLINE_SECONDS = 0.3


class ServersOnly(Deadline):
    """The server is told of it; the client itself would wait longer, so that the server is the one that ends it."""

    def __init__(self):
        super().__init__(_timestamp=0)
        self._asked = False

    def time_remaining(self):
        # The client asks first for its own timer, then for the header.
        asked, self._asked = self._asked, True
        return DEADLINE_SECONDS if asked else 30


def request(heartbeat_ms):
    return control_pb2.WatchTopologyRequest(heartbeat_ms=heartbeat_ms)


async def end_by_deadline(stub, deadline):
    """Returns how the call ended."""
    method = stub.WatchTopology
    # What `open` does, which takes no deadline of the caller's own making.
    call = method.channel.request(
        method.name, method._cardinality, method.request_type, method.reply_type, deadline=deadline
    )
    try:
        async with call:
            await call.send_message(request(0), end=True)
            while await call.recv_message():
                pass
    except (GRPCError, StreamTerminatedError, asyncio.TimeoutError) as error:
        status = getattr(error, "status", None)
        return status.name if status else type(error).__name__
    return "no error"


async def lost(connect, address, make_deadline):
    """Whether the neighbour died, and how the other watch ended."""
    channel = connect(address)
    ended = "not begun"
    try:
        stub = control_grpc.ControlStub(channel)
        async with stub.WatchTopology.open(timeout=60) as neighbour:
            await neighbour.send_message(request(100), end=True)
            await neighbour.recv_message()
            ended = await end_by_deadline(stub, make_deadline())
            try:
                for _ in range(4):
                    if not await asyncio.wait_for(neighbour.recv_message(), 10):
                        return True, ended
            except (GRPCError, StreamTerminatedError, OSError, asyncio.TimeoutError):
                return True, ended
            await neighbour.cancel()
            return False, ended
    except (GRPCError, StreamTerminatedError, OSError):
        return True, ended
    finally:
        channel.close()


async def main(connect, address, count):
    """Prints how many of `count` neighbours died: with a deadline that only the server keeps, and an ordinary one."""
    ordinary = lambda: Deadline.from_timeout(DEADLINE_SECONDS)  # noqa: E731
    for name, make_deadline in (("the server's", ServersOnly), ("an ordinary", ordinary)):
        results = [await lost(connect, address, make_deadline) for _ in range(count)]
        dead = sum(died for died, _ in results)
        endings = sorted({ended for _, ended in results})
        print(f"{dead} of {count} neighbours lost, {name} deadline; it ended as {endings}")
