"""One exception class per gRPC status code."""

from __future__ import annotations

from typing import Dict, Type

import grpc


class ExpertmeshError(Exception):
    """A request that failed: `code` is the gRPC status code, `message` the server's own words."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.message = message
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


def from_code(code: grpc.StatusCode, message: str) -> ExpertmeshError:
    """The exception for a status code."""
    return _BY_CODE.get(code, Unknown)(message, code)


def from_number(number: int, message: str) -> ExpertmeshError:
    """The exception for a code as it stands in a streamed answer's status (google.rpc.Code)."""
    code = _CODE_BY_NUMBER.get(number)
    if code is None:
        return Unknown(f"{message} (the server sent status code {number}, which no one knows)")
    return from_code(code, message)


def from_rpc_error(error: grpc.RpcError) -> ExpertmeshError:
    """The exception for an RPC that ended with an error, sync or asyncio."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    return from_code(code, error.details() or "")
