"""First values of the weights of layers."""

from __future__ import annotations

import math
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import layers
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.initializers import initial_values
from gpt2_wgpu.tensors import ops

pytestmark = pytest.mark.usefixtures("device", "no_leak")

WIDTH, HEADS = 12, 2


@pytest.mark.parametrize(
    ("initializer", "stddev"),
    [
        ("glorot_uniform", math.sqrt(2 / 800)),
        ("HeNormal", math.sqrt(2 / 400)),
        ({"class_name": "RandomNormal", "config": {"stddev": 0.3}}, 0.3),
        (
            {"class_name": "RandomUniform", "config": {"minval": -0.6, "maxval": 0.6}},
            1.2 / math.sqrt(12),
        ),
        (0.2, 0.2),
        ("zeros", 0.0),
    ],
    ids=str,
)
def test_weights_start_with_the_variance_of_their_initializer(
    device: gw.Device, initializer: Any, stddev: float
) -> None:
    with gw.tidy():
        values = initial_values(device, (400, 400), initializer)
        assert ops.mean(values).item() == pytest.approx(0, abs=0.01 * stddev)
        assert math.sqrt(ops.mean(values * values).item()) == pytest.approx(stddev, rel=0.02)


def test_a_function_gives_the_first_weights() -> None:
    """Here sinusoids in place of a learned table, as lists and as a tensor on the GPU."""

    def sinusoids(shape: tuple[int, ...], dtype: str) -> list[list[float]]:
        assert dtype == "float32"
        rows, width = shape
        return [[math.sin(p / 100 ** (d / width)) for d in range(width)] for p in range(rows)]

    with gw.tidy():
        expected = gw.tensor(sinusoids((9, 12), "float32"))
        for initializer in (sinusoids, lambda shape, dtype: gw.tensor(sinusoids(shape, dtype))):
            layer = layers.PositionEmbedding(9, initializer)
            layer.build((None, None, 12))
            assert layer.position_embeddings.tolist() == expected.tolist()
            assert layer.get_config()["initializer"] is initializer
            layer.dispose()
        for wrong, error in (([0.0], ShapeError), ([["a"]], InvalidArgumentError)):
            layer = layers.PositionEmbedding(1, lambda shape, dtype, given=wrong: given)
            with pytest.raises(error):
                layer.build((None, 1))
            assert not layer.built


class Countdown:
    """An initializer as Keras' are: it gives the same values again; a copy gives others."""

    copies = 0

    def __init__(self, first: float, own: int = 0) -> None:
        self.first, self.own = first, own

    def get_config(self) -> dict[str, Any]:
        return {"first": self.first}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Countdown:
        cls.copies += 1
        return cls(**config, own=cls.copies)

    def __call__(self, shape: tuple[int, ...], dtype: str) -> Any:
        values = [self.first - self.own - i for i in range(math.prod(shape))]
        return ops.reshape(gw.tensor(values), shape)


def test_weights_of_one_initializer_of_keras_are_not_alike() -> None:
    with gw.tidy():
        layer = layers.TransformerDecoder(20, HEADS, kernel_initializer=Countdown(7.0))
        config = layer.get_config()
        assert config["kernel_initializer"] == {
            "class_name": "Countdown", "config": {"first": 7.0},
        }  # fmt: skip
        layer.build((None, None, WIDTH))
        weights = dict(zip(layer.weight_names, layer.get_weights(), strict=True))
        kernels = [weights[f"self_attention/{name}/kernel"] for name in ("query", "key", "value")]
        firsts = [kernel.tolist()[0][0][0] for kernel in kernels]
        assert len(set(firsts)) == 3
        seconds = [kernel.tolist()[0][0][1] for kernel in kernels]
        assert [a - b for a, b in zip(firsts, seconds, strict=True)] == [1.0] * 3
        layer.dispose()
        with pytest.raises(InvalidArgumentError, match="no initializer is called"):
            layers.TransformerDecoder.from_config(config)


def test_weights_start_as_in_keras() -> None:
    with gw.tidy():
        layer = layers.TransformerDecoder(20, HEADS)
        layer.build((None, None, WIDTH))
        first = dict(zip(layer.weight_names, layer.get_weights(), strict=True))
        assert first["feedforward_layer_norm/gamma"].tolist() == [1.0] * WIDTH
        assert first["feedforward_layer_norm/beta"].tolist() == [0.0] * WIDTH
        assert first["self_attention/query/bias"].tolist() == [[0.0] * 6] * HEADS
        kernels = [first[f"self_attention/{name}/kernel"].tolist() for name in ("query", "key")]
        assert kernels[0] != kernels[1]
        layer.dispose()


def test_a_mean_other_than_0_is_named() -> None:
    uniform = {"class_name": "RandomUniform", "config": {"minval": 0.0, "maxval": 1.0}}
    with pytest.raises(InvalidArgumentError, match=r"mean must be 0, not 0\.5"):
        layers.PositionEmbedding(3, uniform)
