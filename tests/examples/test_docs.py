"""The Python blocks of pages in docs/, run in their order in one namespace."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.saved_run import RunPart
from gpt2_wgpu.webgpu import sync
from tests import llm_plugin

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.filterwarnings("ignore:running on the CPU")


def lines_of(page: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that the blocks of a page print."""
    names: dict[str, Any] = {}
    text = (DOCS / page).read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block, names)
    return capsys.readouterr().out.splitlines()


def test_the_blocks_of_extending_run(device: gw.Device, capsys: pytest.CaptureFixture[str]) -> None:
    second_best, without_king, age, shape = lines_of("extending.md", capsys)[-4:]
    assert second_best.startswith("The king")
    assert without_king.startswith("Once upon a time there was a")
    assert " king" not in without_king
    assert re.fullmatch(r"[0-9]{1,3}\.", age)
    assert shape == "shape: (2, 8)"


def test_the_blocks_of_layers_run(
    device: gw.Device, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    *blocks, token, difference, own, mask = lines_of("layers.md", capsys)
    config = gw.GPT2Config.from_json_file(DOCS.parent / "models" / "fairytales" / "config.json")
    assert [line.split()[0] for line in blocks] == [
        f"transformer_layer_{i}" for i in range(config.n_layer)
    ]
    lm = gw.GPT2CausalLM.from_preset("fairytales")
    assert lm.preprocessor is not None
    assert blocks[-1].endswith(repr(lm.preprocessor.tokenizer.decode([int(token)])))
    lm.dispose()
    assert float(difference) < 1e-10
    assert mask == "[[True, True, True, False, False]]"
    assert own == "(1, 5, 32) self_attention/query/kernel (32, 4, 8)"


def test_the_blocks_of_hooks_run(
    device: gw.Device, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    shape, same, lens, most, peak, step, head, draw, *text = lines_of("hooks.md", capsys)
    assert re.fullmatch(r"(\d\.\S+|None) of \d+\.\d+ bytes per second", peak)
    assert re.fullmatch(r"\d+ dispatches, \d+\.\d MB", step)
    assert "(4096, 256)" in head and draw.startswith("sample None ")
    heads, tokens = map(int, re.findall(r"\d+", shape)[1:3])
    assert shape == f"(1, {heads}, {tokens}, {tokens})" and same == "True"
    assert isinstance(ast.literal_eval(lens), list) and isinstance(ast.literal_eval(most)[0], float)
    assert text[0].startswith("Once upon a time") and len(" ".join(text)) > 25


def test_the_block_of_continuous_batching_runs(
    device: gw.Device, capsys: pytest.CaptureFixture[str]
) -> None:
    *texts, stats = lines_of("continuous-batching.md", capsys)
    with gw.GPT2CausalLM.from_preset("fairytales") as lm:
        for seed, line in enumerate(texts):
            prompt, text = line.split("|")
            lm.compile(gw.samplers.TopK(5, seed=seed))
            assert text == repr(lm.generate(prompt, strip_prompt=True, max_new_tokens=16))
    assert len(texts) == 3
    assert stats.startswith("BatchStats(waiting=0, running=0, tokens=48,")


def test_the_block_of_llm_runs(device: gw.Device, capsys: pytest.CaptureFixture[str]) -> None:
    llm_plugin.load()
    text, usage = lines_of("llm.md", capsys)
    with gw.GPT2CausalLM.from_preset("fairytales") as lm:
        lm.compile("greedy")
        assert text == lm.generate("Once upon a time", strip_prompt=True, max_new_tokens=8)
    assert usage == "8 length"


def test_the_blocks_of_control_run(
    device: gw.Device, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    texts, reasons, *tokens, ended = lines_of("control.md", capsys)
    assert len(tokens) == 5
    for line in tokens:
        assert re.fullmatch(r"'.+' [01]\.[0-9]{2}, rank 0 \{[0-9]+: -[0-9.]+, .*\}", line)
    assert len(ast.literal_eval(texts)) == 2
    assert set(ast.literal_eval(reasons)) <= {"length", "stop"}
    assert re.fullmatch(r"(aborted|stop|length|context) [0-9]+", ended)


def test_the_blocks_of_sessions_run(
    device: gw.Device,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with gw.GPT2CausalLM.from_preset("fairytales") as lm, lm.session("The king") as session:
        start = len(session.token_ids)
        session.generate(max_new_tokens=4, sampler="greedy")
        part = RunPart(start, start + 4, gw.samplers.serialize(gw.samplers.get("greedy")))
        run = sync(gw.SavedRun.of_async(lm, "fairytales", session.token_ids, [part]), "of_async")
    Path("run.json").write_text(run.to_json())
    *_, kept, _loaded, replayed = lines_of("sessions.md", capsys)
    assert re.fullmatch(r"[0-9]+ of [0-9]+ tokens kept; the last are \[.*\]", kept)
    assert replayed == f"{start} {start + 4} None None"


def test_the_block_of_server_runs(
    device: gw.Device, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    (text,) = lines_of("server.md", capsys)
    with gw.GPT2CausalLM.from_preset("fairytales") as lm:
        greedy = lm.generate("The king", max_new_tokens=8, sampler="greedy", strip_prompt=True)
        assert text == greedy


@pytest.mark.native("HDF5")
def test_the_blocks_of_coming_from_kerashub_run(
    device: gw.Device,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = "\n".join(lines_of("coming-from-kerashub.md", capsys))
    first, second = texts.split("Once upon a time")[1:]
    assert first and second
    assert [path.name for path in tmp_path.iterdir()] == ["story.keras"]
