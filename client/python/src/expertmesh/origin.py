"""Where a client was made: so that a copy is another connection, and a forked process does not use one."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional, Tuple, Type

import grpc

from expertmesh import errors


def _make_again(kind: Type[Any], address: str, arguments: Dict[str, Any]) -> Any:
    return kind(address, **arguments)


class Origin:
    """Of one client: how it was made, and in which process."""

    def __init__(
        self,
        kind: Type[Any],
        address: str,
        credentials: Optional[grpc.ChannelCredentials],
        arguments: Dict[str, Any],
    ) -> None:
        self._kind = kind
        self._address = address
        self._credentials = credentials
        self._arguments = arguments
        self._process = os.getpid()

    def check_process(self) -> None:
        """Raises FailedPrecondition in a process that was forked: two that use one connection break it."""
        if os.getpid() != self._process:
            raise errors.FailedPrecondition(
                f"this {self._kind.__name__} was made in process {self._process}, and a connection does not "
                f"survive a fork; make one in this process (in a DataLoader by worker_init_fn), or start "
                f"processes with multiprocessing_context='spawn'"
            )

    def reduce(self) -> Tuple[Any, ...]:
        """For copy and pickle: another client, with a connection of its own."""
        if self._credentials is not None:
            raise TypeError(
                f"a {self._kind.__name__} with credentials cannot be copied or pickled, as they cannot; "
                f"share it, or make another one where it is needed"
            )
        return _make_again, (self._kind, self._address, self._arguments)
