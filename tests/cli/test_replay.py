"""`gpt2-wgpu replay`: equal tokens, the first difference, and files that are no runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.models.saved_run import PartCheck
from tests.cli.fake_engine import FakeEngine

Captured = pytest.CaptureFixture[str]
PART = gw.RunPart(2, 4, {"class_name": "GreedySampler", "config": {}})
RUN = gw.SavedRun("fairytales", "0" * 64, "float32", "float32", (1, 2, 3, 4), (PART,))


def saved(folder: Path, run: gw.SavedRun) -> str:
    path = folder / "run.json"
    path.write_text(run.to_json())
    return str(path)


def test_a_run_of_a_real_model(capsys: Captured, tmp_path: Path) -> None:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="q8") as lm:
        sampler = gw.samplers.TopK(5, seed=3)
        serialized = gw.samplers.serialize(sampler)
        with lm.session("The king") as session:
            start = len(session)
            session.generate(6, sampler=sampler)
            ids = session.token_ids
        assert lm.preprocessor is not None
        text = [lm.preprocessor.tokenizer.decode([token]) for token in ids]

        async def run_of() -> gw.SavedRun:
            parts = [gw.RunPart(start, len(ids), serialized)]
            return await gw.SavedRun.of_async(lm, "fairytales", ids, parts)

        run = gw.webgpu.sync(run_of(), "run_of")
    assert main(["replay", "-q", saved(tmp_path, run)]) == 0
    assert capsys.readouterr().out == "part 1: 6 of 6 tokens are equal\n"
    other = (*ids[:-2], 5, ids[-1])
    assert main(["replay", "-q", saved(tmp_path, replace(run, token_ids=other))]) == 1
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="q8") as lm:
        assert lm.preprocessor is not None
        five = lm.preprocessor.tokenizer.decode([5])
    assert capsys.readouterr().out == (
        f"part 1: token 5 of 6 differs: recorded 5 {json.dumps(five)}, now {ids[-2]} "
        f"{json.dumps(text[-2])}\n"
    )
    assert main(["replay", "-q", saved(tmp_path, replace(run, weights="1" * 64))]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "are not those of the run" in err


def test_model_and_formats_are_those_of_the_run(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU; the text that ends too early, and a hostile token."""
    engine = FakeEngine().install(monkeypatch)
    loaded = engine._from_preset

    def with_tokenizer(preset: str, **options: Any) -> Any:
        lm = loaded(preset, adapter=None, **options)
        lm.preprocessor = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda _: "\x1b[2J"))
        return lm

    monkeypatch.setattr(gw, "GPT2CausalLM", SimpleNamespace(from_preset=with_tokenizer))
    monkeypatch.setattr(gw.SavedRun, "replay", lambda *_: [PartCheck(PART, 3, None)])
    path = saved(tmp_path, replace(RUN, dtype="q4", cache_dtype="float16"))
    assert main(["replay", "-q", path]) == 1
    out = capsys.readouterr().out
    assert out == 'part 1: token 2 of 2 differs: recorded 4 "\\u001b[2J", now the end\n'
    given = engine.calls["from_preset"]
    assert (given["preset"], given["dtype"], given["cache_dtype"]) == (
        "fairytales",
        "q4",
        "float16",
    )
    monkeypatch.setattr(gw.SavedRun, "replay", lambda *_: [PartCheck(PART)])
    assert main(["replay", "-q", path, "-m", "mine"]) == 0
    assert engine.calls["from_preset"]["preset"] == "mine"


@pytest.mark.parametrize("model", ["my-gpt2", "https://example.org/models/my-gpt2/"])
def test_a_model_that_is_not_found(model: str, capsys: Captured, tmp_path: Path) -> None:
    path = saved(tmp_path, replace(RUN, model=model))
    assert main(["replay", "-q", path]) == 1
    err = capsys.readouterr().err
    assert f"the model of the run, '{model}', is not found: give its directory or" in err
    assert "with --model" in err
    assert main(["replay", "-q", path, "--model", "nowhere/at-all"]) == 1
    assert "the model of the run" not in capsys.readouterr().err


def test_no_run(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert main(["replay", str(tmp_path / "run.json")]) == 1
    assert 'run.json\' is no saved run: it has no "format"' in capsys.readouterr().err
    assert main(["replay"]) == 2
