"""Endpoint `POST /v1/completions`: body in, answer or stream out, end if the client hangs up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from gpt2_wgpu import strict_json
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.server.access import send_error, send_json
from gpt2_wgpu.server.api_errors import SHUTDOWN, APIError, api_error_of, as_json, shutting_down
from gpt2_wgpu.server.completion_request import CompletionRequest, parse
from gpt2_wgpu.server.completion_rows import CompletionRow
from gpt2_wgpu.server.completions import Completions
from gpt2_wgpu.server.metrics import Metrics

SEND_SECONDS = 60  # for a client that does not read; its rows count as admitted meanwhile
_HUNG_UP = 499  # nginx's code, in the metrics only
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_log = logging.getLogger(__name__)


class HungUpError(Exception):
    """The client closed the connection."""


class CompletionsEndpoint:
    """ASGI app of the one path.

    Args:
        lm: the model.
        completions: returns the generator of answers, which the app's lifespan makes.
        metrics: counters to advance.
        max_body: largest body in bytes.
    """

    def __init__(
        self,
        lm: GPT2CausalLM,
        completions: Callable[[], Completions],
        metrics: Metrics,
        max_body: int,
    ) -> None:
        self._lm, self._completions, self._metrics = lm, completions, metrics
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; the arguments are ASGI's."""
        answer = _Answer(send)
        status = 500
        try:
            status = await self._answered(scope, receive, answer)
        except asyncio.CancelledError as error:
            if SHUTDOWN not in str(error):
                raise
            status = 503
            with suppress(HungUpError):
                await answer.fail(shutting_down())
        finally:
            self._metrics.requests[status] += 1

    async def _answered(self, scope: Any, receive: Any, answer: _Answer) -> int:
        """Answer one request; return the status for the metrics."""
        begun = time.perf_counter()
        try:
            data = await self._body(dict(scope["headers"]), receive)
            # In a thread: encoding 1 MiB of text takes seconds, in which other answers go on.
            request = await asyncio.to_thread(self._request, data)
            await _unless_hung_up(receive, self._respond(request, answer))
            self._metrics.whole.observe(time.perf_counter() - begun)
            return 200
        except HungUpError:
            return _HUNG_UP
        except Exception as error:
            found = api_error_of(error)
            if found.status == 500:
                _log.error("a completion failed", exc_info=error)
            with suppress(HungUpError):
                await answer.fail(found)
            return found.status

    def _request(self, data: bytes) -> CompletionRequest:
        """Return the request of a body; APIError if it is invalid."""
        try:
            body = strict_json.parse(data)
        except ValueError as error:
            raise APIError(400, f"the body is not valid: {error}") from None
        completions = self._completions()
        return parse(body, self._lm, completions.model, completions.max_rows)

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes:
        """Return the body; APIError if it is not said to be JSON, or has too many bytes."""
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":  # what other kinds a page may send to any server
            raise APIError(415, "send the request with Content-Type: application/json")
        size = headers.get(b"content-length", b"0")
        parts, received, more = [], int(size) if size.isdigit() else 0, True
        if received <= self._max_body:
            received = 0
            while more and received <= self._max_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HungUpError
                parts.append(message.get("body", b""))
                received += len(parts[-1])
                more = message.get("more_body", False)
        if received > self._max_body:
            raise APIError(413, f"the body has more than {self._max_body} bytes: send less at once")
        return b"".join(parts)

    async def _respond(self, request: CompletionRequest, answer: _Answer) -> None:
        completions = self._completions()
        with completions.admitted(request):
            rows: list[CompletionRow] = []
            try:
                rows = await completions.start(request)
                if not request.stream:
                    await answer.whole(await completions.answer(request, rows))
                    return
                async with aclosing(completions.events(request, rows)) as events:
                    async for event in events:
                        await answer.event(as_json(event))
                await answer.event(b"[DONE]", last=True)
            finally:
                for row in rows:
                    row.cancel()
                self._metrics.generated_tokens += sum(len(row.ids) for row in rows)


class _Answer:
    """Answer on its way: JSON as a whole, or server-sent events."""

    def __init__(self, send: Any) -> None:
        self._unlimited_send = send
        self._begun = self._streams = self._ended = False

    async def _send(self, message: Any) -> None:
        """Send a message; HungUpError if the client does not read it for a long time."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                self._begun = True
                await self._unlimited_send(message)
        except TimeoutError:
            raise HungUpError from None

    async def whole(self, value: object) -> None:
        await send_json(self._send, 200, value)

    async def event(self, data: bytes, last: bool = False) -> None:
        if not self._streams:
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM})
            self._streams = True
        body = b"data: " + data + b"\n\n"
        self._ended = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def fail(self, error: APIError) -> None:
        """Send an error: as the answer, or as the last event of a stream that has begun.

        Nothing can be sent after the beginning of a whole answer, or the last event.
        """
        if self._streams:
            if not self._ended:
                await self.event(as_json(error.body()), last=True)
        elif not self._begun:
            await send_error(self._send, error)


async def _unless_hung_up(receive: Any, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; cancel it and raise HungUpError if the client closes the connection."""
    running, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise HungUpError
        running.result()
    finally:
        for task in (running, gone):
            task.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _hung_up(receive: Any) -> None:
    """Wait until the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass
