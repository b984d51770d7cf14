"""The blocking client."""

from __future__ import annotations

import contextvars
import operator
import sys
import threading
import time
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple, Type

import grpc

from expertmesh import codec, errors
from expertmesh.codec import ManyItem
from expertmesh.methods import Answer, Call, UnaryMethods
from expertmesh.origin import Origin
from expertmesh.retry import Attempts, RetryPolicy, Watch
from expertmesh.stream_state import StreamState, heartbeat
from expertmesh.types import ForwardOptions, StreamAnswer
from expertmesh.v1 import balance_pb2, control_pb2, placement_pb2, router_pb2


class Client(UnaryMethods):
    """Calls a router. Thread-safe; make one and share it.

    address: "host:port" of the router (any gRPC target, "dns:///name:port" too).
    timeout: seconds that a call may take unless it says otherwise; None or infinity: no limit.
    credentials: from `grpc.ssl_channel_credentials`; None: no encryption.
    options: further gRPC channel arguments, say ("grpc.enable_http_proxy", 1) to go through the http_proxy
        of the environment.
    max_attempts: times that a request is sent at most, when it fails for a reason that the same request
        may not meet again (errors.proto says which), or its connection is lost; 1: once. Later attempts
        wait longer, within the timeout. What is sent again comes to the same as once: `forward` changes
        nothing, and what sets something sets it to the same. `apply_placement` does not, and is not sent
        again when it is not known what became of it.

    A copy, or what is unpickled, is another client with a connection of its own; one with credentials cannot
    be copied. A forked process makes its own: methods of its parent's raise `FailedPrecondition`.

    Every method raises `ExpertmeshError`: `Unavailable` when the router cannot be reached,
    `DeadlineExceeded` when the timeout passes, and what the method itself names.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: Optional[float] = 30.0,
        credentials: Optional[grpc.ChannelCredentials] = None,
        options: Sequence[Tuple[str, Any]] = (),
        max_attempts: int = 5,
    ) -> None:
        arguments = {"timeout": timeout, "options": tuple(options), "max_attempts": max_attempts}
        self._origin = Origin(type(self), address, credentials, arguments)
        self._timeout = timeout
        self._policy = RetryPolicy(max_attempts)
        options = list(codec.CHANNEL_OPTIONS) + list(options)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        super().__init__(self._channel, address)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in flight end with `Cancelled`."""
        self._channel.close()

    @property
    def channel(self) -> grpc.Channel:
        """The connection, for stubs of `expertmesh.v1` that this class does not wrap."""
        return self._channel

    def forward_many(
        self,
        requests: Iterable[ManyItem],
        options: ForwardOptions = ForwardOptions(),
        *,
        max_in_flight: int = 32,
    ) -> Iterator[StreamAnswer]:
        """Sends many (layer, array) pairs over one stream and yields answers as they come.

        Answers come in any order; `StreamAnswer.index` says which request each belongs to. A request
        that fails has its error in its own answer and disturbs no other. `options` are those of every
        request whose item is (layer, array); an item (layer, array, options) has its own instead.
        `requests` is read in a thread of its own, at most `max_in_flight` ahead of the answers. A
        timeout holds for each request by itself. Leaving the loop early cancels what is in flight. A
        stream that ends for no fault of the requests (the router left, a connection broke, a proxy
        thought it idle) is opened again, and what has no answer is sent again.

        Raises ExpertmeshError when the stream breaks and cannot be opened again, and whatever
        `requests` raises.
        """
        self._origin.check_process()
        state = StreamState(options, self._timeout, self._policy, self._tracer)
        return _Stream(requests, state, max_in_flight).run(self._router.ForwardStream)

    def watch_topology(self) -> Iterator[control_pb2.Topology]:
        """Yields the topology now and after every change, for as long as you read. A watch that is cut is
        made again; leaving the loop ends it.

        Raises ExpertmeshError when the router cannot be reached any more.
        """
        self._origin.check_process()
        return self._watch(
            self._control.WatchTopology,
            control_pb2.WatchTopologyRequest(),
            operator.attrgetter("topology"),
        )

    def watch_balance(self) -> Iterator[balance_pb2.Balance]:
        """Yields the balance now and after every change; that the counts of load have changed is told when
        the router looks at them. Otherwise as `watch_topology`.
        """
        self._origin.check_process()
        return self._watch(
            self._control.WatchBalance,
            balance_pb2.WatchBalanceRequest(),
            operator.attrgetter("balance"),
        )

    def watch_placement(self) -> Iterator[placement_pb2.PlacementState]:
        """Yields the placement, without its plan, now and after every change, as `watch_balance`."""
        self._origin.check_process()
        return self._watch(
            self._control.WatchPlacement,
            placement_pb2.WatchPlacementRequest(),
            operator.attrgetter("placement"),
        )

    def _watch(self, stub: Any, request: Any, read: Callable[[Any], Any]) -> Iterator[Any]:
        watch = Watch(self._policy)
        while True:
            call = stub(request)
            try:
                for response in call:
                    if watch.is_news(read(response)):
                        yield read(response)
                ended: errors.ExpertmeshError = errors.Unavailable("the router ended the watch")
            except grpc.RpcError as error:
                ended = errors.from_rpc_error(error)
            finally:
                call.cancel()
            time.sleep(watch.pause_after(ended))

    def _perform(self, prepare: Callable[[], Call[Answer]]) -> Answer:
        call = prepare()
        timeout = self._timeout if call.timeout is None else call.timeout
        attempts = Attempts(self._policy, timeout, call.repeatable)
        stub = self._stubs[call.method]
        with self._tracer.begin(call.method, call.request, call.trace) as span:
            while True:
                try:
                    response = stub(
                        call.request, timeout=attempts.next_timeout(), metadata=span.metadata
                    )
                except grpc.RpcError as error:
                    failed = errors.from_rpc_error(error)
                    pause = attempts.pause_after(failed)
                    if pause is None:
                        span.end(failed)
                        return call.fail(failed)
                    span.retried(failed, attempts.made, pause)
                    time.sleep(pause)
                except ValueError as error:
                    # gRPC's way to say that the channel was closed.
                    raise errors.Cancelled(str(error)) from None
                else:
                    self._policy.answered()
                    return call.read(response)


class _Stream:
    """One forward_many call. Three threads: one reads the source, gRPC's write what is to be sent
    (`_messages`, one for each call), the caller's takes the answers (`run`)."""

    def __init__(
        self, requests: Iterable[ManyItem], state: StreamState, max_in_flight: int
    ) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        # So that what `requests` does, and the spans of its items, are in the caller's context.
        self._context = contextvars.copy_context()
        self._room = threading.Semaphore(max_in_flight)
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._state = state
        self._source_error: Optional[BaseException] = None
        self._call = 0  # Number of the call that may send.
        self._closed = False

    def _read_source(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                with self._changed:
                    if self._closed:
                        return
                    if not self._state.add(item):
                        self._room.release()
                    self._changed.notify_all()
        except Exception as error:
            # The caller's thread raises it after the last answer.
            self._source_error = error
        finally:
            with self._changed:
                self._state.source_done = True
                self._changed.notify_all()

    def _messages(self, call: int) -> Iterator[router_pb2.ForwardRequest]:
        """What call number `call` sends, until all is answered or another call has its place."""
        while True:
            with self._changed:
                if self._closed or self._call != call or self._state.finished:
                    return
                message = self._state.next_message()
                if message is None and not self._changed.wait(self._state.seconds_to_wait()):
                    message = self._state.next_message() or heartbeat()
            if message is not None:
                yield message

    def _take(self, response: Optional[router_pb2.ForwardResponse]) -> List[StreamAnswer]:
        """What there is to yield, in order."""
        with self._changed:
            answers, self._state.failed = self._state.failed, []
            answer = None if response is None else self._state.take(response)
            if answer is not None:
                self._room.release()
                answers.append(answer)
            self._changed.notify_all()
        return answers

    def _reopen(self, error: errors.ExpertmeshError) -> None:
        with self._changed:
            failed = len(self._state.failed)
            pause = self._state.reopen(error)
            for _ in range(len(self._state.failed) - failed):
                self._room.release()
            self._call += 1
            self._changed.notify_all()
        time.sleep(pause)

    def run(self, method: Any) -> Iterator[StreamAnswer]:
        read = (self._read_source,)
        threading.Thread(target=self._context.run, args=read, daemon=True).start()
        call = None
        try:
            while True:
                call = method(self._messages(self._call))
                try:
                    for response in call:
                        yield from self._take(response)
                    lost = errors.Unavailable("the router ended the stream before all was answered")
                except grpc.RpcError as error:
                    lost = errors.from_rpc_error(error)
                yield from self._take(None)
                if self._state.finished:
                    break
                self._reopen(lost)
            if self._source_error is not None:
                raise self._source_error
        finally:
            # Wakes those that wait for room or for something to send, so that their threads end.
            with self._changed:
                self._closed = True
                self._state.abandon(sys.exc_info()[1])
                self._changed.notify_all()
            self._room.release()
            if call is not None:
                call.cancel()
