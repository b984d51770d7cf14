"""The blocking client."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Sequence, Tuple, Type

import grpc

from expertmesh import codec, errors
from expertmesh.codec import ManyItem
from expertmesh.methods import Answer, Call, UnaryMethods
from expertmesh.types import ForwardOptions, StreamAnswer
from expertmesh.v1 import router_pb2


class Client(UnaryMethods):
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
        super().__init__(self._channel)

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
        timeout holds for each request by itself. Leaving the loop early cancels what is in flight.

        Raises ExpertmeshError when the stream itself breaks, and whatever `requests` raises.
        """
        stream = _Stream(requests, options, self._timeout, max_in_flight)
        return stream.run(self._router.ForwardStream)

    def _perform(self, prepare: Callable[[], Call[Answer]]) -> Answer:
        call = prepare()
        timeout = self._timeout if call.timeout is None else call.timeout
        try:
            response = call.stub(call.request, timeout=timeout)
        except grpc.RpcError as error:
            return call.fail(errors.from_rpc_error(error))
        except ValueError as error:
            # gRPC's way to say that the channel was closed.
            raise errors.Cancelled(str(error)) from None
        return call.read(response)


class _Stream:
    """One forward_many call: gRPC's thread writes (`_requests`), the caller's thread reads (`run`)."""

    def __init__(
        self,
        requests: Iterable[ManyItem],
        options: ForwardOptions,
        timeout: Optional[float],
        max_in_flight: int,
    ) -> None:
        if max_in_flight < 1:
            raise errors.InvalidArgument(f"max_in_flight is {max_in_flight}; use 1 or more")
        self._source = requests
        self._options = options
        self._timeout = timeout
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
                layer = item[0]
                try:
                    request, shape = codec.encode_item(item, self._options, self._timeout, index)
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
