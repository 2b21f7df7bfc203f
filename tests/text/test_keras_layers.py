"""What tokenizers, packers and preprocessors share with Keras' layers: names, configs, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import PresetError, TokenizerError
from gpt2_wgpu.text.byte_symbols import BYTE_TO_SYMBOL

END = "<|endoftext|>"
VOCABULARY = {symbol: i for i, symbol in enumerate(BYTE_TO_SYMBOL.values())} | {"ab": 256, END: 257}
MERGES = ["a b"]
POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "int32"}}
LAYER = {"trainable": True, "dtype": POLICY}


def serialised(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A Keras object as KerasHub 0.32 writes it."""
    return {
        "module": f"keras_hub.src.models.gpt2.{class_name}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


TOKENIZER = serialised(
    "GPT2Tokenizer",
    {
        "name": "gpt2_tokenizer",
        **LAYER,
        "config_file": "tokenizer.json",
        "sequence_length": None,
        "add_prefix_space": True,
        "unsplittable_tokens": [END],
    },
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The text's part of a preset directory of KerasHub."""
    assets = tmp_path / "assets" / "tokenizer"
    assets.mkdir(parents=True)
    (assets / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    (assets / "merges.txt").write_text("\n".join(MERGES))
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    backbone = serialised("GPT2Backbone", {**LAYER, "max_sequence_length": 6})
    (tmp_path / "config.json").write_text(json.dumps(backbone))
    return tmp_path


def layers() -> list[Any]:
    tokenizer = gw.GPT2Tokenizer(VOCABULARY, MERGES)
    return [
        gw.BytePairTokenizer(VOCABULARY, MERGES),
        tokenizer,
        gw.StartEndPacker(4, 1, [2, 3]),
        gw.GPT2Preprocessor(tokenizer, 6),
        gw.GPT2CausalLMPreprocessor(tokenizer, 6, add_end_token=False),
    ]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_a_layer_accepts_the_config_of_keras(layer: Any) -> None:
    kind, config = type(layer), layer.get_config()
    assert json.loads(json.dumps(config)) == config
    again = kind.from_config({**LAYER, "config_file": "preprocessor.json", **config})
    assert again.get_config() == config
    assert kind.from_config({**config, "name": "mine"}).name == "mine"
    with pytest.raises(gw.errors.InvalidArgumentError, match="colour"):
        kind.from_config({**config, "colour": "blue"})


def test_names_are_the_classes_in_snake_case() -> None:
    assert [layer.name for layer in layers()] == [
        "byte_pair_tokenizer",
        "gpt2_tokenizer",
        "start_end_packer",
        "gpt2_preprocessor",
        "gpt2_causal_lm_preprocessor",
    ]


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        gw.StartEndPacker(4, colour="blue")


def test_presets_are_an_attribute_of_each_class() -> None:
    models = [gw.GPT2Backbone, gw.GPT2CausalLM]
    assert all(each.presets == gw.presets() for each in [*layers(), *models])


def test_a_nested_keras_tokenizer_is_read() -> None:
    config = {**TOKENIZER["config"], "vocabulary": VOCABULARY, "merges": MERGES}
    nested = {"tokenizer": serialised("GPT2Tokenizer", config), "sequence_length": 5}
    found = gw.GPT2CausalLMPreprocessor.from_config({**LAYER, **nested})
    assert found.sequence_length == 5
    assert found.tokenizer.add_prefix_space is True


def test_a_keras_preset_gives_tokenizer_and_preprocessor(directory: Path) -> None:
    tokenizer = gw.GPT2Tokenizer.from_preset(directory)
    assert tokenizer("ab") == [VOCABULARY["Ġ"], 256]
    assert tokenizer.end_token_id == tokenizer.start_token_id == 257
    assert 257 not in tokenizer.encode(END)  # plain text unless it is allowed
    found = gw.GPT2CausalLMPreprocessor.from_preset(directory, add_end_token=False)
    assert (found.sequence_length, found.add_end_token) == (6, False)
    assert gw.GPT2Tokenizer.from_preset(directory, sequence_length=3)("ab") == [
        VOCABULARY["Ġ"],
        256,
        0,
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [([], "not a serialised Keras object"), ({"class_name": "Bert", "config": {}}, "'Bert'")],
)
def test_another_keras_object_is_rejected(directory: Path, content: Any, says: str) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=says):
        gw.GPT2Tokenizer.from_preset(directory)


def test_from_preset_reads_a_directory_of_hugging_face_and_names_an_unknown_one() -> None:
    found = gw.GPT2Preprocessor.from_preset("fairytales")
    assert found.sequence_length == 512
    assert found.tokenizer.vocabulary_size() == 4096
    with pytest.raises(PresetError, match="nowhere"):
        gw.GPT2Tokenizer.from_preset("nowhere")


def test_gpt2_preprocessor_passes_labels_through() -> None:
    preprocessor = layers()[3]
    packed = preprocessor("ab")
    assert [list(packed[key]) for key in ("token_ids", "padding_mask")] == [
        [257, 256, 257, 0, 0, 0],
        [True, True, True, False, False, False],
    ]
    assert preprocessor(["ab"], [7])[1] == [7]
    assert preprocessor(["ab"], [7], [0.5])[1:] == ([7], [0.5])
    assert list(preprocessor("ababab", sequence_length=3)["token_ids"]) == [257, 256, 257]
