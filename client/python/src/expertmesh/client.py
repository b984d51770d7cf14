"""The blocking client."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple, Type

import grpc

from expertmesh import codec, errors
from expertmesh.codec import ArrayLike, DTypeLike, ManyItem
from expertmesh.types import ForwardResult, Health, StreamAnswer
from expertmesh.v1 import control_pb2, control_pb2_grpc, router_pb2, router_pb2_grpc


class Client:
    """Calls a router. Thread-safe; make one and share it.

    address: "host:port" of the router (any gRPC target, "dns:///name:port" too).
    timeout: seconds that a call may take unless it says otherwise; None: no limit.
    credentials: from `grpc.ssl_channel_credentials`; None: no encryption.
    options: further gRPC channel arguments.

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
    ) -> None:
        self._timeout = timeout
        options = list(codec.CHANNEL_OPTIONS) + list(options)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._router = router_pb2_grpc.RouterStub(self._channel)
        self._control = control_pb2_grpc.ControlStub(self._channel)
        self._health = self._channel.unary_unary(
            codec.HEALTH_METHOD,
            request_serializer=codec.encode_health_request,
            response_deserializer=codec.decode_health_response,
        )

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

    def forward(
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
        """Computes the MoE block of `layer` for hidden states [..., d_model].

        array: float32, float16 or bfloat16 (`ml_dtypes.bfloat16`), numpy or torch; 0 tokens are fine.
        timeout: seconds; None: the client's.
        return_routing: also return which experts were used, with which weights.
        output_dtype: of the result ("float32", numpy or torch dtype); None: that of `array`. Not together with
            int8_output.
        int8_hidden_states, int8_output: let rows travel as int8, in blocks of 128 values with a float32 scale each: about
            half the bytes of the 16-bit types, and lossy. An output that came so is float32.
        traceparent: W3C trace context that goes along to the nodes; the mesh makes no spans of it.
        group_sizes: tokens of each group (a sequence, say), in order; they add up to the tokens. Routing
            that looks at more than one token (capacity, expert choice) looks at one group. None: all
            tokens are one group.
        token_ids: one for each token, of any shape; layers routed by hash need them.
        routing_seed: of everything random in routing; None: the router's own. Same seed, same
            request: same answer.

        Raises InvalidArgument (wrong layer, d_model, dtype, group_sizes or token_ids), Unavailable (no ready node holds an
        expert that is needed; the message names layer and experts), ResourceExhausted (queue full, or
        message over the router's limit), OutOfRange (a finite value of the result is beyond
        output_dtype), DeadlineExceeded.
        """
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
        response = self._call(self._router.Forward, request, timeout)
        return codec.decode_response(response, shape)

    def forward_many(
        self,
        requests: Iterable[ManyItem],
        *,
        timeout: Optional[float] = None,
        return_routing: bool = False,
        output_dtype: DTypeLike = None,
        int8_hidden_states: bool = False,
        int8_output: bool = False,
        traceparent: Optional[str] = None,
        max_in_flight: int = 32,
    ) -> Iterator[StreamAnswer]:
        """Sends many (layer, array) pairs over one stream and yields answers as they come.

        Answers come in any order; `StreamAnswer.index` says which request each belongs to. A request
        that fails has its error in its own answer and disturbs no other. An item may be
        (layer, array, options), with a mapping of group_sizes, token_ids and routing_seed as for
        `forward`. `requests` is read in a
        thread of its own, at most `max_in_flight` ahead of the answers. `timeout` holds for each
        request by itself. Leaving the loop early cancels what is in flight.

        Raises ExpertmeshError when the stream itself breaks, and whatever `requests` raises.
        """
        stream = _Stream(
            requests,
            timeout=self._timeout if timeout is None else timeout,
            return_routing=return_routing,
            output_dtype=output_dtype,
            int8_hidden_states=int8_hidden_states,
            int8_output=int8_output,
            traceparent=traceparent,
            max_in_flight=max_in_flight,
        )
        return stream.run(self._router.ForwardStream)

    def describe(self, *, timeout: Optional[float] = None) -> router_pb2.DescribeModelResponse:
        """What the router serves: family, fingerprint, d_model, layers, limits."""
        result: router_pb2.DescribeModelResponse = self._call(
            self._router.DescribeModel, router_pb2.DescribeModelRequest(), timeout
        )
        return result

    def topology(self, *, timeout: Optional[float] = None) -> control_pb2.GetTopologyResponse:
        """The nodes, what each holds, the types on each link, and which experts are missing."""
        result: control_pb2.GetTopologyResponse = self._call(
            self._control.GetTopology, control_pb2.GetTopologyRequest(), timeout
        )
        return result

    def health(self, service: str = "", *, timeout: Optional[float] = None) -> Health:
        """grpc.health.v1 status of the router ("") or of one of its services.

        A service that the server does not know gives Health.SERVICE_UNKNOWN.
        """
        try:
            result: Health = self._call(self._health, service, timeout)
        except errors.NotFound:
            return Health.SERVICE_UNKNOWN
        return result

    def _call(self, method: Any, request: Any, timeout: Optional[float]) -> Any:
        try:
            return method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error) from None
        except ValueError as error:
            # gRPC's way to say that the channel was closed.
            raise errors.Cancelled(str(error)) from None


class _Stream:
    """One forward_many call: gRPC's thread writes (`_requests`), the caller's thread reads (`run`)."""

    def __init__(self, requests: Iterable[ManyItem], *, max_in_flight: int, **options: Any) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        self._options = options
        self._room = threading.Semaphore(max_in_flight)
        self._lock = threading.Lock()
        # Guarded by _lock: layer and shape of each request in flight, and what ended the source.
        self._in_flight: Dict[int, Tuple[int, codec.Shape]] = {}
        self._failed: Dict[int, StreamAnswer] = {}
        self._source_error: Optional[BaseException] = None
        self._closed = False

    def _requests(self) -> Iterator[router_pb2.ForwardRequest]:
        try:
            for index, item in enumerate(self._source):
                self._room.acquire()
                if self._closed:
                    return
                layer, array, own = codec.split_item(item)
                try:
                    request, shape = codec.encode_request(
                        layer, array, request_id=index, **self._options, **own
                    )
                except errors.ExpertmeshError as error:
                    with self._lock:
                        self._failed[index] = StreamAnswer(index, layer, None, error)
                    self._room.release()
                    continue
                with self._lock:
                    self._in_flight[index] = (layer, shape)
                yield request
        except Exception as error:
            # Ends the stream for the writer; the reader raises it after the last answer.
            with self._lock:
                self._source_error = error

    def _answer(self, response: router_pb2.ForwardResponse) -> StreamAnswer:
        with self._lock:
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

    def _take_failed(self) -> Sequence[StreamAnswer]:
        with self._lock:
            failed, self._failed = list(self._failed.values()), {}
        return failed

    def run(self, method: Any) -> Iterator[StreamAnswer]:
        call = method(self._requests())
        try:
            for response in call:
                yield from self._take_failed()
                yield self._answer(response)
            yield from self._take_failed()
            with self._lock:
                source_error, unanswered = self._source_error, sorted(self._in_flight)
            if source_error is not None:
                raise source_error
            if unanswered:
                raise errors.Internal(f"the router ended the stream before answering {unanswered}")
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error) from None
        finally:
            # Wakes a writer that waits for room, so that its thread ends.
            self._closed = True
            self._room.release()
            call.cancel()
