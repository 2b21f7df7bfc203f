"""Two replicas of the HTTP API on a local Ray cluster, one of them killed in mid-run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

import gpt2_wgpu as gw

ROOT = Path(__file__).parents[2]
PROMPTS = [f"{opening} {i}" for i in range(12) for opening in ("The king", "A wolf", "Once")]
TOKENS = 24


@pytest.fixture(scope="module")
def cluster():
    """Ray with two GPUs that only it believes in."""
    import ray

    ray.init(
        num_cpus=4,
        num_gpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def address(cluster, checkpoint):
    """The address of the API of two replicas."""
    from ray import serve

    from gpt2_wgpu.integrations.ray_serve import completions

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(
        completions(
            str(checkpoint),
            "tiny",
            dtype="float32",
            adapter=gw.adapters()[0].name,
            num_replicas=2,
            ray_actor_options={"num_gpus": 1, "num_cpus": 0.5},
        )
    )
    yield f"http://127.0.0.1:{port}/v1"
    serve.shutdown()


def replicas():
    """The processes of the replicas."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ServeReplica:default:completions" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def test_all_requests_are_answered_when_a_replica_is_killed(address, checkpoint):
    import openai

    with gw.GPT2CausalLM.from_preset(checkpoint, dtype="float32") as lm:
        expected = [
            lm.generate(prompt, max_new_tokens=TOKENS, sampler="greedy", strip_prompt=True)
            for prompt in PROMPTS
        ]

    async def ask(client, prompt):
        answer = await client.completions.create(
            model="tiny", prompt=prompt, max_tokens=TOKENS, temperature=0
        )
        return answer.choices[0].text

    statuses = []

    async def note(response):
        statuses.append(response.status_code)

    async def all_of_them():
        # Requests of the killed replica fail with status 500, which the client tries again.
        client = openai.AsyncOpenAI(
            api_key="none",
            base_url=address,
            max_retries=8,
            timeout=60,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}),
        )
        asking = [asyncio.create_task(ask(client, prompt)) for prompt in PROMPTS]
        some = asyncio.as_completed(asking)
        for _ in range(4):
            await next(some)
        os.kill(victim, signal.SIGKILL)
        assert not all(task.done() for task in asking)
        return await asyncio.gather(*asking)

    before = replicas()
    assert len(before) == 2
    victim = next(iter(before))
    assert asyncio.run(all_of_them()) == expected
    assert statuses.count(200) == len(PROMPTS) < len(statuses)  # some were tried again
    deadline = time.monotonic() + 60
    while len(after := replicas()) < 2 or victim in after:  # Ray starts another one
        assert time.monotonic() < deadline
        time.sleep(0.2)
