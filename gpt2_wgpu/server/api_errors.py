"""Errors of the HTTP API, as OpenAI's JSON error objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import ContextLengthError, GPT2WGPUError, InvalidArgumentError

INTERNAL = "internal server error: the server's log has the reason"
# In the message with which a server cancels a request at its own end: uvicorn's, and http_server's.
SHUTDOWN = "graceful shutdown exceeded"


class APIError(Exception):
    """Rejected or failed request.

    Args:
        status: HTTP status code.
        message: what was wrong and what to do.
        param: the field of the request that is at fault.
        code: OpenAI's name of the error.
        headers: additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}


def shutting_down() -> APIError:
    """Return the answer for a request that the end of the server cuts off."""
    return APIError(503, "the server is shutting down: try another one")


def api_error_of(error: Exception, param: str | None = None) -> APIError:
    """Return the answer for an exception: 400 for an invalid argument, else 500.

    Messages of this package name no internals and are shown; others are not.
    """
    if isinstance(error, APIError):
        return error
    if isinstance(error, ContextLengthError):
        return APIError(400, str(error), param or "prompt", "context_length_exceeded")
    if isinstance(error, InvalidArgumentError):
        return APIError(400, str(error), param)
    return APIError(500, str(error) if isinstance(error, GPT2WGPUError) else INTERNAL)


def as_json(value: object) -> bytes:
    """Return compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
