"""The asyncio client: the methods of `Client`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import sys
from types import TracebackType
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
)

import grpc
import grpc.aio

from expertmesh import codec, errors
from expertmesh.codec import ManyItem
from expertmesh.methods import Answer, Call, UnaryMethods
from expertmesh.origin import Origin
from expertmesh.retry import Attempts, RetryPolicy, Watch
from expertmesh.stream_state import StreamState, heartbeat
from expertmesh.types import ForwardOptions, StreamAnswer
from expertmesh.v1 import balance_pb2, control_pb2, placement_pb2, router_pb2

Item = TypeVar("Item")

Requests = Union[Iterable[ManyItem], AsyncIterable[ManyItem]]


class AsyncClient(UnaryMethods):
    """Calls a router from asyncio. Belongs to the event loop it was made in.

    Arguments, results and errors are those of `Client`.
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
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        super().__init__(self._channel, address)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in flight end with `Cancelled`."""
        await self._channel.close()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, for stubs of `expertmesh.v1` that this class does not wrap."""
        return self._channel

    async def forward_many(
        self,
        requests: Requests,
        options: ForwardOptions = ForwardOptions(),
        *,
        max_in_flight: int = 32,
    ) -> AsyncIterator[StreamAnswer]:
        """Sends many (layer, array) pairs over one stream and yields answers as they come.

        As Client.forward_many; `requests` may be an asynchronous iterable as well.
        """
        self._origin.check_process()
        state = StreamState(options, self._timeout, self._policy, self._tracer)
        stream = _AsyncStream(requests, state, max_in_flight)
        async with _closing(stream.run(self._router.ForwardStream)) as answers:
            async for answer in answers:
                yield answer

    def watch_topology(self) -> AsyncIterator[control_pb2.Topology]:
        """Yields the topology now and after every change. As Client.watch_topology."""
        self._origin.check_process()
        return self._watch(
            self._control.WatchTopology,
            control_pb2.WatchTopologyRequest(),
            operator.attrgetter("topology"),
        )

    def watch_balance(self) -> AsyncIterator[balance_pb2.Balance]:
        """Yields the balance now and after every change. As Client.watch_balance."""
        self._origin.check_process()
        return self._watch(
            self._control.WatchBalance,
            balance_pb2.WatchBalanceRequest(),
            operator.attrgetter("balance"),
        )

    def watch_placement(self) -> AsyncIterator[placement_pb2.PlacementState]:
        """Yields the placement, without its plan, now and after every change. As Client.watch_placement."""
        self._origin.check_process()
        return self._watch(
            self._control.WatchPlacement,
            placement_pb2.WatchPlacementRequest(),
            operator.attrgetter("placement"),
        )

    async def _watch(
        self, stub: Any, request: Any, read: Callable[[Any], Any]
    ) -> AsyncIterator[Any]:
        watch = Watch(self._policy)
        while True:
            call = stub(request)
            try:
                async for response in call:
                    if watch.is_news(read(response)):
                        yield read(response)
                ended: errors.ExpertmeshError = errors.Unavailable("the router ended the watch")
            except grpc.RpcError as error:
                ended = errors.from_rpc_error(error)
            finally:
                call.cancel()
            await asyncio.sleep(watch.pause_after(ended))

    async def _perform(self, prepare: Callable[[], Call[Answer]]) -> Answer:
        call = prepare()
        timeout = self._timeout if call.timeout is None else call.timeout
        attempts = Attempts(self._policy, timeout, call.repeatable)
        stub = self._stubs[call.method]
        with self._tracer.begin(call.method, call.request, call.trace) as span:
            while True:
                try:
                    response = await stub(
                        call.request, timeout=attempts.next_timeout(), metadata=span.metadata
                    )
                except grpc.RpcError as error:
                    failed = errors.from_rpc_error(error)
                    pause = attempts.pause_after(failed)
                    if pause is None:
                        span.end(failed)
                        return call.fail(failed)
                    span.retried(failed, attempts.made, pause)
                    await asyncio.sleep(pause)
                except grpc.aio.UsageError as error:
                    # gRPC's way to say that the channel was closed.
                    raise errors.Cancelled(str(error)) from None
                else:
                    self._policy.answered()
                    return call.read(response)


async def _iterate(requests: Requests) -> AsyncIterator[ManyItem]:
    if isinstance(requests, AsyncIterable):
        async for item in requests:
            yield item
    else:
        for item in requests:
            yield item


@contextlib.asynccontextmanager
async def _closing(answers: AsyncGenerator[Item, None]) -> AsyncIterator[AsyncIterator[Item]]:
    """Cleans up when the caller leaves: by itself, Python would do so later, or at the end of the loop not at all."""
    try:
        yield answers
    finally:
        await answers.aclose()


class _CallEnded(Exception):
    """A call ended before all was answered."""

    def __init__(self, error: errors.ExpertmeshError) -> None:
        super().__init__()
        self.error = error


def _seen_by_reader(
    code: grpc.StatusCode, message: Optional[str], metadata: Any
) -> errors.ExpertmeshError:
    """How a call ended. grpc.aio forgets what the server said when a message is being written just then."""
    if code is grpc.StatusCode.INTERNAL and message == "Internal error from Core":
        return errors.Unavailable("the call ended while a request was written")
    return errors.from_call(code, message, metadata)


class _AsyncStream:
    """One forward_many call: one task reads the source, one for each call writes what is to be sent, the
    caller takes the answers."""

    def __init__(self, requests: Requests, state: StreamState, max_in_flight: int) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        self._room = asyncio.Semaphore(max_in_flight)
        self._state = state
        self._changed = asyncio.Event()

    async def _read_source(self) -> None:
        try:
            async for item in _iterate(self._source):
                await self._room.acquire()
                if not self._state.add(item):
                    self._room.release()
                self._changed.set()
        finally:
            self._state.source_done = True
            self._changed.set()

    async def _write(self, call: Any) -> None:
        # Cancelling is not enough: before Python 3.12, wait_for may swallow it.
        while not self._state.finished and not call.done():
            self._changed.clear()
            message = self._state.next_message()
            if message is None:
                try:
                    await asyncio.wait_for(self._changed.wait(), self._state.seconds_to_wait())
                    continue
                except asyncio.TimeoutError:
                    message = self._state.next_message() or heartbeat()
            await call.write(message)
        await call.done_writing()

    def _take(self, response: Optional[router_pb2.ForwardResponse]) -> List[StreamAnswer]:
        """What there is to yield, in order."""
        answers, self._state.failed = self._state.failed, []
        answer = None if response is None else self._state.take(response)
        if answer is not None:
            self._room.release()
            answers.append(answer)
        self._changed.set()
        return answers

    async def _reopen(self, error: errors.ExpertmeshError) -> None:
        failed = len(self._state.failed)
        pause = self._state.reopen(error)
        for _ in range(len(self._state.failed) - failed):
            self._room.release()
        await asyncio.sleep(pause)

    async def _one_call(self, method: Any) -> AsyncGenerator[StreamAnswer, None]:
        """The answers of one call; raises what ended it, unless all is answered."""
        call = method()
        writer = asyncio.create_task(self._write(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                for answer in self._take(response):
                    yield answer
            code = await call.code()
            if code != grpc.StatusCode.OK:
                metadata = await call.trailing_metadata()
                raise _CallEnded(_seen_by_reader(code, await call.details(), metadata))
        except grpc.RpcError as error:
            ended = _seen_by_reader(error.code(), error.details(), error.trailing_metadata())
            raise _CallEnded(ended) from None
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        for answer in self._take(None):
            yield answer
        if not self._state.finished:
            raise _CallEnded(
                errors.Unavailable("the router ended the stream before all was answered")
            )

    async def run(self, method: Any) -> AsyncGenerator[StreamAnswer, None]:
        reader = asyncio.create_task(self._read_source())
        try:
            while True:
                try:
                    async with _closing(self._one_call(method)) as answers:
                        async for answer in answers:
                            yield answer
                    break
                except _CallEnded as ended:
                    await self._reopen(ended.error)
            await reader  # Raises what the source raised.
        finally:
            cause = sys.exc_info()[1]
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._state.abandon(cause)
