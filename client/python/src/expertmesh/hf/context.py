"""What a caller says around generate(): how much time it has, and which trace it belongs to.

Both are context variables: they hold for the code inside the `with`, in its thread or asyncio task.
`asyncio.to_thread` takes them along; for a thread of your own (or `loop.run_in_executor`) hand over
`contextvars.copy_context().run`.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from typing import Iterator, Optional

from expertmesh import errors

# time.monotonic() at which the caller's time is over.
_deadline: contextvars.ContextVar[Optional[float]] = contextvars.ContextVar(
    "expertmesh_deadline", default=None
)
_traceparent: contextvars.ContextVar[Optional[str]] = contextvars.ContextVar(
    "expertmesh_traceparent", default=None
)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """All calls into the mesh inside the `with` must be answered within `seconds` together.

    Afterwards the call in progress, or the next one, raises `expertmesh.DeadlineExceeded`. Of nested
    deadlines the earliest holds. Raises InvalidArgument when `seconds` is negative or not a number.
    """
    if not seconds >= 0:
        raise errors.InvalidArgument(f"deadline is {seconds} s; use 0 or more")
    outer = _deadline.get()
    mine = time.monotonic() + seconds
    token = _deadline.set(mine if outer is None else min(mine, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextlib.contextmanager
def trace(traceparent: str) -> Iterator[None]:
    """Calls into the mesh inside the `with` carry this W3C trace context; the mesh makes no spans of it.

    It goes before the current span of OpenTelemetry, which is used when there is no `trace`.
    """
    token = _traceparent.set(traceparent)
    try:
        yield
    finally:
        _traceparent.reset(token)


def time_left(timeout: Optional[float], layer: int) -> Optional[float]:
    """Seconds for the next call: the deadline's rest, at most `timeout`; None: neither is set.

    Raises DeadlineExceeded when the deadline has passed.
    """
    until = _deadline.get()
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise errors.DeadlineExceeded(
            f"the deadline passed {-left:.3f} s before layer {layer} was called"
        )
    return left if timeout is None else min(left, timeout)


def current_traceparent() -> Optional[str]:
    """The one that `trace` set, else that of OpenTelemetry's current span, else None."""
    explicit = _traceparent.get()
    if explicit is not None:
        return explicit
    # Without an import: a span can be current only where its owner imported OpenTelemetry.
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return None
    span = opentelemetry.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
