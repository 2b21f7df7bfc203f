"""save_to_preset: directories that this package and transformers read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, TokenizerError, WeightsError
from tests.memory import tiny

pytestmark = pytest.mark.native("NumPy and files")

IDS = [[1, 2, 3, 200, 7]]


@pytest.fixture(scope="module")
def lm(device):
    model = tiny.model(device)
    model.preprocessor.add_end_token = False
    yield model
    model.dispose()


def logits_of(lm):
    with gw.tidy():
        return lm({"token_ids": IDS}).numpy()


def test_a_saved_model_comes_back_the_same(lm, tmp_path, no_leak):
    directory = tmp_path / "new" / "model"
    lm.save_to_preset(directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
    with gw.GPT2CausalLM.from_preset(directory, dtype="float32", device=lm.device) as again:
        np.testing.assert_array_equal(logits_of(again), logits_of(lm))
        assert again.backbone.get_config() == lm.backbone.get_config()
        assert again.preprocessor.add_end_token is False
        assert again.preprocessor.sequence_length == tiny.CONTEXT
        again.compile("greedy")
        assert again.generate("abc", max_length=9) == lm.generate("abc", max_length=9)
        again.save_to_preset(directory)  # into the directory that it reads itself
        np.testing.assert_array_equal(logits_of(again), logits_of(lm))


def test_transformers_reads_a_saved_model(lm, tmp_path):
    lm.save_pretrained(tmp_path)
    import torch
    import transformers

    reference = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert reference.config.eos_token_id == lm.preprocessor.tokenizer.end_token_id
    with torch.no_grad():
        expected = reference(torch.tensor(IDS)).logits.numpy()
    np.testing.assert_allclose(logits_of(lm), expected, atol=1e-5)


def test_the_files_of_the_source_are_copied_to_the_bit(tmp_path, device):
    """The model is f16 on the GPU, its source F32."""
    tiny.backbone(device).save_to_preset(tmp_path / "first")
    with gw.GPT2CausalLM.from_preset(tmp_path / "first", None, "float16", device) as lm:
        lm.save_to_preset(tmp_path / "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_quantised_checkpoint_stays_quantised(lm, tmp_path, device):
    lm.save_to_preset(tmp_path / "plain")
    gw.convert(tmp_path / "plain", tmp_path / "q8", "q8", device=device)
    with gw.GPT2CausalLM.from_preset(tmp_path / "q8", device=device) as small:
        small.save_to_preset(tmp_path / "again")
    with gw.GPT2CausalLM.from_preset(tmp_path / "again", device=device) as again:
        assert again.backbone.dtype == "q8"
    first, second = (tmp_path / name / "model.safetensors" for name in ("q8", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_old_files_are_replaced(lm, tmp_path):
    for name in ("model.safetensors.index.json", "tokenizer.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    lm.save_to_preset(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "notes.txt" in names
    assert not names & {"model.safetensors.index.json", "tokenizer.json"}


def test_a_backbone_leaves_the_files_of_the_text(lm, tmp_path):
    lm.save_to_preset(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"top_k": 5}')
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    del kept["config.json"]  # now without the tokenizer's ids
    lm.backbone.save_to_preset(tmp_path)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == kept | {"config.json": found["config.json"]}
    lm.save_to_preset(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_matrices_of_linear_layers_are_saved_transposed(lm, tmp_path, dtype):
    import torch
    from safetensors.torch import load_file, save_file

    lm.save_to_preset(tmp_path)
    path = tmp_path / "model.safetensors"
    usual = {name: data.to(getattr(torch, dtype)) for name, data in load_file(path).items()}
    linear = {
        name: data.T.contiguous() if name.startswith("h.") and data.ndim == 2 else data
        for name, data in usual.items()
    }
    assert linear["h.0.attn.c_attn.weight"].shape != usual["h.0.attn.c_attn.weight"].shape
    save_file(linear, path)
    with gw.GPT2CausalLM.from_preset(tmp_path, None, "float32", lm.device) as again:
        again.save_to_preset(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == usual.keys()
    assert all(torch.equal(saved[name], usual[name]) for name in usual)


def test_a_disposed_model_and_a_file_in_the_way(tmp_path, device):
    (tmp_path / "file").write_text("")
    backbone = tiny.backbone(device)
    with pytest.raises(WeightsError, match="file"):
        backbone.save_to_preset(tmp_path / "file" / "model")
    backbone.dispose()
    with pytest.raises(DisposedTensorError, match="load it again"):
        backbone.save_to_preset(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


SETTINGS = {
    "plain": {},
    "prefix": {"add_prefix_space": True},
    "always": {"add_prefix_space": "always"},
    "tokens": {
        "special_tokens": ["<|end|>"],
        "unsplittable_tokens": ["[x]"],
        "added_tokens": {"<|end|>": 258, "[x]": 300},
        "token_rules": {"[x]": ["lstrip"]},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_tokenizer_comes_back_the_same(name: str, tmp_path: Path) -> None:
    plain = tiny.tokenizer().get_config()
    tokenizer = gw.GPT2Tokenizer(plain["vocabulary"], ["a b"][:0], **SETTINGS[name])
    tokenizer.save_to_preset(tmp_path / "new")
    again = gw.GPT2Tokenizer.from_preset(tmp_path / "new")
    for text in ("a [x]b", "<|end|> b", "", "é <|endoftext|>"):
        for allowed in ((), "all"):
            assert again.encode(text, allowed) == tokenizer.encode(text, allowed)
    assert sorted(again.special_token_ids) == sorted(set(tokenizer.special_token_ids))
    assert again.get_vocabulary() == tokenizer.get_vocabulary()
    assert (again.start_token, again.end_token) == (tokenizer.start_token, tokenizer.end_token)


def test_an_empty_path_is_not_the_current_directory(lm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for saved in (lm, lm.backbone, tiny.tokenizer(), gw.GPT2Preprocessor(tiny.tokenizer(), 9)):
        with pytest.raises(TokenizerError, match="must not be empty"):
            saved.save_to_preset("")
    assert list(tmp_path.iterdir()) == []


def test_preprocessor_settings_belong_to_their_class(tmp_path: Path) -> None:
    gw.GPT2Preprocessor(tiny.tokenizer(), 9, add_start_token=False).save_to_preset(tmp_path)
    found = gw.GPT2Preprocessor.from_preset(str(tmp_path))
    assert (found.sequence_length, found.add_start_token) == (9, False)
    other = gw.GPT2CausalLMPreprocessor.from_preset(tmp_path, sequence_length=5)
    assert (other.sequence_length, other.add_start_token) == (5, True)
    (tmp_path / "preprocessor.json").write_text("[]")
    with pytest.raises(TokenizerError, match=r"preprocessor\.json"):
        gw.GPT2Preprocessor.from_preset(tmp_path)
