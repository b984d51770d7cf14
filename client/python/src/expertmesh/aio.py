"""The asyncio client: the methods of `Client`, awaited."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import (
    Any,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)

import grpc
import grpc.aio

from expertmesh import codec, errors
from expertmesh.codec import ManyItem
from expertmesh.methods import Answer, Call, UnaryMethods
from expertmesh.types import ForwardOptions, StreamAnswer
from expertmesh.v1 import router_pb2

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
    ) -> None:
        self._timeout = timeout
        options = list(codec.CHANNEL_OPTIONS) + list(options)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        super().__init__(self._channel)

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
        stream = _AsyncStream(requests, options, self._timeout, max_in_flight)
        async for answer in stream.run(self._router.ForwardStream):
            yield answer

    async def _perform(self, prepare: Callable[[], Call[Answer]]) -> Answer:
        call = prepare()
        timeout = self._timeout if call.timeout is None else call.timeout
        try:
            response = await call.stub(call.request, timeout=timeout)
        except grpc.RpcError as error:
            return call.fail(errors.from_rpc_error(error))
        except grpc.aio.UsageError as error:
            # gRPC's way to say that the channel was closed.
            raise errors.Cancelled(str(error)) from None
        return call.read(response)


async def _iterate(requests: Requests) -> AsyncIterator[ManyItem]:
    if isinstance(requests, AsyncIterable):
        async for item in requests:
            yield item
    else:
        for item in requests:
            yield item


class _AsyncStream:
    """One forward_many call: a task writes requests while the caller reads answers."""

    def __init__(
        self,
        requests: Requests,
        options: ForwardOptions,
        timeout: Optional[float],
        max_in_flight: int,
    ) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        self._options = options
        self._timeout = timeout
        self._room = asyncio.Semaphore(max_in_flight)
        self._in_flight: Dict[int, Tuple[int, codec.Shape]] = {}
        self._failed: List[StreamAnswer] = []

    async def _write(self, call: Any) -> None:
        index = 0
        try:
            async for item in _iterate(self._source):
                await self._room.acquire()
                layer = item[0]
                try:
                    request, shape = codec.encode_item(item, self._options, self._timeout, index)
                except errors.ExpertmeshError as error:
                    self._failed.append(StreamAnswer(index, layer, None, error))
                    self._room.release()
                else:
                    self._in_flight[index] = (layer, shape)
                    await call.write(request)
                index += 1
        finally:
            await call.done_writing()

    def _answer(self, response: router_pb2.ForwardResponse) -> StreamAnswer:
        entry = self._in_flight.pop(response.request_id, None)
        if entry is None:
            raise errors.Internal(f"the router answered request {response.request_id}, never sent")
        self._room.release()
        layer, shape = entry
        try:
            result = codec.decode_response(response, shape)
        except errors.ExpertmeshError as error:
            return StreamAnswer(response.request_id, layer, None, error)
        return StreamAnswer(response.request_id, layer, result, None)

    def _take_failed(self) -> List[StreamAnswer]:
        failed, self._failed = self._failed, []
        return failed

    async def run(self, method: Any) -> AsyncIterator[StreamAnswer]:
        call = method()
        writer = asyncio.create_task(self._write(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                for failed in self._take_failed():
                    yield failed
                yield self._answer(response)
            # An error of the stream itself comes before one that it caused in the writer.
            code = await call.code()
            if code != grpc.StatusCode.OK:
                raise errors.from_code(code, await call.details() or "")
            await writer
            for failed in self._take_failed():
                yield failed
            if self._in_flight:
                raise errors.Internal(
                    f"the router ended the stream before answering {sorted(self._in_flight)}"
                )
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error) from None
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
