"""Access to the HTTP API: host names and the API key."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from email.utils import formatdate
from typing import Any

from gpt2_wgpu.server.api_errors import APIError, as_json

_PORT = re.compile(r":\d*$")
_OPEN = {"/health"}


class Access:
    """ASGI middleware: rejects foreign host names and wrong keys, and dates each answer."""

    def __init__(self, app: Any, api_key: str | None, hosts: Collection[str] | None) -> None:
        self._app = app
        self._key = None if api_key is None else api_key.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; the arguments are ASGI's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_dated(message: Any) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message = message | {"headers": [*message.get("headers", ()), date]}
            await send(message)

        headers = dict(scope["headers"])
        try:
            self._check_host(headers.get(b"host", b"").decode("latin-1"))
            if scope["path"] not in _OPEN:
                self._check_key(headers.get(b"authorization", b""))
        except APIError as error:
            await send_error(send_dated, error)
            return
        await self._app(scope, receive, send_dated)

    def _check_host(self, host: str) -> None:
        if self._hosts is not None and _PORT.sub("", host).lower() not in self._hosts:
            raise APIError(403, "this server answers only to names of this machine, not to " + host)

    def _check_key(self, given: bytes) -> None:
        if self._key is None:
            return
        scheme, _, key = given.partition(b" ")
        right = hmac.compare_digest(key.strip(), self._key)
        if scheme.lower() != b"bearer" or not right:
            message = "the API key is wrong or missing: send it as 'Authorization: Bearer KEY'"
            headers = {"WWW-Authenticate": "Bearer"}
            raise APIError(401, message, code="invalid_api_key", headers=headers)


async def send_error(send: Any, error: APIError) -> None:
    """Send an error as the whole answer."""
    await send_json(send, error.status, error.body(), error.headers)


async def send_json(
    send: Any, status: int, value: object, headers: dict[str, str] | None = None
) -> None:
    """Send JSON as the whole answer."""
    body = as_json(value)
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (name.lower().encode("latin-1"), text.encode("latin-1"))
                for name, text in (fields | (headers or {})).items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
