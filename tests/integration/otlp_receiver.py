"""A receiver of spans by OTLP/gRPC, built on nothing of ours, that keeps all it gets and can be told to misbehave.

    with OtlpReceiver() as receiver:
        ...  # OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint
        spans = receiver.wait_for(lambda spans: spans.named("expertmesh.v1.Router/Forward"))
        print(spans.trace(trace_id).tree())

What it does with exports from then on, until `accept`, or for `times` of them: `hang`, `refuse`, `exhaust`, `be_partial`,
`be_slow`.
"""

import concurrent.futures
import dataclasses
import os
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from otlp_spans import Spans, spans_of

PATIENCE = 60 * float(os.environ.get("EXPERTMESH_TIMEOUT_SCALE", "1"))
# What OTLP recommends receivers to take.
_MOST_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Export:
    """One call. at: by time.monotonic(). outcome: "accepted", "partial", or the code that it was refused with."""

    at: float
    outcome: str
    spans: list
    metadata: dict
    bytes: int


class _Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver):
        self._receiver = receiver

    # The name is gRPC's.
    def Export(self, request, context):  # pylint: disable=invalid-name
        return self._receiver.answer(request, context)


class OtlpReceiver:
    """Listens on `address` (host:port) of loopback from the start; `endpoint` has the scheme as well.

    Spans of an export that was refused, or that hangs, are not among `spans`, but in `exports`.
    """

    def __init__(self, port=0, workers=16):
        """workers: calls that it takes at a time; those that hang are some of them."""
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._exports = []
        self._spans = []
        self._fault = None
        self._behave, self._times = self._accept, None
        self._go_on = threading.Event()
        self._go_on.set()
        self.hanging = 0
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(workers),
            options=[("grpc.max_receive_message_length", _MOST_BYTES), ("grpc.so_reuseport", 0)],
        )
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Servicer(self), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self.endpoint = f"http://{self.address}"
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def close(self):
        """Ends at once, as a collector that dies; what hangs ends with it."""
        ended = self._server.stop(None)
        self._go_on.set()
        ended.wait()

    # --- What it does ------------------------------------------------------------------------------

    def _become(self, behave, times=None):
        with self._changed:
            self._behave, self._times = behave, times
        return self

    def accept(self):
        """From now on, and ends what hangs, which is then accepted."""
        self._become(self._accept)
        self._go_on.set()
        return self

    def hang(self):
        """Exports get no answer until `accept` or `close`."""
        self._go_on.clear()
        return self._become(self._hang)

    def refuse(self, code=grpc.StatusCode.UNAVAILABLE, times=None):
        return self._become(lambda request, context: self._refuse(request, context, code), times)

    def exhaust(self, delay, times=None):
        """RESOURCE_EXHAUSTED with a RetryInfo of `delay` seconds; None: without one."""
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return self._become(lambda request, context: self._refuse(request, context, code, delay), times)

    def be_partial(self, rejected, message="some are not wanted", times=None):
        """Accepts, and says that it rejected that many: the first ones of each export."""

        def behave(request, context):
            return self._partial(request, context, rejected, message)

        return self._become(behave, times)

    def be_slow(self, seconds, times=None):
        """Accepts after that time."""

        def behave(request, context):
            time.sleep(seconds)
            return self._accept(request, context)

        return self._become(behave, times)

    def answer(self, request, context):
        """What an export gets."""
        with self._changed:
            behave = self._behave
            if self._times is not None:
                self._times -= 1
                if self._times == 0:
                    self._behave, self._times = self._accept, None
        return behave(request, context)

    def _keep(self, request, context, outcome, rejected=None, hung=0):
        """rejected: spans that it does not keep; None: all of them. hung: 1 for a call that did."""
        try:
            spans = spans_of(request)
        except AssertionError as fault:
            spans, self._fault = [], fault
        metadata = {key: value for key, value in context.invocation_metadata()}
        export = Export(time.monotonic(), outcome, spans, metadata, request.ByteSize())
        with self._changed:
            self._exports.append(export)
            self.hanging -= hung
            if rejected is not None:
                self._spans += spans[rejected:]
            self._changed.notify_all()

    def _accept(self, request, context):
        self._keep(request, context, "accepted", 0)
        return trace_service_pb2.ExportTraceServiceResponse()

    def _partial(self, request, context, rejected, message):
        self._keep(request, context, "partial", rejected)
        partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
        return trace_service_pb2.ExportTraceServiceResponse(partial_success=partial)

    def _hang(self, request, context):
        with self._changed:
            self.hanging += 1
            self._changed.notify_all()
        self._go_on.wait()
        waits = context.is_active()
        outcome, rejected = ("accepted", 0) if waits else ("CANCELLED", None)
        self._keep(request, context, outcome, rejected, hung=1)
        return trace_service_pb2.ExportTraceServiceResponse()

    def _refuse(self, request, context, code, delay=None):
        self._keep(request, context, code.name)
        status = status_pb2.Status(code=code.value[0], message="told to refuse")
        if delay is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMicroseconds(int(delay * 1e6))
            status.details.add().Pack(retry)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, status.message)

    # --- What it got -------------------------------------------------------------------------------

    @property
    def exports(self):
        """All calls, in the order of their answers."""
        with self._changed:
            return list(self._exports)

    @property
    def spans(self):
        """All that were accepted."""
        with self._changed:
            if self._fault is not None:
                raise self._fault
            return Spans(self._spans)

    def wait_for(self, condition, timeout=PATIENCE):
        """Returns the spans as soon as `condition` of them is true; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                count = len(self._exports)
            spans = self.spans
            if condition(spans):
                return spans
            with self._changed:
                left = deadline - time.monotonic()
                news = self._changed.wait_for(lambda: len(self._exports) != count, max(0.0, left))
            assert news, f"not within {timeout:g} s; there are {len(spans)} spans:\n{spans.tree()}"

    def wait_for_exports(self, count, timeout=PATIENCE):
        """Returns `exports` once there are so many, whatever became of them; those that hang count."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._exports) + self.hanging >= count, timeout)
            assert enough, f"{len(self._exports)} exports within {timeout:g} s, not {count}"
            return list(self._exports)

    def clear(self):
        """Forgets what it got."""
        with self._changed:
            self._exports, self._spans = [], []
