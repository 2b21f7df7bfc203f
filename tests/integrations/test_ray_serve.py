"""The application for Ray Serve, without Ray: its options, and the app of a replica.

With Ray itself, and two replicas: live_ray_serve.py, run by `make parity`.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import httpx
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.integrations import ray_serve
from gpt2_wgpu.server.api_app import create_app


@pytest.fixture
def deployed(monkeypatch):
    """What ``serve.deployment`` gets; ``build`` is the function of a replica."""
    found = SimpleNamespace()

    def deployment(replica, **options):
        found.options = options
        return SimpleNamespace(bind=lambda: "an application")

    def ingress(build):
        found.build = build
        return lambda: "a replica"

    serve = SimpleNamespace(deployment=deployment, ingress=ingress)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(serve=serve))
    return found


def test_a_replica_answers_and_frees_its_model(deployed, checkpoint, device, monkeypatch):
    opened, loaded = [], []

    def open_assigned(adapter):
        opened.append(adapter)
        return device

    def made(lm, *args, **options):
        loaded.append(lm)
        return create_app(lm, *args, **options)

    monkeypatch.setattr(ray_serve, "open_assigned", open_assigned)
    monkeypatch.setattr(ray_serve, "create_app", made)
    options = {"num_replicas": 2, "ray_actor_options": {"num_gpus": 1}}
    found = ray_serve.completions(
        str(checkpoint), "tiny", dtype="float32", max_rows=3, max_queue=4, api_key="x", **options
    )
    assert found == "an application" and opened == []
    assert deployed.options == {"name": "completions", "max_ongoing_requests": 7, **options}
    app = deployed.build()
    assert opened == ["auto"]

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://any") as client,
        ):
            body = {"model": "tiny", "prompt": "The king", "max_tokens": 5, "temperature": 0}
            headers = {"authorization": "Bearer x"}
            return (await client.post("/v1/completions", json=body, headers=headers)).json()

    with gw.GPT2CausalLM.from_preset(checkpoint, dtype="float32", device=device) as lm:
        greedy = lm.generate("The king", max_new_tokens=5, sampler="greedy", strip_prompt=True)
    assert asyncio.run(ask())["choices"][0]["text"] == greedy
    (of_replica,) = loaded
    assert of_replica.backbone.disposed


def test_options_of_the_deployment_come_first(deployed):
    ray_serve.completions(max_ongoing_requests=5, name="mine")
    assert deployed.options == {"name": "mine", "max_ongoing_requests": 5}
    with pytest.raises(InvalidArgumentError, match="max_rows must be"):
        ray_serve.completions(max_rows=0)
