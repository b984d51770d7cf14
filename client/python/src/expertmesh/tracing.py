"""Spans of requests, by OpenTelemetry where the program around uses it; what goes along with a request else.

Nothing here imports OpenTelemetry before the program did: where it did not, no span can be current, and none
has anywhere to go. A fault of tracing never becomes one of the request.
"""

from __future__ import annotations

import logging
import re
import sys
from types import TracebackType
from typing import Any, Dict, Optional, Tuple, Type

from expertmesh import errors, trace_context
from expertmesh.trace_context import TraceContext
from expertmesh.v1 import router_pb2

_LOGGER = logging.getLogger(__name__)
# "[scheme:]host:port", where a scheme may have "//authority/" after it; the host of IPv6 stands in brackets.
_TARGET = re.compile(r"(?:[a-z0-9+.-]+:(?://[^/]*/)?)??/?(\[[^\]]+\]|[^:/,\[\]]+):(\d+)")

# What goes with a call, as gRPC takes it.
Metadata = Optional[Tuple[Tuple[str, str], ...]]


class CallSpan:
    """The span of one request, from its start until its last attempt ended; as a context manager it ends with it.

    context: what is sent along; None: nothing.
    """

    def __init__(self, span: Any, context: Optional[TraceContext]) -> None:
        self._span = span
        self.context = context

    def __enter__(self) -> CallSpan:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.end(value)

    @property
    def metadata(self) -> Metadata:
        """`context` as metadata of a call."""
        if self.context is None:
            return None
        traceparent = ("traceparent", self.context.traceparent)
        if not self.context.tracestate:
            return (traceparent,)
        return (traceparent, ("tracestate", self.context.tracestate))

    def retried(self, error: errors.ExpertmeshError, attempts: int, pause: float) -> None:
        """`attempts` were made, and `pause` seconds after the last one, which failed, there is another."""
        if self._span is None:
            return
        attributes: Dict[str, Any] = {
            "expertmesh.attempt": attempts,
            "expertmesh.pause": pause,
            "rpc.status_code": error.code.name,
        }
        if error.reason:
            attributes["expertmesh.reason"] = error.reason
        try:
            self._span.add_event("expertmesh.retry", attributes)
        except Exception:
            _LOGGER.warning("a span's event was lost", exc_info=True)

    def end(self, error: Optional[BaseException] = None) -> None:
        """error: what the request ended with; None: its answer is there. Only the first call counts."""
        span, self._span = self._span, None
        if span is None:
            return
        try:
            self._end(span, error)
        except Exception:
            _LOGGER.warning("a span was lost", exc_info=True)

    @staticmethod
    def _end(span: Any, error: Optional[BaseException]) -> None:
        if span.is_recording():
            span.set_attribute("rpc.status_code", _code(error))
            if error is not None:
                trace = sys.modules["opentelemetry.trace"]
                span.set_attribute("error.type", _code(error))
                if isinstance(error, errors.ExpertmeshError):
                    span.set_status(trace.StatusCode.ERROR, error.message)
                    if error.reason:
                        span.set_attribute("expertmesh.reason", error.reason)
                else:
                    span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        span.end()


def _code(error: Optional[BaseException]) -> str:
    if error is None:
        return "OK"
    if isinstance(error, errors.ExpertmeshError):
        return str(error.code.name)
    # Ctrl-C, or the end of an asyncio task: the caller gave the request up.
    return "UNKNOWN" if isinstance(error, Exception) else "CANCELLED"


class Tracer:
    """Makes the spans of a client. address: its gRPC target. Thread-safe."""

    def __init__(self, address: str) -> None:
        self._fixed: Dict[str, Any] = {"rpc.system.name": "grpc", **_server(address)}
        # A provider of tracers, and its tracer: the program may set one later.
        self._known: Tuple[Any, Any] = None, None

    def begin(self, method: str, request: Any, asked: Optional[TraceContext]) -> CallSpan:
        """The span of one request, and its context in `request` where that has room for it.

        method: "package.Service/Method". asked: the context that the caller gave, which is then the parent
            instead of the current span.
        """
        span, context = None, asked
        if "opentelemetry.trace" in sys.modules:
            try:
                span, context = self._begin(method, request, asked)
            except Exception:
                _LOGGER.warning("a request goes without a span", exc_info=True)
        if context is not None:
            context = context._replace(tracestate=trace_context.bounded(context.tracestate))
            if isinstance(request, router_pb2.ForwardRequest):
                request.traceparent = context.traceparent
                request.tracestate = context.tracestate
        return CallSpan(span, context)

    def _begin(
        self, method: str, request: Any, asked: Optional[TraceContext]
    ) -> Tuple[Any, Optional[TraceContext]]:
        # Waits where another thread is importing it.
        from opentelemetry import trace

        from expertmesh import __version__

        provider = trace.get_tracer_provider()
        known, tracer = self._known
        if provider is not known:
            tracer = trace.get_tracer("expertmesh", __version__, provider)
            self._known = provider, tracer
        attributes = {**self._fixed, "rpc.method": method}
        if isinstance(request, router_pb2.ForwardRequest):
            attributes["expertmesh.layer"] = request.layer
            attributes["expertmesh.tokens"] = request.hidden_states.shape[0]
        parent = None if asked is None else trace.set_span_in_context(_remote(trace, asked))
        span = tracer.start_span(method, parent, trace.SpanKind.CLIENT, attributes)
        context = span.get_span_context()
        # Without an SDK the span stands for its parent.
        if not context.is_valid or (asked is not None and context.span_id == asked.span_id):
            return span, asked
        flags = context.trace_flags & (trace_context.SAMPLED | trace_context.RANDOM_TRACE_ID)
        tracestate = context.trace_state.to_header()
        return span, TraceContext(context.trace_id, context.span_id, flags, tracestate)


def _remote(trace: Any, asked: TraceContext) -> Any:
    """A span of elsewhere, as a parent."""
    return trace.NonRecordingSpan(
        trace.SpanContext(
            trace_id=asked.trace_id,
            span_id=asked.span_id,
            is_remote=True,
            trace_flags=trace.TraceFlags(asked.flags),
            trace_state=trace.TraceState.from_header([asked.tracestate]),
        )
    )


def _server(address: str) -> Dict[str, Any]:
    match = _TARGET.fullmatch(address)
    if match is None:
        # A list of addresses, a socket's path or a name without a port.
        return {"server.address": address}
    return {"server.address": match[1].strip("[]"), "server.port": int(match[2])}
