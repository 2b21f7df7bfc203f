"""OpenAI's own client, against the app in this process."""

from __future__ import annotations

import pytest

from tests.server.conftest import MODEL

pytestmark = pytest.mark.native("openai")


def asked(serve, work, **options):
    """What ``work(client)`` returns, with OpenAI's client."""
    import openai

    async def run(http):
        client = openai.AsyncOpenAI(
            api_key="secret", base_url="http://localhost/v1", http_client=http, max_retries=0
        )
        return await work(client)

    return serve(run, **options)


def test_texts_and_streams(serve, lm):
    expected = lm.generate("The king", max_new_tokens=8, sampler="greedy", strip_prompt=True)
    common = {"model": MODEL, "prompt": "The king", "max_tokens": 8, "temperature": 0}

    async def work(client):
        whole = await client.completions.create(**common, logprobs=1, extra_body={"top_k": 5})
        stream = await client.completions.create(
            **common, stream=True, stream_options={"include_usage": True}
        )
        models = [each.id async for each in client.models.list()]
        return whole, [event async for event in stream], models, await client.models.retrieve(MODEL)

    whole, events, models, card = asked(serve, work, api_key="secret")
    assert whole.choices[0].text == expected
    assert whole.choices[0].finish_reason == "length"
    assert len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens == 8
    assert "".join(choice.text for event in events for choice in event.choices) == expected
    assert events[-1].usage == whole.usage
    assert models == [card.id] == [MODEL]


def test_errors(serve):
    import openai

    async def work(client):
        found = []
        for kind, body in (
            (openai.BadRequestError, {"temperature": -1}),
            (openai.BadRequestError, {"extra_body": {"foo": 1}}),
            (openai.NotFoundError, {"model": "gpt-4"}),
        ):
            with pytest.raises(kind) as error:
                await client.completions.create(**{"model": MODEL, "prompt": "a"} | body)
            found.append(error.value.param)
        with pytest.raises(openai.AuthenticationError, match="API key"):
            await client.with_options(api_key="no").completions.create(model=MODEL, prompt="a")
        return found

    assert asked(serve, work, api_key="secret") == ["temperature", "foo", "model"]
