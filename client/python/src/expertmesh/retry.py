"""Which requests that failed are sent again, and when.

What may be sent again stands in the contract (expertmesh/v1/errors.proto); how often, and how much
later, is decided here, as in the C++ client.
"""

from __future__ import annotations

import math
import random
import threading
import time
from typing import Dict, Optional, Union

import grpc

from expertmesh import errors
from expertmesh.v1 import balance_pb2, control_pb2, errors_pb2, placement_pb2

# Seconds between attempts on other connections: the first is made at once where the router said so.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_JITTER = 0.2
# Retries that are left, so that a mesh in trouble is not asked more than it was before.
_FULL_BUDGET = 1000.0
_EARNED_BY_ANSWER = 0.2

# An error without a reason comes from gRPC or from a proxy. These codes then mean that the connection, or the
# call on it, was lost or refused: proxies reset a call whose router has gone, for which HTTP/2 has no code of its
# own, or answer with a status of HTTP; a server that stops cancels what it has not begun.
LOST_CALL = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
)

_PREFIX = "ERROR_REASON_"
_POLICIES: Dict[str, errors_pb2.ErrorPolicy] = {
    value.name[len(_PREFIX) :]: value.GetOptions().Extensions[errors_pb2.policy]
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values
}


def _grown(first: float, attempts: int) -> float:
    """`first`, twice as long with each attempt, up to the longest pause or what `first` is itself."""
    return max(first, min(first * 2 ** min(attempts - 1, 16), _LONGEST_PAUSE))


def is_lost_call(error: errors.ExpertmeshError) -> bool:
    """Whether the error says nothing of what became of the request: the call, or its answer, was lost."""
    return error.reason not in _POLICIES and error.code in LOST_CALL


def pause_after(error: errors.ExpertmeshError, attempts: int) -> Optional[float]:
    """Seconds before the next of `attempts`; None where no other would go better."""
    policy = _POLICIES.get(error.reason)
    if policy is None:
        return _grown(_FIRST_PAUSE, attempts) if is_lost_call(error) else None
    if policy.retry == errors_pb2.RETRY_ELSEWHERE:
        return 0.0 if attempts == 1 else _grown(_FIRST_PAUSE, attempts - 1)
    if policy.retry == errors_pb2.RETRY_LATER:
        return _grown(max(error.retry_delay or 0.0, 0.001), attempts)
    return None


class RetryPolicy:
    """Decides for all requests of a client. Thread-safe.

    max_attempts: times that one request is sent at most; 1: never again.
    """

    def __init__(self, max_attempts: int) -> None:
        if max_attempts < 1:
            raise errors.InvalidArgument(f"max_attempts is {max_attempts}; use 1 or more")
        self.max_attempts = max_attempts
        self._lock = threading.Lock()
        self._budget = _FULL_BUDGET

    def after(self, error: errors.ExpertmeshError, attempts: int) -> Optional[float]:
        """Seconds until a request is sent again that was sent `attempts` times and failed, the last time
        with `error`; None: the error is final."""
        pause = pause_after(error, attempts) if attempts < self.max_attempts else None
        if pause is None:
            return None
        with self._lock:
            if self._budget < 1:
                return None
            self._budget -= 1
        # Callers that failed together do not come back together.
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)

    def answered(self) -> None:
        """A request was answered: what has been spent on others comes back."""
        with self._lock:
            self._budget = min(_FULL_BUDGET, self._budget + _EARNED_BY_ANSWER)


# Letters of a wrong timeout that an error shows.
_MOST_SHOWN = 100
# Seconds; what is longer gRPC cannot count, and takes for a time that is over.
_LONGEST_TIMEOUT = 10 * 365 * 24 * 3600.0


def time_limit(timeout: Optional[float]) -> Optional[float]:
    """Seconds that a request may take; None, for a timeout of None or infinity, too: no limit.

    Raises InvalidArgument for what is no number, DeadlineExceeded for a time that has passed."""
    if timeout is None:
        return None
    try:
        # float32 and its like count in steps of a minute when a time of day is added.
        seconds = math.nan if isinstance(timeout, (str, bytes)) else float(timeout)
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
        shown = repr(timeout)[:_MOST_SHOWN]
        raise errors.InvalidArgument(f"timeout is {shown}; use seconds, or None for no limit")
    if seconds <= 0:
        raise errors.DeadlineExceeded(f"timeout is {seconds:g}: no time is left; use more than 0 seconds")
    return None if seconds > _LONGEST_TIMEOUT else seconds


class Attempts:
    """The attempts of one call, within its timeout in seconds (None: no limit).

    repeatable: carried out twice, the request comes to the same as once. Otherwise it is sent again only
        where the router said that it did nothing.

    made: attempts that were begun.
    """

    def __init__(
        self, policy: RetryPolicy, timeout: Optional[float], repeatable: bool = True
    ) -> None:
        self._policy = policy
        self._repeatable = repeatable
        limit = time_limit(timeout)
        self._deadline = None if limit is None else time.monotonic() + limit
        self.made = 0

    def next_timeout(self) -> Optional[float]:
        """Begins an attempt; returns the seconds that it may take."""
        self.made += 1
        return None if self._deadline is None else self._deadline - time.monotonic()

    def pause_after(self, error: errors.ExpertmeshError) -> Optional[float]:
        """Seconds before the next attempt; None: `error` is final."""
        if not self._repeatable and is_lost_call(error):
            return None
        pause = self._policy.after(error, self.made)
        if pause is None or self._deadline is None or time.monotonic() + pause < self._deadline:
            return pause
        return None


Watched = Union[control_pb2.Topology, balance_pb2.Balance, placement_pb2.PlacementState]


def _without_ages(state: Watched) -> Watched:
    """A copy without what changes while nothing happens."""
    copy = type(state)()
    copy.CopyFrom(state)  # type: ignore[arg-type]
    if isinstance(copy, placement_pb2.PlacementState):
        copy.ClearField("since_planned_ms")
        copy.ClearField("since_moved_ms")
        copy.moves.ClearField("bytes_per_second")
        return copy
    if isinstance(copy, balance_pb2.Balance):
        summary = copy.summary
        for router in copy.routers:
            router.ClearField("age_ms")
    else:
        summary = copy.balance
    for field in ("since_change_ms", "since_tick_ms"):
        summary.ClearField(field)  # type: ignore[arg-type]
    return copy


class Watch:
    """A watch over one call after the other: what is new, and when another call is made."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._last: Optional[Watched] = None

    def is_news(self, state: Watched) -> bool:
        """False for a heartbeat, which repeats what was said but for the time that has passed."""
        self._failures = 0
        known, self._last = self._last, _without_ages(state)
        return known != self._last

    def pause_after(self, error: errors.ExpertmeshError) -> float:
        """Seconds until another call; raises `error` when there is to be none."""
        self._failures += 1
        pause = self._policy.after(error, self._failures)
        if pause is None:
            raise error
        return pause
