"""Ends of a text by generation_config.json: stop_strings and max_time."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.generation_config import read_settings
from gpt2_wgpu.weights import presets
from tests.memory.tiny import packed

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPT = "The king"


def ids_of_transformers(directory, ids):
    """The new ids by the directory's generation_config.json."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    given = torch.tensor([ids])
    out = model.generate(given, attention_mask=torch.ones_like(given), tokenizer=tokenizer)
    return out[0].tolist()[len(ids) :]


@pytest.mark.native("PyTorch")
def test_stop_strings_end_a_text_where_transformers_ends_it(tales, tmp_path):
    tales.compile("greedy")
    (ids,) = tales.preprocessor.encode_prompts([PROMPT])
    plain = tales.generate(PROMPT, max_new_tokens=40, strip_prompt=True)
    stop = plain[len(plain) // 2 :][:4]
    directory = tmp_path / "model"
    shutil.copytree(presets.resolve("fairytales"), directory)
    settings = {"do_sample": False, "max_new_tokens": 40, "stop_strings": ["~~", stop]}
    settings["pad_token_id"] = 0
    (directory / "generation_config.json").write_text(json.dumps(settings))
    lm = gw.GPT2CausalLM.from_preset(directory, dtype="float32")
    try:
        lm.compile("greedy")
        assert lm.generation_limits == {"max_new_tokens": 40, "stop_texts": ("~~", stop)}
        details = lm.generate(PROMPT, return_details=True, strip_prompt=True)
        assert details.token_ids == ids_of_transformers(directory, ids)
        assert (details.text, details.finish_reason) == (plain[: plain.index(stop)], "stop_text")
        assert lm.generate(PROMPT, stop_texts=(), strip_prompt=True) == plain
        lm.save_to_preset(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
        assert saved["stop_strings"] == settings["stop_strings"]
        lm.generation_limits = {"time_limit": 5.0}
        lm.save_to_preset(tmp_path / "other")
        assert read_settings(tmp_path / "other").limits == {"time_limit": 5.0}
    finally:
        lm.dispose()


@pytest.fixture
def ended(text_lm, monkeypatch):
    """(greedy text of 20 tokens, its part before the checkpoint's stop text)"""
    plain = text_lm.generate(PROMPT, max_new_tokens=20, strip_prompt=True)
    stop = plain[len(plain) // 2 :][:3]
    monkeypatch.setattr(text_lm, "generation_limits", {"stop_texts": (stop,), "max_new_tokens": 20})
    return plain, plain[: plain.index(stop)]


def test_all_calls_obey_stop_texts(text_lm, ended):
    plain, before = ended
    assert text_lm.generate([PROMPT] * 2, strip_prompt=True) == [before] * 2
    assert "".join(text_lm.stream(PROMPT)) == before
    assert "".join(text_lm.stream(PROMPT, stop_texts=[])) == plain
    assert list(gw.generate_batches(text_lm, [PROMPT], strip_prompt=True)) == [before]
    for stop_texts, expected in ((None, before), ((), plain)):
        with text_lm.session(PROMPT) as session:
            assert session.generate(stop_texts=stop_texts) == expected
        with text_lm.session(PROMPT) as session:
            assert "".join(session.stream(stop_texts=stop_texts)) == expected


@pytest.mark.native("NumPy")
def test_a_model_without_tokenizer_has_no_stop_texts(lm):
    bare = gw.GPT2CausalLM(lm.backbone)
    bare.compile("greedy")
    inputs = packed([[5, 6, 7]], 8)
    expected = bare.generate(inputs, stop_token_ids=None)["token_ids"].tolist()
    bare.generation_limits = {"stop_texts": ("e",)}
    assert bare.generate(inputs, stop_token_ids=None)["token_ids"].tolist() == expected


def test_all_calls_obey_the_time_limit(text_lm, monkeypatch):
    plain = text_lm.generate(PROMPT, max_new_tokens=20, strip_prompt=True)
    monkeypatch.setattr(text_lm, "generation_limits", {"time_limit": 1e-6})
    details = text_lm.generate(PROMPT, max_new_tokens=20, return_details=True)
    assert (details.token_ids, details.finish_reason) == ([], "time_limit")
    assert text_lm.generate(PROMPT, max_new_tokens=20, strip_prompt=True, time_limit=99.0) == plain
    with text_lm.stream(PROMPT, max_new_tokens=20) as stream:
        assert "".join(stream) == ""
    assert stream.stats.finish_reason == "time_limit"
    with text_lm.session(PROMPT) as session:
        assert session.generate(20) == ""
        assert asyncio.run(session.generate_async(20, time_limit=99.0)) == plain
    batches = gw.generate_batches(text_lm, [PROMPT], strip_prompt=True, max_new_tokens=20)
    assert list(batches) == [plain]  # complete


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_time": 0}, "sets max_time to 0, which is not a number > 0 and <= 1e"),
        ({"stop_strings": ["a", ""]}, r"sets stop_strings to .*, which is not a text or a list of"),
        ({"stop_strings": 3}, "sets stop_strings to 3, which"),
    ],
    ids=str,
)
def test_an_invalid_end_is_ignored_with_a_warning(settings, message, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    with pytest.warns(UserWarning, match=message):
        assert read_settings(tmp_path).limits == {}


def test_neutral_ends_are_none(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"max_time": null, "stop_strings": []}')
    assert read_settings(tmp_path).limits == {}
    (tmp_path / "generation_config.json").write_text('{"max_time": 3, "stop_strings": "end"}')
    assert read_settings(tmp_path).limits == {"time_limit": 3.0, "stop_texts": ("end",)}
