"""The unary methods of both clients, each written once.

A method makes a `Call`: what is sent, and what the answer means. `Client` waits for the answer;
`AsyncClient` returns what has to be awaited. A new method of the contract is a new method here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Dict,
    Generic,
    Iterable,
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

from expertmesh import codec, errors, trace_context
from expertmesh.origin import Origin
from expertmesh.retry import is_lost_call
from expertmesh.trace_context import TraceContext
from expertmesh.tracing import Tracer
from expertmesh.types import ArrayLike, ForwardOptions, ForwardResult, Health
from expertmesh.v1 import (
    balance_pb2,
    control_pb2,
    control_pb2_grpc,
    placement_pb2,
    router_pb2,
    router_pb2_grpc,
)

Answer = TypeVar("Answer")

_RULES: Dict[str, balance_pb2.BalanceRule] = {
    "frozen": balance_pb2.BALANCE_RULE_FROZEN,
    "sign": balance_pb2.BALANCE_RULE_SIGN,
    "proportional": balance_pb2.BALANCE_RULE_PROPORTIONAL,
}
_ROUTER = router_pb2.DESCRIPTOR.services_by_name["Router"]
_CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"]
_NOT_SENT_AGAIN = "whether this was carried out is not known, so it is not sent again"
# Seconds; in milliseconds, they have 32 bits on the wire.
_LONGEST_WINDOW = 4_000_000

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

    method: of the contract, "package.Service/Method". timeout: None: the client's.
    read: makes the answer of the response.
    instead: answers that stand for errors of these kinds.
    repeatable: as of `Attempts`. trace: the context that the caller gave.
    """

    method: str
    request: Any
    timeout: Optional[float]
    read: Callable[[Any], Answer] = _unchanged
    instead: Mapping[Type[errors.ExpertmeshError], Answer] = dataclasses.field(default_factory=dict)
    repeatable: bool = True
    trace: Optional[TraceContext] = None

    def fail(self, error: errors.ExpertmeshError) -> Answer:
        """The answer that stands for `error`; raises it when there is none."""
        if type(error) not in self.instead:
            if not self.repeatable and is_lost_call(error):
                error.message = f"{_NOT_SENT_AGAIN}: {error.message}"
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

    def __init__(self, channel: Union[grpc.Channel, grpc.aio.Channel], address: str) -> None:
        self._tracer = Tracer(address)
        self._router = router_pb2_grpc.RouterStub(channel)
        self._control = control_pb2_grpc.ControlStub(channel)
        # By `Call.method`.
        self._stubs: Dict[str, Callable[..., Any]] = {
            codec.HEALTH_METHOD: channel.unary_unary(
                f"/{codec.HEALTH_METHOD}",
                request_serializer=codec.encode_health_request,
                response_deserializer=codec.decode_health_response,
            )
        }
        for service, stub in ((_ROUTER, self._router), (_CONTROL, self._control)):
            for method in service.methods:
                self._stubs[f"{service.full_name}/{method.name}"] = getattr(stub, method.name)

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
            "expertmesh.v1.Router/Forward",
            request,
            options.timeout,
            lambda response: codec.decode_response(response, shape),
            trace=trace_context.read(options.traceparent, options.tracestate),
        )

    @unary
    def describe(
        self, *, timeout: Optional[float] = None
    ) -> Call[router_pb2.DescribeModelResponse]:
        """What the router serves: family, fingerprint, d_model, layers, limits."""
        return Call("expertmesh.v1.Router/DescribeModel", router_pb2.DescribeModelRequest(), timeout)

    @unary
    def health(self, service: str = "", *, timeout: Optional[float] = None) -> Call[Health]:
        """grpc.health.v1 status of the router ("") or of one of its services.

        A service that the server does not know gives Health.SERVICE_UNKNOWN.
        """
        instead: Dict[Type[errors.ExpertmeshError], Health] = {
            errors.NotFound: Health.SERVICE_UNKNOWN
        }
        return Call(codec.HEALTH_METHOD, service, timeout, instead=instead)

    @unary
    def topology(self, *, timeout: Optional[float] = None) -> Call[control_pb2.Topology]:
        """The nodes, what each holds, the types on each link, and which experts are missing."""
        request = control_pb2.GetTopologyRequest()
        return Call(
            "expertmesh.v1.Control/GetTopology", request, timeout, lambda response: response.topology
        )

    @unary
    def get_load(
        self, *, mesh: bool = False, window: float = 0.0, timeout: Optional[float] = None
    ) -> Call[control_pb2.GetLoadResponse]:
        """Tokens of each layer and assignments of each expert.

        mesh: of all routers that report to this one, and its own; else its own alone.
        window: seconds; 0: since the router started (the mesh: since counting began). 1 s, 10 s and 5 min
            are kept, and the shortest that covers it is taken.

        Raises InvalidArgument when `window` is no time.
        """
        if not 0 <= window < _LONGEST_WINDOW:
            raise errors.InvalidArgument(
                f"window is {window}; use seconds from 0 to less than {_LONGEST_WINDOW}"
            )
        request = control_pb2.GetLoadRequest(
            scope=control_pb2.LOAD_SCOPE_MESH if mesh else control_pb2.LOAD_SCOPE_UNSPECIFIED,
            # Rounded up, so that a short window is not taken for none.
            window_ms=math.ceil(window * 1000),
        )
        return Call("expertmesh.v1.Control/GetLoad", request, timeout)

    @unary
    def balance(self, *, timeout: Optional[float] = None) -> Call[balance_pb2.Balance]:
        """How load is balanced over experts, and whether the balancing is alive."""
        request = balance_pb2.GetBalanceRequest()
        return Call("expertmesh.v1.Control/GetBalance", request, timeout, lambda response: response.balance)

    @unary
    def set_balance(
        self,
        layers: Iterable[int] = (),
        *,
        rule: Optional[str] = None,
        rate: Optional[float] = None,
        clamp: Optional[float] = None,
        decay: Optional[float] = None,
        quality_budget: Optional[float] = None,
        step_tokens: Optional[int] = None,
        paused: Optional[bool] = None,
        reset_bias: bool = False,
        timeout: Optional[float] = None,
    ) -> Call[balance_pb2.Balance]:
        """Changes how the selection bias of `layers` (none: of all that can be steered) follows their load;
        what is None stays as it is. Returns the balance once that is in force.

        rule: "frozen", "sign" or "proportional".
        rate: what a step adds, in units of scores. clamp: largest distance of a bias to the checkpoint's.
        decay: share of that distance that each step takes back, 0 to 1.
        quality_budget: share of tokens that may go to another set of experts than the checkpoint alone
            would choose, 0 to 1; 1: no bound.
        step_tokens: tokens of the layer that a step is made of, at least. paused: no steps.
        reset_bias: their bias becomes the checkpoint's first.

        Raises InvalidArgument (no such layer, an impossible value; nothing is changed), FailedPrecondition
        (a layer cannot be steered, or the router follows another one, which is named).
        """
        if rule is not None and rule not in _RULES:
            raise errors.InvalidArgument(f"rule is {rule!r}; use {', '.join(_RULES)}")
        try:
            request = balance_pb2.SetBalanceRequest(
                layers=layers,
                policy=balance_pb2.BalancePolicy(
                    rule=balance_pb2.BALANCE_RULE_UNSPECIFIED if rule is None else _RULES[rule],
                    rate=rate,
                    clamp=clamp,
                    decay=decay,
                    quality_budget=quality_budget,
                    step_tokens=step_tokens,
                    paused=paused,
                ),
                reset_bias=reset_bias,
            )
        except (TypeError, ValueError) as error:
            raise errors.InvalidArgument(str(error)) from None
        return Call("expertmesh.v1.Control/SetBalance", request, timeout, lambda response: response.balance)

    @unary
    def bias(self, epoch: int = 0, *, timeout: Optional[float] = None) -> Call[balance_pb2.Bias]:
        """The bias of all layers that can be steered at `epoch`; 0: now.

        Raises NotFound when the epoch is later than the present one, or older than what is remembered.
        """
        if not 0 <= epoch < 2**64:
            raise errors.InvalidArgument(f"epoch is {epoch}; use one from an answer, or 0")
        request = balance_pb2.GetBiasRequest(epoch=epoch)
        return Call("expertmesh.v1.Control/GetBias", request, timeout, lambda response: response.bias)

    @unary
    def set_bias(
        self,
        bias: Union[balance_pb2.Bias, Mapping[int, ArrayLike]],
        *,
        timeout: Optional[float] = None,
    ) -> Call[balance_pb2.Balance]:
        """Puts a bias in force, from which policies go on; returns the balance once it is.

        bias: of method `bias`, or {layer: [num_experts]}; layers that are not in it stay as they are.

        Raises InvalidArgument (no such layer, another number of experts, NaN or infinity; nothing is
        changed), FailedPrecondition (as `set_balance`, or it is the bias of another model).
        """
        request = balance_pb2.SetBiasRequest(bias=codec.encode_bias(bias))
        return Call("expertmesh.v1.Control/SetBias", request, timeout, lambda response: response.balance)

    @unary
    def placement(self, *, timeout: Optional[float] = None) -> Call[placement_pb2.PlacementState]:
        """Which copies of experts are planned, why, and how far their moves are."""
        request = placement_pb2.GetPlacementRequest()
        return Call(
            "expertmesh.v1.Control/GetPlacement", request, timeout, lambda response: response.placement
        )

    @unary
    def plan_placement(
        self, *, timeout: Optional[float] = None, **policy: Any
    ) -> Call[placement_pb2.PlacementProposal]:
        """What the planner would do now, and why: nothing of it is done.

        policy: fields of `PlacementPolicy` in which it is to differ from the one in force.

        Raises ResourceExhausted when nodes have no room for the copies that there must be, Unavailable
        when there is nothing to plan by yet.
        """
        request = placement_pb2.PlanPlacementRequest(policy=codec.encode_placement_policy(policy))
        return Call(
            "expertmesh.v1.Control/PlanPlacement", request, timeout, lambda response: response.proposal
        )

    @unary
    def set_placement(
        self, *, timeout: Optional[float] = None, **policy: Any
    ) -> Call[placement_pb2.PlacementState]:
        """Changes how copies are planned: fields of `PlacementPolicy`; the others stay as they are.

        Raises InvalidArgument (an impossible value), FailedPrecondition (the router follows another one).
        """
        request = placement_pb2.SetPlacementRequest(policy=codec.encode_placement_policy(policy))
        return Call(
            "expertmesh.v1.Control/SetPlacement", request, timeout, lambda response: response.placement
        )

    @unary
    def apply_placement(
        self,
        plan: Optional[placement_pb2.PlacementPlan] = None,
        *,
        abort: bool = False,
        timeout: Optional[float] = None,
    ) -> Call[placement_pb2.PlacementState]:
        """Begins to move copies to `plan`, or (None) to what the planner says now; `placement` and
        `watch_placement` tell how far that is. abort: undoes the move that is under way instead.

        Raises InvalidArgument (a plan that cannot be; nothing is moved), FailedPrecondition (another move
        is under way, or the router follows another one), and as `plan_placement`. When the connection is
        lost on the way it is not sent again, since the move may have begun: Unavailable, and `placement`
        tells.
        """
        request = placement_pb2.ApplyPlacementRequest(plan=plan, abort=abort)
        return Call(
            "expertmesh.v1.Control/ApplyPlacement",
            request,
            timeout,
            lambda response: response.placement,
            repeatable=False,
        )

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
        return Call("expertmesh.v1.Control/DrainNode", request, timeout, lambda response: response.node)
