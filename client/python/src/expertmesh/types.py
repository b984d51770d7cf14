"""What the clients return."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from expertmesh.errors import ExpertmeshError


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
