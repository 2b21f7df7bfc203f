"""Layouts of GPT-2's tensors on the GPU, and their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.nn import Axis, part_sizes, round_up, stored_words
from gpt2_wgpu.nn.matrix import STAGED_BYTES
from gpt2_wgpu.tensors.tensor import bytes_of
from gpt2_wgpu.webgpu.storage import size_class


@dataclass(frozen=True)
class Layout:
    """Padding of the axes of a matrix [out_features, in_features] or vector [out_features]."""

    out_features: Axis
    in_features: Axis | None = None
    transpose: bool = False  # the checkpoint has [in_features, out_features]: transformers' Conv1D
    chosen: bool = False  # stored as the dtype that was asked for; else as f32

    @property
    def padded_in_features(self) -> int:
        """Padded in_features of a matrix; 0 for a vector."""
        return 0 if self.in_features is None else round_up(self.in_features.length, 8)

    def nbytes(self, dtype: str, max_binding: int) -> int:
        """Return the bytes allocated on a device with this binding limit."""
        if self.in_features is None:
            return size_class(4 * round_up(self.out_features.length, 2))
        kind = dtype if self.chosen else "float32"
        sizes = part_sizes(self.out_features.length, self.padded_in_features, kind, max_binding)
        return sum(size_class(bytes_of(lines * self.padded_in_features, kind)) for lines in sizes)


def layouts(config: GPT2Config) -> dict[str, Layout]:
    """Return the layout of each of ``config.expected_tensors()``.

    Widths are padded to multiples of eight, separately for each head.
    """
    width, inner = config.n_embd, config.intermediate_dim
    head, padded_head = config.head_dim, round_up(config.head_dim, 8)
    stream = Axis(width, width, round_up(width, 8))
    hidden = Axis(inner, inner, round_up(inner, 8))
    linears = {
        "attn.c_attn": (Axis(3 * width, head, padded_head), stream),
        "attn.c_proj": (stream, Axis(width, head, padded_head)),
        "mlp.c_fc": (hidden, stream),
        "mlp.c_proj": (stream, hidden),
    }

    def layout(name: str, shape: tuple[int, ...]) -> Layout:
        if len(shape) == 2 and not name.startswith("h."):
            return Layout(Axis.plain(shape[0]), stream, chosen=name != "wpe.weight")
        module, _, kind = name.rpartition(".")
        out_features, in_features = linears.get(
            module.partition(".")[2].partition(".")[2], (stream, None)
        )
        if kind == "bias" or in_features is None:
            return Layout(out_features)
        return Layout(out_features, in_features, transpose=True, chosen=True)

    return {name: layout(name, shape) for name, shape in config.expected_tensors().items()}


@lru_cache(maxsize=16)  # each prefill asks
def stored_bytes(config: GPT2Config, dtype: str, max_binding: int = 1 << 62) -> int:
    """Return the size of the weights on the GPU in bytes, with padding, from the config alone."""
    layout_of = layouts(config)
    behind_norms = [config.vocab_size]  # out_features of the layers whose LayerNorm is folded in
    for i in range(config.n_layer):
        behind_norms += [
            layout_of[f"h.{i}.{name}.weight"].out_features.length
            for name in ("attn.c_attn", "mlp.c_fc")
        ]
    folded = sum(size_class(2 * 4 * out_features) for out_features in behind_norms)
    return folded + sum(layout.nbytes(dtype, max_binding) for layout in layout_of.values())


def staged_bytes(config: GPT2Config) -> int:
    """Return the maximal additional bytes of uploads: the largest piece, as F32."""
    pieces = (
        4 * math.prod(shape) if name.startswith("h.") else min(4 * math.prod(shape), STAGED_BYTES)
        for name, shape in config.expected_tensors().items()
    )
    return size_class(max(pieces))


def quantized_shapes(config: GPT2Config, dtype: str) -> dict[str, tuple[int, ...]]:
    """Return name → shape, as U32, of the matrices of a checkpoint converted to ``dtype``."""
    return {
        name: stored_words(layout.out_features.length, layout.padded_in_features, dtype)
        for name, layout in layouts(config).items()
        if layout.chosen
    }
