"""Weights that a caller gives to a backbone, in KerasHub's shapes and order.

They are kept in host memory under Hugging Face's names, since they are uploaded again after a
device loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.layers.layer import Layer, weight_list
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.gpt2_weights import Fetch, OpenWeights
from gpt2_wgpu.nn import Raw
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.tensors.ops.operands import operands
from gpt2_wgpu.webgpu import Device

_QUERY_KEY_VALUE = tuple(f"self_attention/{each}" for each in ("query", "key", "value"))
# Hugging Face's name in a block → layers of KerasHub whose kernels and biases it joins.
_LINEAR = {
    "attn.c_attn": _QUERY_KEY_VALUE,
    "attn.c_proj": ("self_attention/attention_output",),
    "mlp.c_fc": ("feedforward_intermediate_dense",),
    "mlp.c_proj": ("feedforward_output_dense",),
}
_NORMS = {"ln_1": "self_attention_layer_norm", "ln_2": "feedforward_layer_norm"}


async def given_weights(
    layers: Sequence[Layer], config: GPT2Config, device: Device, weights: Sequence[Any]
) -> OpenWeights:
    """Return the source of ``weights``: tensors or arrays in the order of ``layers``.

    Raises:
        InvalidArgumentError: no sequence, or a value is no number.
        ShapeError: number or shapes differ from those of the layers' weights.
    """
    weights = weight_list(weights)
    expected = [shape for layer in layers for shape in layer.weight_shapes.values()]
    if len(weights) != len(expected):
        raise ShapeError(f"the model has {len(expected)} weights, not {len(weights)}")
    raws: dict[str, Raw] = {}
    rest = iter(weights)
    for layer in layers:
        async with tidy("set_weights"):
            values = {}
            for name, shape in layer.weight_shapes.items():
                given = next(rest)
                value = given if isinstance(given, Tensor) else tensor(given, device=device)
                if value.shape != shape:
                    raise ShapeError(
                        f"{layer.name}/{name} has the shape {list(shape)}, not {list(value.shape)}"
                    )
                (values[name],) = operands("set_weights", value)
            for name, value in _renamed(layer.name, values, config).items():
                data = memoryview(bytes(await value.data()))
                raws[name] = Raw(data, "F32", value.shape)

    async def fetch(name: str) -> Raw:
        return raws[name]

    def open_weights(device: Device, dtype: str) -> nullcontext[Fetch]:
        return nullcontext(fetch)

    return open_weights


def _renamed(layer: str, values: Mapping[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
    """Return a layer's weights by Hugging Face's names and in its shapes."""
    if layer == "position_embedding":
        return {"wpe.weight": values["embeddings"]}
    if layer == "layer_norm":
        return {"ln_f.weight": values["gamma"], "ln_f.bias": values["beta"]}
    if layer == "token_embedding":
        found = {"wte.weight": values["embeddings"]}
        if not config.tie_word_embeddings:
            found["lm_head.weight"] = ops.transpose(values["reverse_embeddings"])
        return found
    block = f"h.{layer.rpartition('_')[2]}"
    found = {}
    for name, norm in _NORMS.items():
        found[f"{block}.{name}.weight"] = values[f"{norm}/gamma"]
        found[f"{block}.{name}.bias"] = values[f"{norm}/beta"]
    for name, parts in _LINEAR.items():
        inputs = config.intermediate_dim if name == "mlp.c_proj" else config.n_embd
        kernels = [values[f"{part}/kernel"] for part in parts]
        matrices = [each.view((inputs, each.size // inputs)) for each in kernels]
        biases = [values[f"{part}/bias"] for part in parts]
        vectors = [each.view((each.size,)) for each in biases]
        found[f"{block}.{name}.weight"] = ops.concat(matrices, axis=1)
        found[f"{block}.{name}.bias"] = ops.concat(vectors)
    return found
