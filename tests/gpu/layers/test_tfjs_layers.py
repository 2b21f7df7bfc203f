"""What TensorFlow.js's specs of layers, masks and backbone check, and those of memory.

As tests/text/test_tfjs_text.py. Random inputs are replaced by numbers that differ everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors import ops
from tests.tfjs_specs import Specs

pytestmark = pytest.mark.usefixtures("device", "no_leak")

spec = Specs()


def numbers(*shape: int) -> gw.Tensor:
    return ops.reshape(gw.tensor([math.sin(i * i) for i in range(math.prod(shape))]), shape)


def assert_close(a: gw.Tensor, b: gw.Tensor) -> None:
    assert a.shape == b.shape
    assert ops.max(ops.mul(a - b, a - b)).item() < 1e-9


def check_memory(call: Callable[[], Any], results: int) -> None:
    """A call leaves its results and nothing else; the first one may build weights."""
    gw.dispose(call())
    before = gw.memory().num_tensors
    found = call()
    assert gw.memory().num_tensors == before + results
    gw.dispose(found)


def check_shape(layer: Any, *shapes: tuple[int, ...]) -> None:
    """Results have the shape of the inputs."""
    for shape in shapes:
        y = layer(numbers(*shape))
        assert y.shape == shape and y.dtype == "float32"
    layer.dispose()


# --- sliceUpdate --------------------------------------------------------------------------------


@spec("sliceUpdate: 1D")
def _() -> None:
    found = ops.slice_update(gw.tensor([1, 2, 3, 4, 5]), (2,), gw.tensor([-1, -2]))
    assert found.tolist() == [1, 2, -1, -2, 5]


@spec("sliceUpdate: 2D")
def _() -> None:
    found = ops.slice_update(gw.tensor([[0.0] * 5] * 2), (0, 1), gw.tensor([[-1, -2], [-4, -3]]))
    assert found.tolist() == [[0, -1, -2, 0, 0], [0, -4, -3, 0, 0]]


@spec("sliceUpdate: 3D")
def _() -> None:
    zeros, ones = gw.tensor([[[0.0] * 4] * 3] * 2), gw.tensor([[[1.0] * 4]] * 2)
    found = ops.slice_update(zeros, (0, 0, 0), ones)
    assert found.tolist() == [[[1] * 4, [0] * 4, [0] * 4]] * 2


# --- masks --------------------------------------------------------------------------------------

SEEN = [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]]


@spec("TransformerLayerUtils: compute causal mask")
def _() -> None:
    assert layers.compute_causal_mask(1, 2, 2).tolist() == [[[1, 0], [1, 1]]]


@spec("TransformerLayerUtils: merge padding and attention mask")
def _() -> None:
    merged = layers.merge_padding_and_attention_mask(numbers(1, 3, 2), [[1, 1, 0]], SEEN)
    assert merged is not None
    assert merged.tolist() == [[[0, 0, 0], [0, 1, 0], [1, 0, 0]]]


@spec("TransformerLayerUtils: bad mask shapes")
def _() -> None:
    x = numbers(1, 3, 2)
    with pytest.raises(ShapeError):
        layers.merge_padding_and_attention_mask(x, [[[1, 1, 0], [1, 0, 0]]], SEEN)
    with pytest.raises(ShapeError):
        layers.merge_padding_and_attention_mask(x, [[1, 1, 0]], [[0, 0, 1], [1, 0, 0]])


@spec("TransformerLayerUtils: does not leak memory")
def _() -> None:
    x = numbers(1, 3, 2)
    check_memory(lambda: layers.compute_causal_mask(1, 2, 2), 1)
    merge = layers.merge_padding_and_attention_mask
    check_memory(lambda: merge(x, [[1, 1, 0]], SEEN), 1)


# --- PositionEmbedding --------------------------------------------------------------------------


@spec("PositionEmbedding: static layer output shape")
def _() -> None:
    check_shape(layers.PositionEmbedding(21), (2, 21, 30))


@spec("PositionEmbedding: more than 3 dimensions static")
def _() -> None:
    check_shape(layers.PositionEmbedding(21), (2, 3, 21, 30))


@spec("PositionEmbedding: float32 dtype")
def _() -> None:
    check_shape(layers.PositionEmbedding(21, dtype="float32"), (1, 21, 30))


@spec("PositionEmbedding: dynamic layer output shape")
def _() -> None:
    check_shape(layers.PositionEmbedding(21), (1, 21, 30), (3, 4, 30), (2, 1, 30))


@spec("PositionEmbedding: more than 3 dimensions dynamic")
def _() -> None:
    check_shape(layers.PositionEmbedding(60), (1, 5, 21, 30), (2, 3, 6, 30))


@spec("PositionEmbedding: dynamic layer slicing")
def _() -> None:
    layer = layers.PositionEmbedding(40)
    layer.build((None, None, 30))
    (table,) = layer.get_weights()
    found = layer(numbers(1, 17, 30))
    assert found.tolist() == [table[:17].tolist()]
    layer.dispose()


@spec("PositionEmbedding: serialization round trip")
def _() -> None:
    config = layers.PositionEmbedding(40).get_config()
    assert layers.PositionEmbedding.from_config(config).get_config() == config


@spec("PositionEmbedding: does not leak memory")
def _() -> None:
    layer, x = layers.PositionEmbedding(4), numbers(2, 4, 3)
    check_memory(lambda: layer(x), 1)
    layer.dispose()


# --- backbone -----------------------------------------------------------------------------------


@contextmanager
def backbone() -> Iterator[gw.GPT2Backbone]:
    model = gw.GPT2Backbone(10, 2, 2, 8, 16, max_sequence_length=5)
    yield model
    model.dispose()


def batch(tokens: int = 5) -> dict[str, Any]:
    return {"token_ids": [[1] * tokens] * 2, "padding_mask": [[1] * tokens] * 2}


def check_backbone(*lengths: int, predict: bool = False) -> None:
    with backbone() as model:
        for tokens in lengths:
            found = (model.predict if predict else model)(batch(tokens))
            assert tuple(found.shape) == (2, tokens, 8)
            assert math.isfinite(found.sum() if predict else ops.sum(found).item())


@spec("GPT2Backbone: call")
def _() -> None:
    check_backbone(5)


@spec("GPT2Backbone: token embedding")
def _() -> None:
    with backbone() as model:
        assert model.token_embedding(batch()["token_ids"]).shape == (2, 5, 8)


@spec("GPT2Backbone: name")
def _() -> None:
    with backbone() as model:
        assert re.match("gpt2_backbone", model.name)


@spec("GPT2Backbone: variable sequence length")
def _() -> None:
    check_backbone(2, 3, 4)


@spec("GPT2Backbone: predict")
def _() -> None:
    check_backbone(5, predict=True)


@spec("GPT2Backbone: does not leak memory")
def _() -> None:
    with backbone() as model:
        check_memory(lambda: model(batch()), 1)


# --- text: no tensors ---------------------------------------------------------------------------


def check_no_tensors(call: Callable[[str], Any]) -> None:
    check_memory(lambda: [] if len(call("ab")) == 2 else None, 0)


@spec("BytePairTokenizer: tokenize does not leak memory")
def _() -> None:
    check_no_tensors(gw.BytePairTokenizer({"a": 0, "b": 1}, []))


@spec("StartEndPacker: does not leak memory")
def _() -> None:
    packer = gw.StartEndPacker(6, start_value=1, end_value=2, return_padding_mask=True)
    check_no_tensors(lambda text: packer([[5, 6]]))


@spec("GPT2Preprocessor: does not leak memory")
def _() -> None:
    tokenizer = gw.GPT2Tokenizer({"a": 0, "b": 1, "<|endoftext|>": 2}, [])
    check_no_tensors(gw.GPT2Preprocessor(tokenizer, sequence_length=4))


NEEDS_NUMPY = {"GPT2Backbone: predict": pytest.mark.native("NumPy")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NEEDS_NUMPY.get(name, ())) for name in spec]
)
def test_spec(name: str) -> None:
    with gw.tidy():
        spec[name]()
