"""Saved runs: what a session generated, generated again; and files that are none."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import SessionError
from gpt2_wgpu.integrations.web_worker import Model

SETTINGS = {"temperature": 0.8, "topK": 40, "topP": 0.95, "maxTokens": 8}


async def written(session: Any, **settings: Any) -> str:
    """Continue a session as the page's worker does."""
    text = ""
    async with session.stream({**SETTINGS, **settings}) as stream:
        while (piece := await stream.next()) is not None:
            text += piece
    return text


def run_of(lm: gw.GPT2CausalLM, actions: Any) -> gw.SavedRun:
    """Return the run after ``actions(session)`` on a session of a prompt."""

    async def work() -> dict[str, Any]:
        session = Model("fairytales", lm).session("Once upon a time", {})
        try:
            await actions(session)
            found: dict[str, Any] = await session.saved_run()
            return found
        finally:
            session.close()

    return gw.SavedRun.from_json(json.dumps(asyncio.run(work())))


def spans(run: gw.SavedRun) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in run.parts]


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("dtype", ["float32", "float16", "q8"])
def test_a_run_is_generated_again(device, dtype, no_leak):
    async def actions(session):
        await written(session, seed=7)
        session.append(" The king said")
        await written(session, seed=8, repetitionPenalty=1.3)
        await written(session, temperature=0, logitBias={"5": -2.0})

    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
        run = run_of(lm, actions)
        start = len(lm.preprocessor.tokenizer.encode("Once upon a time")) + 1
        assert (run.model, run.dtype) == ("fairytales", dtype)
        first, second, third = spans(run)
        assert first == (start, start + 8)
        assert second[0] > first[1] and second[1] == third[0] and third[1] == len(run.token_ids)
        assert [check.differs_at for check in run.replay(lm)] == [None] * 3
        assert [check.differs_at for check in gw.SavedRun.from_json(run.to_json()).replay(lm)] == [
            None
        ] * 3


def test_the_first_difference_of_each_part_is_found(tales):
    async def actions(session):
        await written(session, seed=1)
        await written(session, seed=2)

    run = run_of(tales, actions)
    ids = list(run.token_ids)
    at = run.parts[0].end - 1
    ids[at] += 1
    other = run.parts[1].sampler["config"] | {"seed": 3}
    parts = run.parts[0], replace(run.parts[1], sampler=run.parts[1].sampler | {"config": other})
    first, second = replace(run, token_ids=tuple(ids), parts=parts).replay(tales)
    assert (first.differs_at, first.token_id) == (at, run.token_ids[at])
    assert second.differs_at is not None and second.differs_at >= parts[1].start
    assert second.token_id != ids[second.differs_at]


def test_biases_of_sequences_are_kept_in_json():
    sampler = gw.samplers.RandomSampler(seed=1, sequence_bias={(5, 6): 1.0})
    part = gw.RunPart(1, 2, gw.samplers.serialize(sampler))
    run = gw.SavedRun("fairytales", "0" * 64, "float32", "float32", (1, 2), (part,))
    (again,) = gw.SavedRun.from_json(run.to_json()).parts
    assert gw.samplers.get(again.sampler).rules() == sampler.rules()


def test_a_checkpoint_s_time_limit_does_not_end_a_replay(tales, monkeypatch):
    async def actions(session):
        await written(session, seed=1)

    run = run_of(tales, actions)
    monkeypatch.setattr(tales, "generation_limits", {"time_limit": 1e-6})
    assert [check.differs_at for check in run.replay(tales)] == [None]


def test_a_text_that_ends_earlier_differs(tales, monkeypatch):
    async def actions(session):
        await written(session, seed=1)

    run = run_of(tales, actions)
    end = run.token_ids[run.parts[0].start + 2]
    monkeypatch.setattr(type(tales), "resolve_stop_tokens", lambda self, given: [end])
    (check,) = run.replay(tales)
    assert (check.differs_at, check.token_id) == (run.parts[0].start + 3, None)


def test_parts_follow_what_becomes_of_the_text(tales):
    async def actions(session):
        await written(session, seed=1)
        whole = session.tokens()
        session.rewind(3)
        cut = session.tokens()
        await written(session, seed=2)
        assert session.tokens()[: len(cut)] == cut
        session.edit([*whole[:6], 5])  # a branch
        await written(session, seed=3)
        branch = session.tokens()
        forked = session.fork()
        session.edit(whole)  # and back
        session.append([9])
        back = await session.saved_run()
        assert [(part["start"], part["end"]) for part in back["parts"]] == [(4 + 1, len(whole))]
        forked_run = await forked.saved_run()
        assert forked_run["token_ids"] == branch
        assert (
            gw.SavedRun.from_json(json.dumps(forked_run)).parts[-1].sampler["config"]["seed"] == 3
        )
        forked.close()
        session.edit(branch)

    run = run_of(tales, actions)
    assert spans(run) == [(5, 6), (7, 15)]
    assert [check.differs_at for check in run.replay(tales)] == [None, None]


def test_what_cannot_be_replayed(tales):
    async def nothing(session):
        pass

    async def typed(session):
        await written(session, seed=1)
        session.edit("Another text")

    for actions in (nothing, typed):
        with pytest.raises(SessionError, match="no part of this text"):
            run_of(tales, actions)

    async def slides() -> None:
        session = Model("x", tales).session("The", {"contextPolicy": "slide", "maxLength": 16})
        await written(session, maxTokens=40)
        with pytest.raises(SessionError, match="lost its beginning"):
            await session.saved_run()
        session.close()

    asyncio.run(slides())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/me/models/tales", "tales"),
        ("~/models/tales", "tales"),
        (r"C:\\Users\\me\\tales", "tales"),
        ("../customers/model", "model"),
        ("work/customers/model", "model"),
        ("/", "model"),
        ("models/tales", "models/tales"),
        ("hf://owner/name@v2", "hf://owner/name@v2"),
        ("https://example.org/a/b/", "https://example.org/a/b/"),
    ],
)
def test_the_folders_of_this_machine_are_not_kept(tales, given, kept):
    part = gw.RunPart(1, 2, {"class_name": "GreedySampler", "config": {}})
    run = asyncio.run(gw.SavedRun.of_async(tales, given, [1, 2], [part]))
    assert run.model == kept


def test_another_model(tales):
    async def actions(session):
        await written(session, seed=1)

    run = run_of(tales, actions)
    for change, message in (
        ({"dtype": "q8"}, "weights in 'q8', this model in float32"),
        ({"cache_dtype": "int4"}, "keys and values in 'int4'"),
        ({"weights": "0" * 64}, "not those of the run, which 'fairytales' wrote"),
    ):
        with pytest.raises(SessionError, match=message):
            replace(run, **change).replay(tales)
    part = replace(run.parts[0], sampler={"class_name": "NoSampler", "config": {}})
    with pytest.raises(SessionError, match="sampler of part 1 cannot be made"):
        replace(run, parts=(part,)).replay(tales)


PART = {"start": 1, "end": 3, "sampler": {"class_name": "GreedySampler", "config": {}}}
GOOD = {
    "format": "gpt2-wgpu run",
    "version": 1,
    "model": "m",
    "weights": "w",
    "dtype": "float32",
    "cache_dtype": "float32",
    "token_ids": [1, 2, 3, 4],
    "parts": [PART],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, 'it has no "format"'),
        ({"version": 2}, "version 2, this library reads 1"),
        ({"model": None}, "model must be a text, not None"),
        ({"token_ids": {}}, "token_ids must be a list"),
        ({"token_ids": [1, -2, 3, 4]}, "token_ids has -2"),
        ({"token_ids": [1, True, 3, 4]}, "token_ids has True"),
        ({"parts": []}, "no part"),
        ({"parts": [3]}, "3 is no part"),
        ({"parts": [PART | {"sampler": "greedy"}]}, "is no part"),
        ({"parts": [PART | {"end": 5}]}, "end has 5"),
        ({"parts": [PART | {"start": 0}]}, "no token before it"),
        ({"parts": [PART | {"end": 1}]}, "a part from 1 to 1 is empty"),
        ({"parts": [PART, PART]}, "overlap"),
    ],
)
def test_files_that_are_no_runs(tmp_path, change, message):
    assert gw.SavedRun.from_json(json.dumps(GOOD)).parts[0].end == 3
    path = tmp_path / "run.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(SessionError, match=f"run.json' is no saved run: .*{message}"):
        gw.SavedRun.load(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SessionError, match="cannot be read: No such file"):
        gw.SavedRun.load(tmp_path / "none")
    with pytest.raises(SessionError, match="is no saved run: this is not a regular file"):
        gw.SavedRun.load(tmp_path)
    (tmp_path / "text").write_text("[1, 2")
    with pytest.raises(SessionError, match="is no saved run: not JSON"):
        gw.SavedRun.load(tmp_path / "text")
