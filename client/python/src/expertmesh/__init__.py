"""Client of Expertmesh: send hidden states of a layer, receive what its experts make of them.

    import numpy as np
    import expertmesh

    with expertmesh.Client("127.0.0.1:50050") as client:
        x = np.random.default_rng(0).standard_normal((16, 512), dtype=np.float32)
        options = expertmesh.ForwardOptions(return_routing=True)
        result = client.forward(layer=0, array=x, options=options)
        print(result.output.shape, result.expert_ids[0])

`AsyncClient` has the same methods for asyncio. Everything that goes wrong is an `ExpertmeshError` with
the gRPC code and the server's message. The generated messages are in `expertmesh.v1`.
"""

from expertmesh.aio import AsyncClient
from expertmesh.client import Client
from expertmesh.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    ExpertmeshError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from expertmesh.types import ForwardOptions, ForwardResult, ForwardTiming, Health, StreamAnswer

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "ExpertmeshError",
    "FailedPrecondition",
    "ForwardOptions",
    "ForwardResult",
    "ForwardTiming",
    "Health",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "StreamAnswer",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
]

__version__ = "0.1.0"
