#!/usr/bin/env bash
# grpcio 1.76.0 (PyPI), asyncio: a bidirectional call that the server ends with an error while a message is being
# written reports INTERNAL, "Internal error from Core", in a share of the calls: the failed write sets the call's
# status before the trailers are read, and what the server said (here PERMISSION_DENIED and its text) is lost.
# The blocking API tells the server's status every time. A client that decides by code, such as whether to try again,
# therefore cannot trust INTERNAL from a stream of grpc.aio.
#
# Seen (2 cores): "asyncio: INTERNAL 196, PERMISSION_DENIED 4; blocking: PERMISSION_DENIED 200".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q grpcio==1.76.0

cat >status.py <<'CODE'
import asyncio
import collections
import concurrent.futures

import grpc
import grpc.aio

CALLS = 200


def refuse(requests, context):
    next(requests)
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")


handler = grpc.method_handlers_generic_handler(
    "test.Service", {"Refuse": grpc.stream_stream_rpc_method_handler(refuse)}
)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([handler])
address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()


async def one_call(method):
    call = method()

    async def write():
        while True:
            await call.write(b"x" * 1000)

    writer = asyncio.create_task(write())
    try:
        await call.read()
    except grpc.RpcError:
        pass
    code = await call.code()
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    return code.name


async def with_asyncio():
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.stream_stream("/test.Service/Refuse")
        return collections.Counter([await one_call(method) for _ in range(CALLS)])


def blocking():
    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream("/test.Service/Refuse")
        codes = collections.Counter()
        for _ in range(CALLS):
            call = method(b"x" * 1000 for _ in iter(int, 1))
            try:
                next(call)
            except grpc.RpcError as error:
                codes[error.code().name] += 1
        return codes


def said(codes):
    return ", ".join(f"{name} {count}" for name, count in codes.most_common())


one, other = asyncio.run(with_asyncio()), blocking()
print(f"grpcio {grpc.__version__}, asyncio: {said(one)}; blocking: {said(other)}")
assert other == {"PERMISSION_DENIED": CALLS}
assert one["INTERNAL"] > 0 and one["PERMISSION_DENIED"] + one["INTERNAL"] == CALLS
server.stop(None)
CODE
venv/bin/python status.py
echo "still so in grpcio 1.76.0"
