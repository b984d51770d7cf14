"""What a caller says around generate(): how much time it has, and which trace it belongs to.

Both are context variables: they hold for the code inside the `with`, in its thread or asyncio task.
`asyncio.to_thread` takes them along; for a thread of your own (or `loop.run_in_executor`) hand over
`contextvars.copy_context().run`.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import Iterator, Optional, Tuple

from expertmesh import errors

# time.monotonic() at which the caller's time is over.
_deadline: contextvars.ContextVar[Optional[float]] = contextvars.ContextVar(
    "expertmesh_deadline", default=None
)
_trace: contextvars.ContextVar[Tuple[Optional[str], Optional[str]]] = contextvars.ContextVar(
    "expertmesh_trace", default=(None, None)
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
def trace(traceparent: str, tracestate: Optional[str] = None) -> Iterator[None]:
    """Calls into the mesh inside the `with` belong to this W3C trace context, and not to OpenTelemetry's current
    span, which counts when there is no `trace`, or `traceparent` is not valid."""
    token = _trace.set((traceparent, tracestate))
    try:
        yield
    finally:
        _trace.reset(token)


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


def current_trace() -> Tuple[Optional[str], Optional[str]]:
    """The traceparent and tracestate that `trace` set."""
    return _trace.get()
