"""Errors: OpenAI's JSON object, with the status, the field at fault and no internals."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.server import completions
from gpt2_wgpu.server.api_app import create_app

pytestmark = pytest.mark.native("Starlette")

WRONG = [
    ({"foo": 1}, "foo", "Unrecognized request argument supplied: 'foo'"),
    ({"suffix": "end"}, "suffix", "suffix is not supported"),
    ({"prompt": 3}, "prompt", "prompt must be a string, a list of strings"),
    ({"prompt": []}, "prompt", "none of them empty"),
    ({"prompt": ["a", [1]]}, "prompt", "prompt must be"),
    ({"prompt": [[]]}, "prompt", "none of them empty"),
    ({"prompt": [1, 99999]}, "prompt", "99999"),
    ({"prompt": [1, True]}, "prompt", "True"),
    ({"prompt": [1] * 512}, "prompt", "512 tokens (start token included), but at most 511 fit"),
    ({"prompt": [1] * 513, "max_tokens": 0}, "prompt", "at most 512 fit"),
    ({"max_tokens": -1}, "max_tokens", "max_tokens must be an integer >= 0"),
    ({"max_tokens": 1.5}, "max_tokens", "1.5"),
    ({"temperature": "hot"}, "temperature", "temperature must be a number"),
    ({"top_p": 0}, "top_p", "top_p must be a number > 0"),
    ({"top_k": -1}, "top_k", "top_k must be an integer >= 0"),
    ({"seed": -1}, "seed", "seed must be an integer >= 0"),
    ({"n": 0}, "n", "n must be an integer >= 1"),
    ({"n": 3, "best_of": 2}, "best_of", "best_of must be >= n"),
    ({"best_of": 2, "stream": True}, "best_of", "best_of must equal n in a stream"),
    ({"logprobs": 21}, "logprobs", "logprobs must be an integer >= 0 and <= 20"),
    ({"logprobs": True}, "logprobs", "True"),
    ({"echo": 1}, "echo", "echo must be true or false"),
    ({"stop": [""]}, "stop", "non-empty"),
    ({"stop": {}}, "stop", "stop must be a string or a list"),
    ({"stop": ["x"] * 65}, "stop", "at most 64"),
    ({"stop": ["a", "x" * 1001]}, "stop", "a text of 1001 characters, but at most 1000"),
    ({"stop_token_ids": [99999]}, "stop_token_ids", "99999"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "the key 'x'"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "99999"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "the bias of token 5"),
    ({"logit_bias": [1]}, "logit_bias", "must be an object"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "1025 tokens, but at most"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
    ({"stream": True, "stream_options": {"a": 1}}, "stream_options", "include_usage"),
    ({"allowed_special": ["<|x|>"]}, "prompt", "<|x|>"),
    ({"n": 9}, "prompt", "the request has 9 rows, but this server admits 8 at once"),
]


def error_of(answer, status):
    """The error object of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text and ".py" not in answer.text
    return error


def test_wrong_fields(serve):
    async def each(client):
        return [await client.complete(**body) for body, _, _ in WRONG]

    for answer, (_, param, message) in zip(
        serve(each, max_rows=1, max_queue=7), WRONG, strict=True
    ):
        error = error_of(answer, 400)
        assert message in error["message"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_too_many_rows_are_rejected_before_their_texts_are_encoded(serve, lm, monkeypatch):
    monkeypatch.setattr(type(lm), "encode_prompts", lambda *_: pytest.fail("a text was encoded"))

    async def each(client):
        return [await client.complete(prompt=["a"] * 3, n=n) for n in (1, 3)]

    for answer, rows in zip(serve(each, max_rows=1, max_queue=1), (3, 9), strict=True):
        assert f"has {rows} rows, but this server admits 2" in error_of(answer, 400)["message"]


def test_a_null_is_no_value(complete):
    fields = ("suffix", "stop", "seed", "logprobs", "stream", "logit_bias", "n", "top_k", "user")
    answer = complete(prompt="The", max_tokens=1, **dict.fromkeys(fields))
    assert len(answer["choices"]) == 1


def test_other_errors_of_a_request(serve):
    async def each(client):
        post = client.post
        json = {"content-type": "application/json"}
        path = "/v1/completions"

        async def pieces():
            for _ in range(3):
                yield b'"' + b"x" * 400

        return {
            "unknown model": (await client.complete(model="gpt-4"), 404),
            "unknown model card": (await client.get("/v1/models/gpt-4"), 404),
            "unknown path": (await client.get("/v1/chat"), 404),
            "method": (await client.get(path), 405),
            "kind": (await post(path, content=b"{}", headers={"content-type": "text/plain"}), 415),
            "not JSON": (await post(path, content=b"{", headers=json), 400),
            "no object": (await post(path, content=b"[1]", headers=json), 400),
            "twice": (await post(path, content=b'{"n":1,"n":2}', headers=json), 400),
            "large": (await post(path, content=b" " * 1001, headers=json), 413),
            "large pieces": (await post(path, content=pieces(), headers=json), 413),
        }

    for name, (answer, status) in serve(each, max_body=1000).items():
        error = error_of(answer, status)
        if name.startswith("unknown model"):
            assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_a_full_queue(serve):
    async def three(client):
        short = {"prompt": "The", "max_tokens": 8}
        first = await asyncio.gather(*(client.complete(**short) for _ in range(3)))
        return [*first, await client.complete(**short)]

    *together, later = serve(three, max_rows=1, max_queue=1)
    # Their bodies are read in threads: any of the three may come last.
    *admitted, busy = sorted(together, key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in (*admitted, later)] == [200] * 3
    error = error_of(busy, 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert busy.headers["retry-after"] == "1"


def test_the_api_key(serve):
    async def each(client):
        def key(text):
            return {"authorization": text}

        return {
            "none": (await client.get("/v1/models"), 401),
            "wrong": (await client.get("/v1/models", headers=key("Bearer secreT")), 401),
            "other": (await client.get("/v1/models", headers=key("Basic secret")), 401),
            "odd": (await client.get("/metrics", headers=[(b"authorization", b"\xff")]), 401),
            "completion": (await client.complete(prompt="a"), 401),
            "right": (await client.get("/v1/models", headers=key("Bearer secret")), 200),
            "open": (await client.get("/health"), 200),
        }

    for answer, status in serve(each, api_key="secret").values():
        assert answer.status_code == status
        if status == 401:
            error = error_of(answer, 401)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_foreign_names_of_a_local_server(serve):
    async def each(client):
        names = ("localhost:8000", "LOCALHOST", "[::1]:80", "attacker.example", "")
        return [await client.get("/health", headers={"host": name}) for name in names]

    answers = serve(each, hosts={"localhost", "[::1]"})
    assert [answer.status_code for answer in answers] == [200, 200, 200, 403, 403]


def test_pages_of_other_origins(serve):
    headers = {"origin": "https://a.example"}
    asked = headers | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    async def ask(client):
        preflight = await client.options("/v1/completions", headers=asked)
        return preflight, await client.get("/health", headers=headers)

    name = "access-control-allow-origin"
    for answer in serve(ask):
        assert name not in answer.headers
    preflight, answer = serve(ask, cors=["https://a.example"], api_key="secret")
    assert preflight.status_code == 200
    assert preflight.headers[name] == answer.headers[name] == "https://a.example"
    preflight, answer = serve(ask, cors=["https://b.example"])
    assert preflight.status_code == 400 and name not in answer.headers


@pytest.mark.parametrize("secret", [False, True])
def test_a_failure_names_no_internals(serve, monkeypatch, caplog, secret):
    async def fail(*_):
        raise RuntimeError("secret detail") if secret else NumericalError("logits of row 0: nan")

    monkeypatch.setattr(completions, "token_logprobs", fail)

    async def both(client):
        common = {"prompt": "The", "max_tokens": 2, "logprobs": 1, "echo": True}
        return await client.complete(**common), await client.complete(**common, stream=True)

    for answer in serve(both):
        error = error_of(answer, 500)
        assert error["type"] == "server_error"
        assert ("logits of row 0" in error["message"]) is not secret
        assert "secret detail" not in answer.text
    assert len(caplog.records) == 2 and caplog.records[0].exc_info


def test_a_failure_in_mid_stream(serve, monkeypatch, caplog):
    step = completions.merged

    async def failing(rows):
        async for each in step(rows):
            yield each
            raise NumericalError("logits of row 0: nan")

    monkeypatch.setattr(completions, "merged", failing)
    answer = serve(lambda client: client.complete(prompt="The", max_tokens=5, stream=True))
    *_, last, rest = answer.text.split("\n\n")
    assert last.startswith('data: {"error":{"message":"logits of row 0: nan"') and rest == ""
    assert "[DONE]" not in answer.text


def test_wrong_arguments_of_the_app(lm, device):
    for rows in (0, 4097):
        with pytest.raises(InvalidArgumentError, match="max_rows must be"):
            create_app(lm, max_rows=rows)
    with (
        gw.GPT2CausalLM.from_preset("fairytales", preprocessor=None, dtype="float32") as bare,
        pytest.raises(InvalidArgumentError, match="no preprocessor"),
    ):
        create_app(bare)
