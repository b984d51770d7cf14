"""betterproto2: dataclasses instead of protobuf's classes, grpclib below. Runs in an environment of its own
(ecosystems.py).

    betterproto_check.py ROUTER GOLDEN_DIR
"""

import asyncio
import sys

from google.rpc import error_details_pb2
from grpclib.exceptions import GRPCError

import columns
import grpclib_plain
from columns import column, expect
from golden import Golden, big_rows
from stubs.expertmesh import v1

SECONDS = 60


def request(layer, data, rows, number=0, **more):
    tensor = v1.Tensor(dtype=v1.Dtype.F32, shape=[rows, len(data) // 4 // rows], data=data)
    return v1.ForwardRequest(request_id=number, layer=layer, hidden_states=tensor, **more)


async def stream(stub, layer, data, rows):
    sent = [request(layer, data, rows, number) for number in (1, 2, 3)]
    sent.append(v1.ForwardRequest(request_id=4, heartbeat=True))
    answers = {a.request_id: a async for a in stub.forward_stream(sent, timeout=SECONDS)}
    expect(set(answers) == {1, 2, 3, 4}, f"answered: {sorted(answers)}")
    expect(answers[4].heartbeat, "the heartbeat was not answered as one")
    expect(all(len(answers[n].output.data) == len(data) for n in (1, 2, 3)), "an answer is short")


async def watch(channel):
    seen = 0
    asked = v1.WatchTopologyRequest(heartbeat_ms=200)
    async for answer in v1.ControlStub(channel).watch_topology(asked, timeout=SECONDS):
        expect(answer.topology.ready, "not ready")
        seen += 1
        if seen == 3:
            return


async def refusal(stub, asked):
    try:
        await stub.forward(asked, timeout=SECONDS)
    except GRPCError as error:
        for detail in error.details or []:
            if isinstance(detail, error_details_pb2.ErrorInfo):
                return detail.reason
        raise ValueError(f"no ErrorInfo: {error.status.name} {error.message}") from None
    raise ValueError("no error came")


async def check(address, golden):
    channel = grpclib_plain.connect(address)
    stub = v1.RouterStub(channel)
    model = await stub.describe_model(v1.DescribeModelRequest(), timeout=SECONDS)
    layer, data = model.layers[0].layer, golden.hidden_states
    rows = len(data) // 4 // model.d_model
    with column("unary"):
        answer = await stub.forward(request(layer, data, rows), timeout=SECONDS)
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
        reason = await refusal(stub, request(columns.NO_LAYER, data, rows))
        expect(reason == columns.LAYER_REASON, f"a wrong layer: {reason}")
        reason = await refusal(stub, request(layer, data, rows, max_response_bytes=1))
        expect(reason == columns.LIMIT_REASON, f"an answer over the limit: {reason}")
    with column("big"):
        much, many = big_rows(model.d_model, columns.BIG_BYTES)
        answer = await stub.forward(request(layer, much, many), timeout=SECONDS)
        expect(len(answer.output.data) == len(much), f"{len(answer.output.data)} bytes")
    channel.close()


if __name__ == "__main__":
    asyncio.run(check(sys.argv[1], Golden(sys.argv[2])))
