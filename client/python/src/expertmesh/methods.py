"""The unary methods of both clients, each written once.

A method makes a `Call`: what is sent, and what the answer means. `Client` waits for the answer;
`AsyncClient` returns what has to be awaited. A new method of the contract is a new method here.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Dict,
    Generic,
    Mapping,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
    overload,
)

import grpc
import grpc.aio

from expertmesh import codec, errors
from expertmesh.origin import Origin
from expertmesh.types import ArrayLike, ForwardOptions, ForwardResult, Health
from expertmesh.v1 import control_pb2, control_pb2_grpc, router_pb2, router_pb2_grpc

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from typing import Protocol

    from typing_extensions import Concatenate, ParamSpec

    from expertmesh.aio import AsyncClient
    from expertmesh.client import Client

    Arguments = ParamSpec("Arguments")

    class Unary(Protocol[Arguments, Answer]):  # type: ignore[misc]
        """What `unary` makes of a method: blocking in a Client, awaited in an AsyncClient."""

        @overload
        def __get__(self, client: None, owner: Any) -> Callable[..., Any]: ...
        @overload
        def __get__(self, client: Client, owner: Any) -> Callable[Arguments, Answer]: ...
        @overload
        def __get__(
            self, client: AsyncClient, owner: Any
        ) -> Callable[Arguments, Awaitable[Answer]]: ...


def _unchanged(response: Any) -> Any:
    return response


@dataclasses.dataclass(frozen=True)
class Call(Generic[Answer]):
    """One unary call.

    stub: of the contract's method. timeout: None: the client's.
    read: makes the answer of the response.
    instead: answers that stand for errors of these kinds.
    """

    stub: Callable[..., Any]
    request: Any
    timeout: Optional[float]
    read: Callable[[Any], Answer] = _unchanged
    instead: Mapping[Type[errors.ExpertmeshError], Answer] = dataclasses.field(default_factory=dict)

    def fail(self, error: errors.ExpertmeshError) -> Answer:
        """The answer that stands for `error`; raises it when there is none."""
        if type(error) not in self.instead:
            raise error from None
        return self.instead[type(error)]


def unary(
    prepare: Callable[Concatenate[Any, Arguments], Call[Answer]],
) -> Unary[Arguments, Answer]:
    """Makes a method of both clients of one that prepares its call."""

    @functools.wraps(prepare)
    def method(client: Any, *args: Any, **kwargs: Any) -> Any:
        def prepared() -> Call[Answer]:
            client._origin.check_process()
            return prepare(client, *args, **kwargs)

        return client._perform(prepared)

    return cast("Unary[Arguments, Answer]", method)


class UnaryMethods:
    """The stubs of a connection, and the methods that make one call each."""

    _origin: Origin

    def __init__(self, channel: Union[grpc.Channel, grpc.aio.Channel]) -> None:
        self._router = router_pb2_grpc.RouterStub(channel)
        self._control = control_pb2_grpc.ControlStub(channel)
        self._health = channel.unary_unary(
            codec.HEALTH_METHOD,
            request_serializer=codec.encode_health_request,
            response_deserializer=codec.decode_health_response,
        )

    def __reduce__(self) -> Tuple[Any, ...]:
        return self._origin.reduce()

    @unary
    def forward(
        self, layer: int, array: ArrayLike, options: ForwardOptions = ForwardOptions()
    ) -> Call[ForwardResult]:
        """Computes the MoE block of `layer` for hidden states [..., d_model].

        array: float32, float16 or bfloat16 (`ml_dtypes.bfloat16`), numpy or torch; 0 tokens are fine.

        Raises InvalidArgument (wrong layer, d_model, dtype, group_sizes or token_ids), Unavailable
        (no ready node holds an expert that is needed; the message names layer and experts),
        ResourceExhausted (queue full, or message over the router's limit), OutOfRange (a finite value
        of the result is beyond output_dtype), DeadlineExceeded.
        """
        request, shape = codec.encode_request(layer, array, options)
        return Call(
            self._router.Forward,
            request,
            options.timeout,
            lambda response: codec.decode_response(response, shape),
        )

    @unary
    def describe(
        self, *, timeout: Optional[float] = None
    ) -> Call[router_pb2.DescribeModelResponse]:
        """What the router serves: family, fingerprint, d_model, layers, limits."""
        return Call(self._router.DescribeModel, router_pb2.DescribeModelRequest(), timeout)

    @unary
    def health(self, service: str = "", *, timeout: Optional[float] = None) -> Call[Health]:
        """grpc.health.v1 status of the router ("") or of one of its services.

        A service that the server does not know gives Health.SERVICE_UNKNOWN.
        """
        instead: Dict[Type[errors.ExpertmeshError], Health] = {
            errors.NotFound: Health.SERVICE_UNKNOWN
        }
        return Call(self._health, service, timeout, instead=instead)

    @unary
    def topology(self, *, timeout: Optional[float] = None) -> Call[control_pb2.Topology]:
        """The nodes, what each holds, the types on each link, and which experts are missing."""
        request = control_pb2.GetTopologyRequest()
        return Call(
            self._control.GetTopology, request, timeout, lambda response: response.topology
        )

    @unary
    def get_load(self, *, timeout: Optional[float] = None) -> Call[control_pb2.GetLoadResponse]:
        """Tokens of each layer and assignments of each expert since the router started."""
        return Call(self._control.GetLoad, control_pb2.GetLoadRequest(), timeout)

    @unary
    def drain_node(
        self, address: str, *, resume: bool = False, timeout: Optional[float] = None
    ) -> Call[control_pb2.TopologyNode]:
        """Stops sending new batches to a node, or resumes it; returns the node as it is now.

        address: as listed in the topology. What only this node holds goes on being sent there, and
        batches that were sent before may still be in flight.

        Raises NotFound when the router knows no node of that address.
        """
        request = control_pb2.DrainNodeRequest(address=address, resume=resume)
        return Call(self._control.DrainNode, request, timeout, lambda response: response.node)
