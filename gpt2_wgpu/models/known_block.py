"""Reference model of the self-test: a small GPT-2 computed in Python.

Weights follow from a formula and are exact in every format, including F16 and BF16: each block of
32 has small multiples of a power of two, and one element of the largest magnitude. Hidden states
and logits are computed with Python's floats, as browsers have no NumPy.
"""

from __future__ import annotations

import math
import operator
import struct
from array import array
from collections.abc import Sequence
from itertools import chain

from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.nn import Raw

# Sizes that use all kernels of generation, with loops over several blocks of 32.
CONFIG = GPT2Config(
    vocab_size=300,
    n_positions=160,
    n_embd=64,
    n_head=2,
    n_layer=1,
    n_inner=96,
    layer_norm_epsilon=0.05,  # comparable to the variance, so that an error in it is detected
)
# Offset of all scores of the first head: exp(score) overflows unless the maximum is subtracted.
_OFFSET = 24.0
_SOURCES = {  # tensor → format in the checkpoint; default F32
    "wte.weight": "F16",
    "h.0.attn.c_attn.weight": "BF16",
    "h.0.attn.c_attn.bias": "F16",
    "h.0.mlp.c_fc.weight": "F16",
    "h.0.mlp.c_fc.bias": "BF16",
    "h.0.mlp.c_proj.weight": "BF16",
}


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    total: float = sum(map(operator.mul, a, b))
    return total


class _Numbers:
    """Linear congruential generator (Numerical Recipes), equal on all platforms."""

    def __init__(self, seed: int) -> None:
        self._state = seed * 2654435761 & 0xFFFFFFFF

    def level(self, most: int) -> int:
        """Return an integer from ``-most`` to ``most``."""
        self._state = (self._state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self._state >> 16) % (2 * most + 1) - most


def _matrix(seed: int, rows: int, depth: int, levels: tuple[int, int]) -> list[list[float]]:
    """W [rows, depth], exact in formats of these levels; ``depth`` a multiple of 32."""
    lowest, highest = levels
    most = min(highest, -lowest - 1)  # of all but the largest of a block
    step = 0.25 / (1 << most.bit_length())
    numbers = _Numbers(seed)
    matrix = []
    for j in range(rows):
        row = []
        for k in range(depth):
            block, i = divmod(k, 32)
            level = numbers.level(most)
            if i == (5 * j + 11 * block) % 32:  # the block's largest magnitude
                level = lowest if -lowest > highest else highest * (-1) ** j
            row.append(level * step * (1 + (j + block) % 2))
        matrix.append(row)
    return matrix


def _vector(seed: int, size: int, about: float, step: float) -> list[float]:
    numbers = _Numbers(seed)
    return [about + numbers.level(126) * step for _ in range(size)]


class KnownBlock:
    """Weights for formats of these levels (`WeightFormat.levels`)."""

    def __init__(self, levels: tuple[int, int]) -> None:
        width, inner = CONFIG.n_embd, CONFIG.intermediate_dim
        self.wte = _matrix(1, CONFIG.vocab_size, width, levels)
        self.wpe = [_vector(100 + p, width, 0.75, 2.0**-8) for p in range(CONFIG.n_positions)]
        self.c_attn = _matrix(2, 3 * width, width, levels)
        self.c_attn[0] = self.c_attn[width] = [0.0] * width
        self.c_attn_bias = _vector(3, 3 * width, 0.0, 2.0**-8)
        self.c_attn_bias[0] = self.c_attn_bias[width] = _OFFSET
        self.attn_proj = _matrix(4, width, width, levels)
        self.attn_proj_bias = _vector(5, width, 0.25, 2.0**-8)
        self.c_fc = _matrix(6, inner, width, levels)
        self.c_fc_bias = _vector(7, inner, 0.0, 2.0**-8)
        self.c_fc_bias[0] = -200.0  # GELU's tail
        self.mlp_proj = _matrix(8, width, inner, levels)
        self.mlp_proj_bias = _vector(9, width, -0.25, 2.0**-8)
        self.norms = {
            name: (_vector(seed, width, 1.0, 2.0**-8), _vector(seed + 1, width, 0.25, 2.0**-8))
            for name, seed in (("h.0.ln_1", 10), ("h.0.ln_2", 12), ("ln_f", 14))
        }

    async def fetch(self, name: str) -> Raw:
        """Return a tensor in a checkpoint's format."""
        matrices = {
            "wte.weight": self.wte,
            "wpe.weight": self.wpe,
            "h.0.attn.c_attn.weight": self.c_attn,
            "h.0.attn.c_proj.weight": self.attn_proj,
            "h.0.mlp.c_fc.weight": self.c_fc,
            "h.0.mlp.c_proj.weight": self.mlp_proj,
        }
        vectors = {
            "h.0.attn.c_attn.bias": self.c_attn_bias,
            "h.0.attn.c_proj.bias": self.attn_proj_bias,
            "h.0.mlp.c_fc.bias": self.c_fc_bias,
            "h.0.mlp.c_proj.bias": self.mlp_proj_bias,
        }
        source = _SOURCES.get(name, "F32")
        if name in matrices:
            rows = matrices[name]
            if name.startswith("h."):  # Conv1D: [inputs, outputs]
                rows = [list(column) for column in zip(*rows, strict=True)]
            return Raw(
                _packed(chain.from_iterable(rows), source), source, (len(rows), len(rows[0]))
            )
        module, _, kind = name.rpartition(".")
        vector = self.norms[module][kind == "bias"] if module in self.norms else vectors[name]
        return Raw(_packed(vector, source), source, (len(vector),))

    def norm(self, name: str, x: Sequence[float]) -> list[float]:
        """Return the LayerNorm ``name`` of ``x`` [D]."""
        gain, shift = self.norms[name]
        mean = sum(x) / len(x)
        centred = [value - mean for value in x]
        scale = 1 / math.sqrt(_dot(centred, centred) / len(x) + CONFIG.layer_norm_epsilon)
        return [c * scale * g + b for c, g, b in zip(centred, gain, shift, strict=True)]


def _packed(values: chain[float] | Sequence[float], source: str) -> memoryview:
    values = list(values)
    if source == "F16":
        return memoryview(struct.pack(f"<{len(values)}e", *values))
    words = array("f", values)
    if source == "BF16":  # the upper half of an f32
        halves = array("H", words.tobytes())[1::2]
        return memoryview(halves).cast("B")
    return memoryview(words).cast("B")


def _linear(x: Sequence[float], weight: list[list[float]], bias: Sequence[float]) -> list[float]:
    return [_dot(x, row) + b for row, b in zip(weight, bias, strict=True)]


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class KnownText:
    """A row of tokens; :meth:`append` computes the hidden state of the next position."""

    def __init__(self, block: KnownBlock) -> None:
        self._block = block
        self._keys: list[list[list[float]]] = [[] for _ in range(CONFIG.n_head)]
        # Values by dimension: [head][dimension][position].
        self._values: list[list[list[float]]] = [
            [[] for _ in range(CONFIG.head_dim)] for _ in range(CONFIG.n_head)
        ]
        self._length = 0

    def append(self, token: int) -> list[float]:
        """Return the hidden state [D] after the block, before the final norm."""
        block, wpe = self._block, self._block.wpe[self._length]
        self._length += 1
        x = [a + b for a, b in zip(block.wte[token], wpe, strict=True)]
        attended = self._attend(_linear(block.norm("h.0.ln_1", x), block.c_attn, block.c_attn_bias))
        added = _linear(attended, block.attn_proj, block.attn_proj_bias)
        x = [a + b for a, b in zip(x, added, strict=True)]
        inner = _linear(block.norm("h.0.ln_2", x), block.c_fc, block.c_fc_bias)
        added = _linear([_gelu(h) for h in inner], block.mlp_proj, block.mlp_proj_bias)
        return [a + b for a, b in zip(x, added, strict=True)]

    def _attend(self, qkv: list[float]) -> list[float]:
        dim, width = CONFIG.head_dim, CONFIG.n_embd
        attended: list[float] = []
        for head, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            at = head * dim
            query = qkv[at : at + dim]
            keys.append(qkv[width + at : width + at + dim])
            for column, value in zip(values, qkv[2 * width + at :], strict=False):
                column.append(value)
            scores = [_dot(query, key) / math.sqrt(dim) for key in keys]
            highest = max(scores)
            powers = [math.exp(score - highest) for score in scores]
            total = sum(powers)
            attended += [_dot(powers, column) / total for column in values]
        return attended

    def logits(self, hidden: Sequence[float]) -> list[float]:
        """Return the logits [V] of a hidden state [D]."""
        x = self._block.norm("ln_f", hidden)
        return [_dot(x, row) for row in self._block.wte]
