"""Types of ``generate``: checked by `make lint`, not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import gpt2_wgpu as gw
from gpt2_wgpu.errors import GPT2WGPUError


async def results(lm: gw.GPT2CausalLM, packed: dict[str, Any], count: int) -> None:
    assert_type(lm.generate("text", 20), str)
    assert_type(lm.generate("text", max_new_tokens=3, sampler="greedy", seed=1), str)
    assert_type(lm.generate("text", num_return_sequences=count), str | list[str])
    assert_type(lm.generate(["text"], stop_texts=["."]), list[str])
    assert_type(lm.generate(packed, stop_token_ids=None), dict[str, Any])
    assert_type(await lm.generate_async("text"), str)
    assert_type(await lm.generate_async(["text"]), list[str])
    assert_type("".join(lm.stream("text", 9, None, stop_texts=["."])), str)
    assert_type(lm.stream([1, 2], wait=False), gw.TextStream)
    assert_type(next(lm.stream(["text"], seed=[1], time_limit=3)), tuple[int, str])
    assert_type(lm.stream([[1, 2]], cancellation=gw.Cancellation()), gw.BatchStream)
    assert_type(lm.stream("text", num_return_sequences=1), gw.TextStream)
    assert_type(lm.stream("text", num_return_sequences=count), gw.TextStream | gw.BatchStream)
    assert_type(lm.stream(["text"], num_return_sequences=count), gw.BatchStream)
    assert_type(lm.stream(packed), gw.TextStream | gw.BatchStream)
    assert_type(lm.generate("text", return_details=True).token_ids, list[int])
    assert_type(lm.generate(["text"], return_details=True), list[gw.GenerationDetails])
    assert_type(gw.generate_batches(lm, ["text"], seed=1, batch_size=4), Iterator[str])
    found = gw.generate_batches(lm, ["text"], on_error="skip")
    assert_type(next(found), str | GPT2WGPUError)
    async for text in gw.generate_batches_async(lm, ["text"], 9):
        assert_type(text, str)
    gw.generate_batches(lm, ["text"], max_new_token=3)  # type: ignore[call-overload]
    lm.generate("text", max_new_token=3)  # type: ignore[call-overload]
    lm.generate(3)  # type: ignore[call-overload]


async def of_sessions(session: gw.Session) -> None:
    assert_type(session.generate(3, seed=1), str | Any)
    assert_type(session.generate(3, return_details=True), gw.GenerationDetails)
    assert_type(await session.generate_async(3, return_details=True), gw.GenerationDetails)
    session.generate(3, max_length=3)  # type: ignore[call-overload]
