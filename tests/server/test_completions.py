"""`POST /v1/completions`: the texts are those of `generate`, the objects those of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import math
import threading

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.evaluation import token_logprobs
from gpt2_wgpu.server import completions, completions_endpoint
from tests.server.conftest import MODEL

pytestmark = pytest.mark.native("Starlette")

PROMPT = "The king"
NEUTRAL = {"top_k": 0, "top_p": 1, "repetition_penalty": 1}


def events(answer):
    """The JSON objects of a stream."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *found, end, rest = answer.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in found]


def test_an_answer(complete, lm):
    answer = complete(model=MODEL, prompt=PROMPT, max_tokens=8, temperature=0)
    text = lm.generate(PROMPT, max_new_tokens=8, sampler="greedy", strip_prompt=True)
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "length"}
    assert answer["choices"] == [choice]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
    assert (answer["object"], answer["model"]) == ("text_completion", MODEL)
    assert answer["id"].startswith("cmpl-") and answer["system_fingerprint"].startswith("fp_")


def test_each_choice_has_its_own_seed(complete, lm):
    sampler = samplers.TopP(0.9, 50, temperature=0.7, presence_penalty=0.5, logit_bias={262: -100})
    expected = [
        lm.generate(text, max_new_tokens=6, sampler=sampler, seed=7 + index, strip_prompt=True)
        for index, text in enumerate([PROMPT, PROMPT, "A wolf", "A wolf"])
    ]
    answer = complete(
        prompt=[PROMPT, "A wolf"],
        n=2,
        seed=7,
        max_tokens=6,
        temperature=0.7,
        top_p=0.9,
        top_k=50,
        presence_penalty=0.5,
        repetition_penalty=1,
        logit_bias={"262": -100},
    )
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({*expected}) == 4


def test_defaults_are_those_of_the_command(complete, lm, monkeypatch):
    ours = samplers.of_settings(0.8, 40, 0.95, repetition_penalty=1.1)
    expected = lm.generate(PROMPT, max_new_tokens=5, sampler=ours, seed=1, strip_prompt=True)
    assert complete(prompt=PROMPT, seed=1, max_tokens=5)["choices"][0]["text"] == expected
    monkeypatch.setattr(lm, "generation_defaults", {"temperature": 0})
    monkeypatch.setattr(lm, "generation_limits", {"max_new_tokens": 5})
    expected = lm.generate(PROMPT, max_new_tokens=5, sampler="greedy", strip_prompt=True)
    assert complete(prompt=PROMPT)["choices"][0]["text"] == expected
    monkeypatch.setattr(lm, "generation_defaults", {"temperature": 0, "num_beams": 3})
    with pytest.warns(UserWarning, match="sets num_beams, but the server has no searches"):
        assert complete(prompt=PROMPT)["choices"][0]["text"] == expected
    monkeypatch.setattr(lm, "generation_defaults", {"temperature": 0})
    limits = {"max_new_tokens": 5, "stop_texts": (expected[2:4],), "time_limit": 1e-6}
    monkeypatch.setattr(lm, "generation_limits", limits)
    with pytest.warns(UserWarning, match="sets max_time, but the server has no time limits"):
        assert complete(prompt=PROMPT)["choices"][0]["text"] == expected[:2]
        assert complete(prompt=PROMPT, stop=[])["choices"][0]["text"] == expected


def test_forms_of_a_prompt(complete, lm):
    ids = lm.preprocessor.tokenizer.encode(PROMPT)
    start = lm.preprocessor.tokenizer.start_token_id
    common = {"max_tokens": 5, "temperature": 0}
    text = complete(prompt=PROMPT, **common)["choices"][0]["text"]
    for prompt in ([PROMPT], [start, *ids], [[start, *ids]]):
        assert complete(prompt=prompt, **common)["choices"][0]["text"] == text
    bare = complete(prompt=ids, **common)
    assert bare["usage"]["prompt_tokens"] == len(ids)
    answer = complete(prompt=PROMPT, add_start_token=False, **common)
    assert answer["choices"] == bare["choices"]
    token = f"<|endoftext|>{PROMPT}"
    found = complete(prompt=token, add_start_token=False, allowed_special="all", **common)
    assert found["choices"][0]["text"] == text
    assert complete(**common)["usage"]["prompt_tokens"] == 1  # a new text: the start token


def test_ends(complete, lm):
    text = lm.generate(PROMPT, max_new_tokens=12, sampler="greedy", strip_prompt=True)
    stop = text.split()[2]
    before = text[: text.index(stop)]
    common = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    answers = complete(stop=[stop, "xyz"], **common), complete(stop=stop, stream=False, **common)
    for answer in answers:
        (choice,) = answer["choices"]
        assert (choice["text"], choice["finish_reason"]) == (before, "stop")
        assert answer["usage"]["completion_tokens"] < 12
    first = lm.preprocessor.tokenizer.encode(text)[0]
    (choice,) = complete(stop_token_ids=[first], **common)["choices"]
    assert (choice["finish_reason"], choice["text"]) == ("stop", text[: len(choice["text"])])
    context = lm.backbone.config.n_positions
    answer = complete(prompt=[1] * (context - 2), max_tokens=50, temperature=0, stop_token_ids=[])
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"


def test_log_probabilities(complete, lm):
    (details,) = lm.generate(
        [PROMPT], max_new_tokens=4, sampler="greedy", return_details=True, top_logprobs=2
    )
    answer = complete(prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2)
    found = answer["choices"][0]["logprobs"]
    assert found["token_logprobs"] == pytest.approx(details.logprobs, abs=1e-5)
    tokens = found["tokens"]
    assert "".join(tokens) == answer["choices"][0]["text"]
    assert found["text_offset"] == [len("".join(tokens[:i])) for i in range(4)]
    decode = lm.preprocessor.tokenizer.decode
    for top, expected in zip(found["top_logprobs"], details.top_logprobs, strict=True):
        named = {decode([token]): value for token, value in expected.items()}
        assert top == pytest.approx(named, abs=1e-5)


@pytest.mark.parametrize("most", [0, 1])
def test_scores_of_a_prompt(complete, lm, most):
    """As lm-eval asks for them, with ids and without a start token."""
    ids = lm.preprocessor.tokenizer.encode("The king's café")
    answer = complete(prompt=[ids, ids[:3]], max_tokens=most, echo=True, logprobs=1, temperature=0)
    for choice, row in zip(answer["choices"], (ids, ids[:3]), strict=True):
        found = choice["logprobs"]
        assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
        values = found["token_logprobs"][1 : len(row)]
        assert values == pytest.approx(lm.logprobs([row])[0], abs=1e-5)
        assert len(found["tokens"]) == len(row) + most
        assert choice["text"].startswith(lm.preprocessor.tokenizer.decode(row))
    for value, top in zip(values, found["top_logprobs"][1:], strict=False):
        assert max(top.values()) >= value and value in top.values()
    whole = complete(prompt="The", echo=True, max_tokens=0, logprobs=0)["choices"][0]
    assert (whole["text"], len(whole["logprobs"]["token_logprobs"])) == ("The", 1)
    assert whole["logprobs"]["token_logprobs"][0] < 0  # given the start token


def test_parts_of_a_character_are_named_by_their_bytes(complete, lm):
    ids = [each for each in range(256) if lm.preprocessor.tokenizer.token_bytes(each) == b"\xc3"]
    answer = complete(prompt=ids, max_tokens=0, echo=True, logprobs=0)
    assert answer["choices"][0]["logprobs"]["tokens"] == ["bytes:\\xc3"]


def test_the_best_rows_are_chosen(complete, lm):
    common = {"prompt": PROMPT, "max_tokens": 5, "seed": 3, "logprobs": 0, "temperature": 1.5}
    rows = complete(n=4, **common)["choices"]
    means = {choice["text"]: math.fsum(choice["logprobs"]["token_logprobs"]) / 5 for choice in rows}
    expected = sorted(means, key=means.__getitem__, reverse=True)[:2]
    answer = complete(n=2, best_of=4, **common)
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert answer["usage"]["completion_tokens"] == 20
    del common["logprobs"]
    assert [each["text"] for each in complete(n=2, best_of=4, **common)["choices"]] == expected


def test_a_stream_has_the_same_text(serve):
    common = {"prompt": [PROMPT, "A wolf"], "max_tokens": 9, "seed": 5, "echo": True}

    async def both(client):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return await asyncio.gather(client.complete(**common), client.complete(**common, **options))

    whole, stream = serve(both)
    *found, last = events(stream)
    texts, reasons = ["", ""], [[], []]
    for event in found:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]].append(choice["finish_reason"])
        assert event["usage"] is None
    choices = whole.json()["choices"]
    assert texts == [choice["text"] for choice in choices]
    for index, each in enumerate(reasons):
        assert each == [None] * (len(each) - 1) + [choices[index]["finish_reason"]]
        assert len(each) > 2
    assert (last["choices"], last["usage"]) == ([], whole.json()["usage"])
    assert len({event["id"] for event in [*found, last]}) == 1


@pytest.mark.parametrize("more", [{}, {"echo": True}, {"echo": True, "add_start_token": False}])
def test_a_stream_has_the_log_probabilities_of_each_piece(serve, monkeypatch, more):
    monkeypatch.setattr("gpt2_wgpu.models.pace.STEP_SECONDS", 0.0)  # one step a submit
    common = {"prompt": PROMPT, "max_tokens": 12, "seed": 5, "logprobs": 2, "n": 2, **more}

    async def both(client):
        text = (await client.complete(**common)).json()["choices"][0]["text"]
        stop = text[-9:-5]  # within a token, perhaps
        options = common | {"stop": stop}
        return await client.complete(**options), await client.complete(**options, stream=True)

    whole, stream = serve(both)
    for index, expected in enumerate(whole.json()["choices"]):
        pieces = [e["choices"][0] for e in events(stream) if e["choices"][0]["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == expected["text"]
        assert pieces[-1]["finish_reason"] == expected["finish_reason"]
        found = [piece["logprobs"] for piece in pieces if piece["logprobs"]]
        assert len(found) > 1
        for name, values in expected["logprobs"].items():
            joined = [each for logprobs in found for each in logprobs[name]]
            if name == "token_logprobs":
                assert joined[0] == pytest.approx(values[0], abs=1e-5)
                assert joined[1:] == pytest.approx(values[1:], abs=1e-5)
            elif name == "top_logprobs":
                assert [each and [*each] for each in joined] == [
                    each and [*each] for each in values
                ]
            else:
                assert joined == values
    assert whole.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_new_tokens_take_no_pass(serve, lm, monkeypatch, stream):
    """They are those of the steps: the numbers of ``generate``, with ``echo`` after a pass."""
    (details,) = lm.generate(
        [PROMPT], max_new_tokens=6, sampler="greedy", return_details=True, top_logprobs=1
    )
    passes = []

    async def counted(*arguments):
        passes.append(arguments)
        return await token_logprobs(*arguments)

    monkeypatch.setattr(completions, "token_logprobs", counted)
    common = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "logprobs": 1, "stream": stream}

    async def both(client):
        return await client.complete(**common), await client.complete(**common, echo=True)

    numbers = []
    for answer in serve(both):
        found = events(answer) if stream else [answer.json()]
        choices = [each["choices"][0]["logprobs"] for each in found]
        numbers.append([value for each in choices if each for value in each["token_logprobs"]])
    assert numbers[0] == pytest.approx(details.logprobs, abs=1e-6)
    assert numbers[1][-6:] == pytest.approx(details.logprobs, abs=1e-6)
    assert [scored for _, _, scored, _ in passes] == [[lm.preprocessor.tokenizer.encode(PROMPT)]]


@pytest.mark.parametrize("stream", [False, True])
def test_no_memory_for_log_probabilities_of_a_prompt(serve, monkeypatch, stream):
    """An error of this request alone, which leaves no row."""

    async def fail(*_):
        raise OutOfGPUMemoryError("none left")

    monkeypatch.setattr(completions, "token_logprobs", fail)
    common = {"prompt": PROMPT, "max_tokens": 400, "logprobs": 0, "stream": stream}

    async def both(client):
        failed = await client.complete(**common, echo=True)
        rows = await client.get("/metrics")
        return failed, rows.text, await client.complete(**common | {"max_tokens": 2})

    failed, rows, answer = serve(both)
    assert "\ngpt2_wgpu_rows_running 0\n" in rows and "\ngpt2_wgpu_rows_waiting 0\n" in rows
    assert "none left" in failed.text
    assert answer.status_code == 200


def test_requests_that_come_together(serve, lm):
    prompts = [PROMPT, "A wolf", "Once upon a time there was", "In the forest", "She"]
    expected = [
        lm.generate(prompt, max_new_tokens=3 + index, sampler="greedy", strip_prompt=True)
        for index, prompt in enumerate(prompts)
    ]

    async def all_of_them(client):
        return await asyncio.gather(
            *(
                client.complete(prompt=prompt, max_tokens=3 + index, temperature=0)
                for index, prompt in enumerate(prompts)
            )
        )

    found = serve(all_of_them, max_rows=2)  # the others wait
    assert [answer.json()["choices"][0]["text"] for answer in found] == expected


def test_a_body_is_read_beside_other_requests(serve, monkeypatch):
    """Encoding takes seconds for a long text without spaces."""
    parse, answered = completions_endpoint.parse, threading.Event()

    def slow(*args):
        assert answered.wait(30), "another request waits for it"
        return parse(*args)

    monkeypatch.setattr(completions_endpoint, "parse", slow)

    async def work(client):
        slow_one = asyncio.create_task(client.complete(prompt=PROMPT, max_tokens=1))
        await asyncio.sleep(0)
        assert (await client.get("/health")).status_code == 200
        answered.set()
        return (await slow_one).status_code

    assert serve(work) == 200
