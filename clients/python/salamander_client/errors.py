"""Exceptions: one per gRPC code that a router answers with, and their common base."""
from __future__ import annotations

import grpc

# Trailing metadata of a refused call, in milliseconds; the name is that of gRPC's retry protocol.
_RETRY_AFTER_KEY = "grpc-retry-pushback-ms"


class SalamanderError(Exception):
    """Any failed call. `code` is the gRPC status code, `message` the router's own words."""

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class _CodedError(SalamanderError):
    CODE = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str):
        super().__init__(message, self.CODE)


class InvalidArgument(_CodedError):
    """The request itself is wrong; the message names field, value and limit."""

    CODE = grpc.StatusCode.INVALID_ARGUMENT


class ResourceExhausted(_CodedError):
    """The router's queue is full, the deadline cannot be met or the API key's limit is reached. Retry after `retry_after` seconds, if it said so."""

    CODE = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(_CodedError):
    """No router there, or a worker was lost, or none is ready. The request may be sent again."""

    CODE = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(_CodedError):
    """The timeout passed; all workers have stopped."""

    CODE = grpc.StatusCode.DEADLINE_EXCEEDED


class DataLoss(_CodedError):
    """Keys, values or states were corrupted or lost on the way; nothing was decoded from them."""

    CODE = grpc.StatusCode.DATA_LOSS


class Cancelled(_CodedError):
    """The call was cancelled."""

    CODE = grpc.StatusCode.CANCELLED


class FailedPrecondition(_CodedError):
    """The model cannot do this, such as chat without a chat template."""

    CODE = grpc.StatusCode.FAILED_PRECONDITION


class Unauthenticated(_CodedError):
    """The router wants an API key, or does not know the one it was given."""

    CODE = grpc.StatusCode.UNAUTHENTICATED


_BY_CODE = {kind.CODE: kind for kind in (InvalidArgument, Unavailable, DeadlineExceeded, DataLoss, Cancelled,
                                         FailedPrecondition, Unauthenticated)}


def from_rpc_error(error: grpc.RpcError) -> SalamanderError:
    """The exception for a failed call of grpcio, which is also a grpc.Call."""
    code, message = error.code(), error.details() or ""
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ResourceExhausted(message, _retry_after(error))
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    return SalamanderError(message, code)


def _retry_after(error: grpc.RpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _RETRY_AFTER_KEY and value.isdigit():
            return int(value) / 1000
    return None
