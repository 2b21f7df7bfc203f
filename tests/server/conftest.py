"""Fixtures: the embedded model in f32, and its API in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.server.api_app import create_app

MODEL = "fairytales"


@pytest.fixture(scope="session")
def lm(device):
    """The embedded model."""
    with gw.GPT2CausalLM.from_preset(MODEL, dtype="float32") as loaded:
        yield loaded


class Client(httpx.AsyncClient):
    """Client of an app in this process."""

    def __init__(self, app, **options):
        # What a server makes of an exception is not raised here.
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        super().__init__(transport=transport, base_url="http://localhost", **options)
        self.app = app

    async def complete(self, **body):
        """The answer to `POST /v1/completions`."""
        return await self.post("/v1/completions", json=body)


@asynccontextmanager
async def served(lm, **options) -> AsyncIterator[Client]:
    app = create_app(lm, MODEL, **options)
    async with app.router.lifespan_context(app), Client(app) as client:
        yield client


@pytest.fixture
def serve(lm, no_leak):
    """Runs ``work(client)`` on an app with these options; nothing stays on the device."""

    def run(work, **options):
        async def main():
            async with served(lm, **options) as client:
                return await work(client)

        return asyncio.run(main())

    return run


@pytest.fixture
def complete(serve):
    """The answer to one request, as JSON."""

    def ask(**body):
        answer = serve(lambda client: client.complete(**body))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask
