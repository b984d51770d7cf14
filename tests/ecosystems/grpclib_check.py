"""grpclib: pure Python, and strict about HTTP/2. Runs in an environment of its own (ecosystems.py).

    grpclib_check.py ROUTER GOLDEN_DIR          prints a line for each column
    grpclib_check.py ROUTER neighbours COUNT    how many watches died when a deadline passed beside them
"""

import asyncio
import sys

from google.rpc import error_details_pb2
from grpclib.exceptions import GRPCError

import columns
import grpclib_plain
import neighbours
from columns import column, expect
from expertmesh.v1 import control_grpc, control_pb2, router_grpc, router_pb2, tensor_pb2
from golden import Golden, big_rows

SECONDS = 60


def request(layer, data, rows, number=0, **more):
    tensor = tensor_pb2.Tensor(
        dtype=tensor_pb2.DTYPE_F32, shape=[rows, len(data) // 4 // rows], data=data
    )
    return router_pb2.ForwardRequest(request_id=number, layer=layer, hidden_states=tensor, **more)


async def stream(stub, layer, data, rows):
    """Three requests at once; a heartbeat; each is answered."""
    async with stub.ForwardStream.open(timeout=SECONDS) as call:
        for number in (1, 2, 3):
            await call.send_message(request(layer, data, rows, number))
        await call.send_message(router_pb2.ForwardRequest(request_id=4, heartbeat=True), end=True)
        answers = {answer.request_id: answer async for answer in call}
    expect(set(answers) == {1, 2, 3, 4}, f"answered: {sorted(answers)}")
    expect(answers[4].heartbeat, "the heartbeat was not answered as one")
    expect(all(len(answers[n].output.data) == len(data) for n in (1, 2, 3)), "an answer is short")


async def watch(channel):
    stub = control_grpc.ControlStub(channel)
    async with stub.WatchTopology.open(timeout=SECONDS) as call:
        await call.send_message(control_pb2.WatchTopologyRequest(heartbeat_ms=200), end=True)
        seen = [await call.recv_message() for _ in range(3)]
        await call.cancel()
    expect(all(message.topology.ready for message in seen), "not ready")


async def refusal(stub, asked):
    """The reason of an error that must come."""
    try:
        await stub.Forward(asked, timeout=SECONDS)
    except GRPCError as error:
        details = error.details or []
        for detail in details:
            if isinstance(detail, error_details_pb2.ErrorInfo):
                return detail.reason
        raise ValueError(f"no ErrorInfo: {error.status.name} {error.message}") from None
    raise ValueError("no error came")


async def errors(stub, layer, data, rows):
    reason = await refusal(stub, request(columns.NO_LAYER, data, rows))
    expect(reason == columns.LAYER_REASON, f"a wrong layer: {reason}")
    reason = await refusal(stub, request(layer, data, rows, max_response_bytes=1))
    expect(reason == columns.LIMIT_REASON, f"an answer over the limit: {reason}")


async def check(address, golden):
    channel = grpclib_plain.connect(address)
    stub = router_grpc.RouterStub(channel)
    model = await stub.DescribeModel(router_pb2.DescribeModelRequest(), timeout=SECONDS)
    layer, data = model.layers[0].layer, golden.hidden_states
    rows = len(data) // 4 // model.d_model
    with column("unary"):
        answer = await stub.Forward(request(layer, data, rows), timeout=SECONDS)
    with column("bits"):
        golden.check(answer.output.data)
    with column("stream"):
        await stream(stub, layer, data, rows)
    with column("watch"):
        await watch(channel)
    with column("health"):
        await grpclib_plain.health(channel)
    with column("reflection"):
        await grpclib_plain.reflection(channel)
    with column("errors"):
        await errors(stub, layer, data, rows)
    with column("big"):
        much, many = big_rows(model.d_model, columns.BIG_BYTES)
        answer = await stub.Forward(request(layer, much, many), timeout=SECONDS)
        expect(len(answer.output.data) == len(much), f"{len(answer.output.data)} bytes")
    channel.close()


def main(arguments):
    address, what, *rest = arguments
    if what == "neighbours":
        asyncio.run(neighbours.main(grpclib_plain.connect, address, int(rest[0])))
    else:
        asyncio.run(check(address, Golden(what)))


if __name__ == "__main__":
    main(sys.argv[1:])
