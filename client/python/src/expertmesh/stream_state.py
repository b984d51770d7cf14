"""The requests of one forward_many, over one call after the other: what is to be sent, what has no answer yet,
and what is sent again. Free of I/O and of locks; both clients use it."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Deque, Dict, List, Optional, Tuple

import grpc

from expertmesh import codec, errors, trace_context
from expertmesh.codec import ManyItem
from expertmesh.retry import RetryPolicy, time_limit
from expertmesh.tracing import CallSpan, Tracer
from expertmesh.types import ForwardOptions, StreamAnswer
from expertmesh.v1 import router_pb2

# Seconds of silence before a heartbeat: less than the 15 after which proxies end idle streams.
HEARTBEAT_SECONDS = 10.0

_METHOD = "expertmesh.v1.Router/ForwardStream"

# Without a reason these say nothing of the requests. Each has a deadline of its own, the stream has none: a
# proxy ended it. And a router that ends it since answers were left unread can send no reason past these.
_ENDS_A_STREAM_ONLY = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclasses.dataclass
class _Request:
    layer: int
    shape: codec.Shape
    message: router_pb2.ForwardRequest
    deadline: Optional[float]  # By time.monotonic().
    span: CallSpan
    attempts: int = 0  # Times that it was sent.


class StreamState:
    """Each request is answered once, whatever happens to calls.

    options, timeout: of requests that bring none.
    """

    def __init__(
        self,
        options: ForwardOptions,
        timeout: Optional[float],
        policy: RetryPolicy,
        tracer: Tracer,
    ) -> None:
        self._options = options
        self._timeout = timeout
        self._policy = policy
        self._tracer = tracer
        self._next_index = 0
        self._in_flight: Dict[int, _Request] = {}
        self._to_send: Deque[int] = collections.deque()
        self._later: List[Tuple[float, int]] = []  # When, index.
        self._failures = 0  # Calls that ended since the last answer.
        # Answers of requests that could not be sent, or not once more.
        self.failed: List[StreamAnswer] = []
        self.source_done = False

    @property
    def finished(self) -> bool:
        """Nothing is in flight, nor will be."""
        return self.source_done and not self._in_flight

    def add(self, item: ManyItem) -> bool:
        """Takes the next request, whose span begins, in the context of the caller. False when it failed already."""
        index, layer = self._next_index, item[0]
        self._next_index += 1
        options = item[2] if len(item) > 2 else self._options
        deadline = None
        try:
            message, shape = codec.encode_request(layer, item[1], options, request_id=index)
            limit = time_limit(self._timeout if options.timeout is None else options.timeout)
            if limit is not None:
                message.timeout_us = max(1, int(limit * 1e6))
                deadline = time.monotonic() + limit
        except errors.ExpertmeshError as error:
            self.failed.append(StreamAnswer(index, layer, None, error))
            return False
        asked = trace_context.read(options.traceparent, options.tracestate)
        span = self._tracer.begin(_METHOD, message, asked)
        self._in_flight[index] = _Request(layer, shape, message, deadline, span)
        self._to_send.append(index)
        return True

    def next_message(self) -> Optional[router_pb2.ForwardRequest]:
        """What is to be sent now."""
        now = time.monotonic()
        self._to_send.extend(index for when, index in self._later if when <= now)
        self._later = [(when, index) for when, index in self._later if when > now]
        if not self._to_send:
            return None
        request = self._in_flight[self._to_send.popleft()]
        request.attempts += 1
        if request.attempts > 1 and request.deadline is not None:
            request.message.timeout_us = max(1, int((request.deadline - now) * 1e6))
        return request.message

    def seconds_to_wait(self) -> float:
        """Until something may be sent that is not yet, or a heartbeat is due."""
        due = min((when for when, _ in self._later), default=float("inf"))
        return max(0.0, min(HEARTBEAT_SECONDS, due - time.monotonic()))

    def take(self, response: router_pb2.ForwardResponse) -> Optional[StreamAnswer]:
        """The answer that a response is; None when there is none yet: a heartbeat, or its request is
        sent again."""
        self._failures = 0
        if response.heartbeat:
            return None
        index = response.request_id
        request = self._in_flight.get(index)
        if request is None:
            raise errors.Internal(f"the router answered request {index}, never sent")
        if response.status.code != 0:
            failed = errors.from_status(response.status)
            pause = self._policy.after(failed, request.attempts)
            when = time.monotonic() + (pause or 0.0)
            if pause is not None and (request.deadline is None or when < request.deadline):
                request.span.retried(failed, request.attempts, pause)
                self._later.append((when, index))
                return None
        self._policy.answered()
        del self._in_flight[index]
        try:
            with request.span:
                result = codec.decode_response(response, request.shape)
        except errors.ExpertmeshError as error:
            return StreamAnswer(index, request.layer, None, error)
        return StreamAnswer(index, request.layer, result, None)

    def reopen(self, error: errors.ExpertmeshError) -> float:
        """Seconds until another call is made after one that ended with `error`; then everything in
        flight is to be sent. Raises `error` when another call would be no use."""
        lost = error
        if not error.reason and error.code in _ENDS_A_STREAM_ONLY:
            lost = errors.Unavailable(error.message)
        self._failures += 1
        pause = self._policy.after(lost, self._failures)
        if pause is None:
            raise error
        for index, request in list(self._in_flight.items()):
            # What was sent too often already may be why calls end.
            if request.attempts >= self._policy.max_attempts:
                del self._in_flight[index]
                request.span.end(error)
                self.failed.append(StreamAnswer(index, request.layer, None, error))
            elif request.attempts:
                request.span.retried(error, request.attempts, pause)
        self._later = []
        self._to_send = collections.deque(sorted(self._in_flight))
        return pause

    def abandon(self, error: Optional[BaseException]) -> None:
        """No more is answered. error: why; None where nothing is in flight."""
        for request in self._in_flight.values():
            request.span.end(error)


def heartbeat() -> router_pb2.ForwardRequest:
    """A sign of life."""
    return router_pb2.ForwardRequest(heartbeat=True)
