"""Settings of a page's calls, as passed by its worker to the model."""

from __future__ import annotations

import asyncio
import math
import re
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import errors, samplers
from gpt2_wgpu.integrations import web_worker
from gpt2_wgpu.integrations.web_settings import DEFAULTS, SETTINGS, Settings, javascript_names

pytestmark = pytest.mark.native("the tests of the page run it in the browser")
TYPES = Path(__file__).parents[2] / "web" / "gpt2.d.ts"


@pytest.mark.parametrize(
    ("of_file", "settings", "penalty"),
    [
        ({}, {}, 1.1),
        ({}, {"temperature": 0.5}, 1.1),
        ({}, {"temperature": 0}, 1.0),
        ({}, {"temperature": 0, "repetitionPenalty": 1.3}, 1.3),
        ({}, {"repetitionPenalty": 1, "maxTokens": 9}, 1),
        ({"temperature": 0}, {}, 1.0),
        ({"temperature": 0}, {"temperature": 0.5}, 1.1),
        ({"repetition_penalty": 1.2}, {}, 1.2),
        ({"repetition_penalty": 1.2}, {"repetitionPenalty": 1}, 1),
    ],
)
def test_drawn_tokens_are_kept_out_of_loops(of_file, settings, penalty):
    found = Settings.of(settings, of_file | {"max_new_tokens": 5})
    assert found.sampler.repetition_penalty == penalty
    assert found.arguments["max_new_tokens"] == settings.get("maxTokens", 5)


def test_loads_at_the_same_time_open_one_device(device, monkeypatch):
    running, tested = [], []

    async def require(device, dtype):
        assert not running
        running.append(device)
        await asyncio.sleep(0)
        tested.append((running.pop(), dtype))

    async def loads():
        await asyncio.gather(*(web_worker.open_device("float16") for _ in range(3)))

    monkeypatch.setattr(web_worker, "require_right_results", require)
    asyncio.run(loads())
    assert tested == [(device, "float16")] * 3


def test_seeds_of_texts_are_consecutive():
    assert Settings.of({"seed": 2**64 - 1, "numReturnSequences": 2}, {}).seeds == [2**64 - 1, 0]
    assert Settings.of({"seed": [5, 2]}, {}, 2).seeds == [5, 2]
    drawn = Settings.of({}, {}, 3).seeds
    assert drawn and drawn == [*range(drawn[0], drawn[0] + 3)]
    assert Settings.of({"temperature": 0}, {}, 3).seed_of(2) is None


def test_errors_have_javascripts_names():
    for bias, message in (
        (3, "logitBias must be an object"),
        ({"king": 3}, "id of logitBias must"),
        (True, "not true$"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=message), javascript_names():
            Settings.of({"logitBias": bias}, {})
    for message, expected in {
        "max_new_tokens: 1 or None, not 'a None b'": "maxTokens: 1 or null, not 'a None b'",
        "the model's top_k is True": "the model's topK is true",
        "a str or a list of str": "a text or an array of texts",
    }.items():
        wrong = pytest.raises(errors.InvalidArgumentError, match=f"^{expected}$")
        with wrong, javascript_names():
            raise errors.InvalidArgumentError(message)


def test_beam_search_and_time_limit():
    own = {"repetition_penalty": 1.2, "temperature": 0.8}
    given = {"numBeams": 3, "lengthPenalty": 0.5, "noRepeatNgramSize": 2, "suppressTokens": [4]}
    found = Settings.of({**given, "timeLimit": 5}, own)
    config = found.sampler.get_config()
    assert (config["num_beams"], config["length_penalty"]) == (3, 0.5)
    assert (config["repetition_penalty"], config["no_repeat_ngram_size"]) == (1.2, 2)
    assert config["suppress_tokens"] == [4]
    assert (found.seeds, found.arguments["time_limit"]) == (None, 5)
    assert Settings.of({}, own).arguments["time_limit"] is None
    for wrong, message in (
        ({"numBeams": 2, "temperature": 0.5}, "not random: omit temperature"),
        ({"numBeams": 2, "seed": 1}, "omit seed"),
        ({"numBeams": 40}, "numBeams must"),
        ({"lengthPenalty": 2}, "set numBeams, too"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=message), javascript_names():
            Settings.of(wrong, own)


def test_a_search_of_the_checkpoint():
    """Values that say how to sample leave it."""
    own = {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0}
    for given in ({}, {"seed": 4}, {"repetitionPenalty": 1}):
        found = Settings.of(given, own)
        config = found.sampler.get_config()
        assert (config["num_beams"], config["length_penalty"], found.seeds) == (3, 2.0, None)
    assert Settings.of({"lengthPenalty": 0.5}, own).sampler.get_config()["length_penalty"] == 0.5
    config = Settings.of({"numBeams": 2}, own).sampler.get_config()
    assert (config["num_beams"], config["early_stopping"]) == (2, True)
    assert isinstance(Settings.of({"temperature": 0}, own).sampler, samplers.Greedy)
    assert isinstance(Settings.of({"topP": 0.95}, own).sampler, samplers.TopP)
    assert isinstance(Settings.of({}, {"penalty_alpha": 0.5}).sampler, samplers.Contrastive)
    wrong = pytest.raises(errors.InvalidArgumentError, match=r"^topK of contrastive .* not 40")
    with wrong, javascript_names():
        Settings.of({"topK": 40}, {"penalty_alpha": 0.5})
    assert Settings.of({"returnAllBeams": True}, own).sampler.return_all_beams
    wrong = pytest.raises(errors.InvalidArgumentError, match="part of beam search: set numBeams")
    with wrong:
        Settings.of({"returnAllBeams": True, "temperature": 0.5}, own)


@pytest.mark.parametrize("search", [{"num_beams": 4}, {"penalty_alpha": 0.6, "top_k": 4}])
def test_a_session_of_a_checkpoint_with_a_search(tales, search):
    """It samples, as the page needs, and a warning says so."""
    with_search = copy(tales)
    with_search.generation_defaults = search
    model = web_worker.Model("a model", with_search)
    (warning,) = model.info()["warnings"]
    name, value = next(iter(search.items()))
    assert f"{name} {value}" in warning and "are sampled" in warning
    session = model.session("Once upon", {})
    fields = {"topK": 4, "maxTokens": 3}
    for given in ({"maxTokens": 3}, fields):
        text = session.stream(given)
        assert asyncio.run(text.next())
        text.close()
    session.close()


def test_a_late_call_of_a_session_ends_while_the_session_generates(tales):
    async def read():
        session = web_worker.Model("a model", tales).session("Once upon", {})
        try:
            plain = {"temperature": 0, "maxTokens": 12}
            running = session.stream(plain)
            text = await running.next()
            late = session.stream({"timeLimit": 1e-6, "details": True}, None, True)
            assert await late.next() is None
            assert (await late.details())["finishReason"] == "time_limit"
            while (piece := await running.next()) is not None:
                text += piece
            assert running.final_stats()["finishReason"] == "length"
            assert text == tales.generate(
                "Once upon", max_new_tokens=12, sampler="greedy", strip_prompt=True
            )
            (part,) = (await session.saved_run())["parts"]
            assert part["end"] - part["start"] == 12
        finally:
            session.close()

    asyncio.run(read())


def test_tokens_of_a_checkpoint_with_a_limit(tales):
    """`max_length` of generation_config.json, without maxTokens."""
    limited = copy(tales)
    limited.generation_limits = {"max_length": 12, "max_new_tokens": None}
    text = web_worker.Model("a model", limited).stream("Once upon", {"tokens": True})

    async def read():
        found = 0
        while (tokens := await text.next()) is not None:
            found += len(tokens)
        return found

    assert asyncio.run(read()) == 12 - 3
    text.close()


def test_infinity_switches_the_time_limit_of_a_checkpoint_off(tales):
    limited = copy(tales)
    limited.generation_limits = {"time_limit": 1e-9}
    model = web_worker.Model("a model", limited)
    assert model.info()["timeLimit"] == 1e-9
    assert web_worker.Model("a model", tales).info()["timeLimit"] is None
    for seconds, tokens in ((None, 0), (math.inf, 3)):
        session = model.session("Once upon", {})
        text = session.stream({"maxTokens": 3, "timeLimit": seconds})
        while asyncio.run(text.next()) is not None:
            pass
        assert text.final_stats()["tokens"] == tokens
        text.close()
        session.close()
    wrong = pytest.raises(errors.InvalidArgumentError, match="timeLimit must be")
    with wrong, javascript_names():
        model.stream("Once", {"timeLimit": -math.inf})


@pytest.mark.parametrize(
    ("context", "length", "measured", "new"),
    [(512, 400, 256, 32), (512, 9, 9, 32), (60, 60, 30, 30), (270, 270, 238, 32), (3, 3, 2, 1)],
)
def test_times_of_a_long_text_are_those_of_its_end(
    tales, monkeypatch, context, length, measured, new
):
    given = []

    async def measure(lm, ids, new_tokens, repeats):
        given.append((ids, new_tokens, repeats))
        seconds = [0.5] * repeats
        names = ("odds_after_edit", "attention_of_layer", "lens", "plain", "details")
        return {f"{name}_seconds": seconds for name in names}

    monkeypatch.setattr("gpt2_wgpu.bench.inspection.measure_inspection", measure)
    config = replace(tales.backbone.config, n_positions=context)
    monkeypatch.setattr(tales.backbone, "config", config)
    ids = [*range(100, 100 + length)]
    found = asyncio.run(web_worker.Model("a model", tales).inspect(ids, {"bench": 2}))["bench"]
    assert given == [(ids[-measured:], new, 2)]
    assert (found["tokens"], found["newTokens"]) == (measured, new)
    assert found["lensTokens"] == min(12, measured)


@pytest.mark.parametrize(
    ("context", "length", "said"),
    [
        (2, 2, "bench needs a model with a context of three tokens or more .*, not of 2"),
        (3, 1, "bench needs a text of two tokens or more, not of 1"),
        (512, 1, "bench needs a text of two tokens or more, not of 1"),
    ],
)
def test_what_is_too_short_to_measure_is_named(tales, monkeypatch, context, length, said):
    config = replace(tales.backbone.config, n_positions=context)
    monkeypatch.setattr(tales.backbone, "config", config)
    model = web_worker.Model("a model", tales)
    with pytest.raises(errors.InvalidArgumentError, match=said):
        asyncio.run(model.inspect([5] * length, {"bench": 1}))


def test_every_setting_is_declared():
    """Those of `Settings`, `SeveralOptions` and `DetailOptions` in gpt2.d.ts."""
    declared = set(re.findall(r"^  (\w+)\??: ", TYPES.read_text("utf-8"), re.MULTILINE))
    assert set(SETTINGS) <= declared


def test_a_text_of_the_same_shape_records_nothing(tales, monkeypatch):
    """The model is not compiled again; a constraint, and what the console has set, end with it."""
    model, compiled = web_worker.Model("a model", tales), []
    monkeypatch.setattr(tales, "compile", lambda *_, **given: compiled.append(given))
    model.stream("Once", {"temperature": 0.5}).close()
    assert compiled == []
    rules = type("Rules", (), {"allows": lambda *_: True, "finished": lambda *_: True})()
    model.stream("Once", {}, rules).close()
    assert len(compiled.pop()["logits_processors"]) == 1
    monkeypatch.setattr(tales, "logits_processors", [lambda ids, logits: logits])
    model.stream("Once", {}).close()
    assert compiled == [{"logits_processors": []}]


def test_the_embedded_model_keeps_the_documented_defaults(tales):
    assert tales.generation_defaults == {"temperature": 0.8, "top_k": 40}
    model = web_worker.Model("a model", tales)
    assert model.info()["defaults"] == DEFAULTS
    changed = copy(tales)
    changed.generation_defaults = {"top_p": 0.5}
    changed.generation_limits = {"max_new_tokens": 9}
    info = web_worker.Model("a model", changed).info()
    assert info["defaults"] == DEFAULTS | {"topP": 0.5, "maxTokens": 9}


def test_a_session_streams_tokens(tales):
    """Those of a stream of the whole text."""
    model = web_worker.Model("a model", tales)

    async def read(text):
        found = []
        while (tokens := await text.next()) is not None:
            found += tokens
        details = await text.details()
        text.close()
        return found, details

    given = {"temperature": 0, "maxTokens": 6, "tokens": True, "topLogprobs": 1}
    whole, _ = asyncio.run(read(model.stream("The king", given | {"maxTokens": 12})))
    session = model.session("The king", {})
    first, details = asyncio.run(read(session.stream(given)))
    second, detailed = asyncio.run(read(session.stream(given | {"details": True})))
    session.close()
    assert details is None
    assert [each["id"] for each in second] == detailed["tokenIds"]
    for found, expected in ((first, whole[:6]), (second, whole[6:])):
        assert [each["id"] for each in found] == [each["id"] for each in expected]
        assert "".join(each["text"] for each in found) == "".join(e["text"] for e in expected)
        numbers = [each["logprob"] for each in expected]
        assert [each["logprob"] for each in found] == pytest.approx(numbers, abs=1e-3)
        assert [len(each["top"]) for each in found] == [1] * 6
    assert second[0]["offset"] == 0


def test_a_session_that_slides_streams_tokens(tales):
    """Those of the session in Python, each with the numbers of the step that chose it."""
    options = {"maxLength": 8, "contextPolicy": "slide"}
    given = {"temperature": 0, "maxTokens": 12, "tokens": True, "topLogprobs": 1, "details": True}

    async def streamed():
        session = web_worker.Model("a model", tales).session("The king", options)
        text, found = session.stream(given), []
        while (tokens := await text.next()) is not None:
            found += tokens
        details = await text.details()
        text.close()
        session.close()
        return found, details

    found, details = asyncio.run(streamed())
    with tales.session("The king", max_length=8, context_policy="slide") as session:
        with session.stream(12, sampler="greedy", top_logprobs=1) as stream:
            expected = [token for _ in stream for token in stream.last_details]
        assert session.dropped_tokens
    assert len(found) == 12
    assert [each["id"] for each in found] == [token.token_id for token in expected]
    numbers = [token.logprob for token in expected]
    assert [each["logprob"] for each in found] == pytest.approx(numbers, abs=1e-3)
    assert details["logprobs"] == [each["logprob"] for each in found]
    assert "".join(each["text"] for each in found) == details["text"]


STREAMED: dict[str, int | str] = {"temperature": 0, "maxTokens": 30, "topLogprobs": 2}


@pytest.mark.parametrize("stops", [False, True])
def test_a_stream_of_tokens(device, stops):
    """The tokens and numbers of the details; together they are the text, also of a stop text."""

    async def read(model, given):
        text, found = model.stream("Der K\u00f6", given), []
        while (piece := await text.next()) is not None:
            found.extend(piece)
        details = await text.details()
        text.close()
        return found, details

    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        model = web_worker.Model("fairytales", lm)
        given = STREAMED | {"details": True}
        if stops:
            characters, _ = asyncio.run(read(model, given))
            given = given | {"stop": "".join(characters)[21:27]}
        characters, wanted = asyncio.run(read(model, given))
        before = gw.memory(device).num_tensors
        tokens, details = asyncio.run(read(model, given | {"tokens": True}))
        assert gw.memory(device).num_tensors == before
        del given["details"]
        assert asyncio.run(read(model, given | {"tokens": True})) == (tokens, None)
        with pytest.raises(errors.InvalidArgumentError, match="one text"):
            model.stream(["a", "b"], {"tokens": True})
    text = "".join(characters)
    assert (wanted["finishReason"] == "stop_text") == stops and text
    assert "".join(token["text"] for token in tokens) == text == wanted["text"]
    assert [token["id"] for token in tokens] == wanted["tokenIds"] == details["tokenIds"]
    for name, names in (("logprob", "logprobs"), ("entropy", "entropies")):
        assert [token[name] for token in tokens] == pytest.approx(wanted[names], abs=1e-3)
    assert [token["rank"] for token in tokens] == wanted["ranks"]
    top = [[each["id"] for each in token["top"]] for token in tokens]
    assert top == [[each["id"] for each in row] for row in wanted["top"]]
    for token in tokens:
        assert text[token["offset"] :].startswith(token["text"])
