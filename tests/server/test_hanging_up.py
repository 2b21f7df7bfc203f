"""Clients that hang up: their rows end, others go on; and measurements."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

pytestmark = pytest.mark.native("Starlette")

LONG = {"prompt": "The king", "max_tokens": 200, "stop_token_ids": [], "temperature": 0}


class Connection:
    """A connection that the client closes after the first piece of an answer, or before any."""

    def __init__(self, body, after_piece):
        self._body = json.dumps(body).encode()
        self._sent, self.pieces = False, []
        self.closed = asyncio.Event()
        self._after_piece = after_piece

    async def receive(self):
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] == "http.response.body":
            self.pieces.append(message["body"])
            if self._after_piece:
                self.closed.set()

    async def run(self, app):
        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope: dict[str, object] = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": headers,
        }
        scope |= {"query_string": b"", "root_path": "", "scheme": "http"}
        await app(scope, self.receive, self.send)


async def measured(client):
    """The metrics by name, with their labels."""
    text = (await client.get("/metrics")).text
    return dict(re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE))


async def reach(client, running):
    """Wait until at least as many rows are running."""
    async with asyncio.timeout(60):
        while int((await measured(client))["gpt2_wgpu_rows_running"]) < running:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("stream", "logprobs"), [(False, None), (True, None), (True, 1)])
def test_a_client_that_hangs_up_frees_its_rows(serve, lm, stream, logprobs):
    other = {"prompt": "A wolf", "max_tokens": 12, "temperature": 0}
    expected = lm.generate("A wolf", max_new_tokens=12, sampler="greedy", strip_prompt=True)

    async def work(client):
        gone = Connection(
            LONG | {"stream": stream, "n": 3, "logprobs": logprobs}, after_piece=stream
        )
        running = asyncio.create_task(gone.run(client.app))
        answer = asyncio.create_task(client.complete(**other))
        if not stream:  # a stream closes itself
            await reach(client, 3)  # not the other one, which may have ended before a look
            gone.closed.set()
        await asyncio.wait_for(running, 60)
        values = await measured(client)
        left = [int(values[f"gpt2_wgpu_rows_{state}"]) for state in ("waiting", "running")]
        assert sum(left) <= 1  # the other one
        assert values['gpt2_wgpu_requests_total{status="499"}'] == "1"
        assert int(values["gpt2_wgpu_generated_tokens_total"]) < 3 * 200
        assert len(gone.pieces) < 200 and (stream or not gone.pieces)
        return await answer

    # As large as this limit: the rows of the first request are no longer counted.
    answer = serve(work, max_rows=4, max_queue=0)
    assert answer.json()["choices"][0]["text"] == expected


def test_a_client_that_does_not_read_frees_its_rows(serve, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.server.completions_endpoint.SEND_SECONDS", 0.05)

    class Unread(Connection):
        async def send(self, message):
            await asyncio.Event().wait()

    async def work(client):
        stuck = Unread(LONG | {"stream": True, "max_tokens": 4}, after_piece=False)
        await asyncio.wait_for(stuck.run(client.app), 60)
        return await client.complete(prompt="The", max_tokens=2)

    assert serve(work, max_rows=1, max_queue=0).status_code == 200


def test_hanging_up_before_the_body_is_complete(serve):
    async def work(client):
        gone = Connection({}, after_piece=False)
        gone._sent = True
        gone.closed.set()
        await gone.run(client.app)
        return await measured(client)

    assert serve(work)['gpt2_wgpu_requests_total{status="499"}'] == "1"


def test_measurements(serve):
    async def work(client):
        await client.complete(prompt=["The", "A"], max_tokens=3, stop_token_ids=[])
        await client.complete(prompt="The", foo=1)
        answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await measured(client)

    values = serve(work)
    assert values['gpt2_wgpu_requests_total{status="200"}'] == "1"
    assert values['gpt2_wgpu_requests_total{status="400"}'] == "1"
    assert values["gpt2_wgpu_prompt_tokens_total"] == "4"  # with start tokens
    assert values["gpt2_wgpu_generated_tokens_total"] == "6"
    for name in ("gpt2_wgpu_first_token_seconds", "gpt2_wgpu_request_seconds"):
        assert values[f"{name}_count"] == values[f'{name}_bucket{{le="+Inf"}}'] == "1"
        assert float(values[f"{name}_sum"]) > 0


def test_a_cancellation_for_another_reason_goes_on(serve):
    async def work(client):
        request = Connection(LONG, after_piece=False)
        running = asyncio.create_task(request.run(client.app))
        await reach(client, 1)
        running.cancel()
        await asyncio.wait([running])
        return running.cancelled(), request.pieces

    assert serve(work) == (True, [])


def test_a_server_that_stops_ends_its_rows(lm, no_leak):
    from tests.server.conftest import served

    async def main():
        async with served(lm) as client:
            request = asyncio.create_task(client.complete(**LONG))
            await reach(client, 1)
        return await request

    answer = asyncio.run(main())
    lm.backbone.check_usable()  # the app does not own it
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["error"]["message"]
