"""A collector that reads nothing of what it gets, so that it costs the machine little, and behaves well or badly.

    build/venv/bin/python tests/bench/trace_collector.py accept|hang|refuse|exhaust|partial|absent

Prints where it listens, and serves until its input ends.
"""

import concurrent.futures
import sys
import threading

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
RETRY_SECONDS = 1
FAULTS = ("accept", "hang", "refuse", "exhaust", "partial", "absent")


def exhausted():
    """Details of RESOURCE_EXHAUSTED that say when to come again."""
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="full")
    delay = duration_pb2.Duration(seconds=RETRY_SECONDS)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status.SerializeToString()


def behaviour(fault, ended):
    partial = trace_service_pb2.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 1
    partial = partial.SerializeToString()

    def export(_, context):
        if fault == "hang":
            ended.wait()
        if fault == "refuse":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if fault == "exhaust":
            context.set_trailing_metadata((("grpc-status-details-bin", exhausted()),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return partial if fault == "partial" else b""

    return export


def main():
    (fault,) = sys.argv[1:]
    if fault not in FAULTS:
        sys.exit(__doc__)
    ended = threading.Event()
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)]
    )
    handler = grpc.unary_unary_rpc_method_handler(behaviour(fault, ended))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    if fault != "absent":
        server.start()
    else:
        server.stop(None).wait()  # The port is free again, and nothing listens.
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    ended.set()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
