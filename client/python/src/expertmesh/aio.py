"""The asyncio client: the methods of `Client`, awaited."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import (
    Any,
    AsyncIterable,
    AsyncIterator,
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
from expertmesh.codec import ArrayLike, DTypeLike, ManyItem
from expertmesh.types import ForwardResult, Health, StreamAnswer
from expertmesh.v1 import control_pb2, control_pb2_grpc, router_pb2, router_pb2_grpc

Requests = Union[Iterable[ManyItem], AsyncIterable[ManyItem]]


class AsyncClient:
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
        self._router = router_pb2_grpc.RouterStub(self._channel)
        self._control = control_pb2_grpc.ControlStub(self._channel)
        self._health = self._channel.unary_unary(
            codec.HEALTH_METHOD,
            request_serializer=codec.encode_health_request,
            response_deserializer=codec.decode_health_response,
        )

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

    async def forward(
        self,
        layer: int,
        array: ArrayLike,
        *,
        timeout: Optional[float] = None,
        return_routing: bool = False,
        output_dtype: DTypeLike = None,
        int8_hidden_states: bool = False,
        int8_output: bool = False,
        traceparent: Optional[str] = None,
        group_sizes: Optional[ArrayLike] = None,
        token_ids: Optional[ArrayLike] = None,
        routing_seed: Optional[int] = None,
    ) -> ForwardResult:
        """Computes the MoE block of `layer` for hidden states [..., d_model]; see Client.forward."""
        request, shape = codec.encode_request(
            layer,
            array,
            return_routing=return_routing,
            output_dtype=output_dtype,
            int8_hidden_states=int8_hidden_states,
            int8_output=int8_output,
            traceparent=traceparent,
            group_sizes=group_sizes,
            token_ids=token_ids,
            routing_seed=routing_seed,
        )
        response = await self._call(self._router.Forward, request, timeout)
        return codec.decode_response(response, shape)

    async def forward_many(
        self,
        requests: Requests,
        *,
        timeout: Optional[float] = None,
        return_routing: bool = False,
        output_dtype: DTypeLike = None,
        int8_hidden_states: bool = False,
        int8_output: bool = False,
        traceparent: Optional[str] = None,
        max_in_flight: int = 32,
    ) -> AsyncIterator[StreamAnswer]:
        """Sends many (layer, array) pairs over one stream and yields answers as they come.

        As Client.forward_many; `requests` may be an asynchronous iterable as well.
        """
        stream = _AsyncStream(
            requests,
            timeout=self._timeout if timeout is None else timeout,
            return_routing=return_routing,
            output_dtype=output_dtype,
            int8_hidden_states=int8_hidden_states,
            int8_output=int8_output,
            traceparent=traceparent,
            max_in_flight=max_in_flight,
        )
        async for answer in stream.run(self._router.ForwardStream):
            yield answer

    async def describe(
        self, *, timeout: Optional[float] = None
    ) -> router_pb2.DescribeModelResponse:
        """What the router serves: family, fingerprint, d_model, layers, limits."""
        result: router_pb2.DescribeModelResponse = await self._call(
            self._router.DescribeModel, router_pb2.DescribeModelRequest(), timeout
        )
        return result

    async def topology(self, *, timeout: Optional[float] = None) -> control_pb2.GetTopologyResponse:
        """The nodes, what each holds, the types on each link, and which experts are missing."""
        result: control_pb2.GetTopologyResponse = await self._call(
            self._control.GetTopology, control_pb2.GetTopologyRequest(), timeout
        )
        return result

    async def health(self, service: str = "", *, timeout: Optional[float] = None) -> Health:
        """grpc.health.v1 status of the router ("") or of one of its services."""
        try:
            result: Health = await self._call(self._health, service, timeout)
        except errors.NotFound:
            return Health.SERVICE_UNKNOWN
        return result

    async def _call(self, method: Any, request: Any, timeout: Optional[float]) -> Any:
        try:
            return await method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error) from None
        except grpc.aio.UsageError as error:
            # gRPC's way to say that the channel was closed.
            raise errors.Cancelled(str(error)) from None


async def _iterate(requests: Requests) -> AsyncIterator[ManyItem]:
    if isinstance(requests, AsyncIterable):
        async for item in requests:
            yield item
    else:
        for item in requests:
            yield item


class _AsyncStream:
    """One forward_many call: a task writes requests while the caller reads answers."""

    def __init__(self, requests: Requests, *, max_in_flight: int, **options: Any) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        self._options = options
        self._room = asyncio.Semaphore(max_in_flight)
        self._in_flight: Dict[int, Tuple[int, codec.Shape]] = {}
        self._failed: List[StreamAnswer] = []

    async def _write(self, call: Any) -> None:
        index = 0
        try:
            async for item in _iterate(self._source):
                await self._room.acquire()
                layer, array, own = codec.split_item(item)
                try:
                    request, shape = codec.encode_request(
                        layer, array, request_id=index, **self._options, **own
                    )
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
