"""What the clients take and return."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from expertmesh.errors import ExpertmeshError


# numpy.ndarray, torch.Tensor, or anything numpy.asarray takes.
ArrayLike = Any
DTypeLike = Union[str, npt.DTypeLike, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardOptions:
    """How one request is to be computed and answered.

    timeout: seconds; None: the client's.
    return_routing: also return which experts were used, with which weights.
    output_dtype: of the result ("float32", numpy or torch dtype); None: that of the hidden states. Not
        together with int8_output.
    int8_hidden_states, int8_output: let rows travel as int8, in blocks of 128 values with a float32
        scale each: about half the bytes of the 16-bit types, and lossy. An output that came so is
        float32.
    traceparent, tracestate: W3C trace context; None: OpenTelemetry's current span, where the program uses
        it. A traceparent that is not valid counts as None.
    group_sizes: tokens of each group (a sequence, say), in order; they add up to the tokens. Routing
        that looks at more than one token (capacity, expert choice) looks at one group. None: all
        tokens are one group.
    token_ids: one for each token, of any shape; layers routed by hash need them.
    routing_seed: of everything random in routing; None: the router's own. Same seed, same request:
        same answer.
    checkpoint_bias: choose experts with the checkpoint's own bias, whatever balancing made of it.
    """

    timeout: Optional[float] = None
    return_routing: bool = False
    output_dtype: DTypeLike = None
    int8_hidden_states: bool = False
    int8_output: bool = False
    traceparent: Optional[str] = None
    group_sizes: Optional[ArrayLike] = None
    token_ids: Optional[ArrayLike] = None
    routing_seed: Optional[int] = None
    checkpoint_bias: bool = False
    tracestate: Optional[str] = None


class Health(enum.Enum):
    """Answer of grpc.health.v1.Health/Check."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


@dataclasses.dataclass(frozen=True)
class ForwardTiming:
    """Where the time of a request went, in microseconds, by the router's clock except where said."""

    queue_us: int
    route_us: int
    experts_us: int
    combine_us: int
    # Tokens of the batch that the request was part of, and nodes the batch was sent to.
    batch_tokens: int
    nodes: int
    # Time of a batch in its node, by the node's clock: waiting and computing, of the answer with the
    # largest sum of the two among the nodes' answers that were used; 0 when there is none. experts_us
    # less both is about what the wire took, unless the router's shared experts took longer or a lost
    # batch was retried.
    node_queue_us: int
    node_compute_us: int


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardResult:
    """What the experts of a layer made of some tokens.

    output: shape and kind of the input (a read-only view of the received bytes for numpy, an own
        tensor for torch), dtype as asked for.
    epoch: version of bias and placement that served the request.
    expert_ids, expert_weights: [..., k], uint32 and float32, best expert first, leading dimensions as
        the input's; None unless `return_routing` was set. Where tokens have different numbers of
        experts (capacity, expert choice), both are one-dimensional, token after token.
    assignments_per_token: uint32, leading dimensions as the input's: experts of each token, where
        they are not k for all of them; else None.
    dropped: [n, 2] uint32, (token, expert) of each assignment whose expert had no room left
        (capacity), ascending by token; tokens are counted over all leading dimensions. Always there.
    """

    output: Any
    epoch: int
    expert_ids: Optional[npt.NDArray[np.uint32]]
    expert_weights: Optional[npt.NDArray[np.float32]]
    timing: ForwardTiming
    assignments_per_token: Optional[npt.NDArray[np.uint32]]
    dropped: npt.NDArray[np.uint32]


@dataclasses.dataclass(frozen=True, eq=False)
class StreamAnswer:
    """One answer of `forward_many`: either `result` or `error` is set.

    index: position of the request in the iterable, from 0. layer: the layer it asked for.
    """

    index: int
    layer: int
    result: Optional[ForwardResult]
    error: Optional[ExpertmeshError]

    def unwrap(self) -> ForwardResult:
        """The result; raises the error if the request failed."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result
