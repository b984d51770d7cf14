"""One exception class per gRPC status code; each error carries the reason of the contract
(expertmesh/v1/errors.proto)."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Tuple, Type

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from expertmesh.v1 import errors_pb2


class ExpertmeshError(Exception):
    """A request that failed: `code` is the gRPC status code, `message` the server's own words.

    reason: a name of the contract's ErrorReason ("QUEUE_FULL"); empty where the error comes from gRPC,
        from a proxy or from this package.
    metadata: the keys that the reason names.
    retry_delay: seconds after which the same request may succeed; None: not told.
    field_violations: with INVALID_FIELD, (path of the field, what is wrong with it).
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = ""
        self.metadata: Dict[str, str] = {}
        self.retry_delay: Optional[float] = None
        self.field_violations: List[Tuple[str, str]] = []
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class Cancelled(ExpertmeshError):
    """The caller gave the request up, or the client was closed."""

    code = grpc.StatusCode.CANCELLED


class Unknown(ExpertmeshError):
    """The peer failed without saying how."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(ExpertmeshError, ValueError):
    """Wrong layer, d_model, dtype or byte count; the message names the field."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(ExpertmeshError, TimeoutError):
    """The timeout passed before the answer was there."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(ExpertmeshError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ExpertmeshError):
    """What the request would make is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(ExpertmeshError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(ExpertmeshError):
    """The layer's queue is full, or the message is over the limit (DescribeModel names it)."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(ExpertmeshError):
    """The mesh is not in a state in which this can be done."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(ExpertmeshError):
    """Given up by the server because of something that ran beside it."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(ExpertmeshError):
    """Past the end of what there is."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(ExpertmeshError):
    """The server has no such method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(ExpertmeshError):
    """A defect of the server, or an answer that makes no sense."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(ExpertmeshError, ConnectionError):
    """The router cannot be reached, or no ready node holds an expert (named). Retry later."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(ExpertmeshError):
    """Data was lost or damaged."""

    code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(ExpertmeshError):
    """The caller did not say who it is, or not in a way that the server accepts."""

    code = grpc.StatusCode.UNAUTHENTICATED


_BY_CODE: Dict[grpc.StatusCode, Type[ExpertmeshError]] = {
    cls.code: cls for cls in ExpertmeshError.__subclasses__()
}
_CODE_BY_NUMBER: Dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


# More than a router sends.
_MOST_TEXT = 4096


def _printable(text: str) -> str:
    """`text` on one line and bounded: what comes from elsewhere may be anything."""
    shown = text[:_MOST_TEXT]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    return shown if len(text) <= _MOST_TEXT else f"{shown}... (cut, {len(text)} characters)"


def from_code(code: grpc.StatusCode, message: str) -> ExpertmeshError:
    """The exception for a status code."""
    return _BY_CODE.get(code, Unknown)(_printable(message), code)


def from_status(status: errors_pb2.RequestStatus) -> ExpertmeshError:
    """The exception for a status as it stands in a streamed answer (the fields of google.rpc.Status)."""
    code = _CODE_BY_NUMBER.get(status.code)
    if code is None:
        error: ExpertmeshError = Unknown(
            f"{status.message} (the server sent status code {status.code}, which no one knows)"
        )
    else:
        error = from_code(code, status.message)
    _add_details(error, status.details)
    return error


def from_rpc_error(error: grpc.RpcError) -> ExpertmeshError:
    """The exception for an RPC that ended with an error, sync or asyncio."""
    return from_call(error.code(), error.details(), error.trailing_metadata())


def from_call(
    code: Optional[grpc.StatusCode], message: Optional[str], trailing_metadata: Any
) -> ExpertmeshError:
    """The same for what gRPC tells of a call that ended."""
    made = from_code(code or grpc.StatusCode.UNKNOWN, message or "")
    for key, value in trailing_metadata or ():
        if key == "grpc-status-details-bin":
            try:
                _add_details(made, errors_pb2.RequestStatus.FromString(value).details)
            except DecodeError:
                pass  # Code and message say what there is to say.
    if not made.reason and isinstance(made, ResourceExhausted) and "larger than max" in made.message:
        made.reason = "MESSAGE_TOO_LARGE"  # gRPC refuses such a message itself, without details.
    return made


def _add_details(error: ExpertmeshError, details: Iterable[Any]) -> None:
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            error.reason, error.metadata = info.reason, dict(info.metadata)
        elif detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            error.retry_delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Is(bad.DESCRIPTOR) and detail.Unpack(bad):
            error.field_violations = [(one.field, one.description) for one in bad.field_violations]
