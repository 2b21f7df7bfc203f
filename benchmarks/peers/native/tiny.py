"""tinygrad on WEBGPU (Dawn), after its GPT-2 example: a captured step over a cache of fixed size.

The position is a bound variable, so that one captured step serves every token. Unlike in the
example, the prefill is captured, too, for its one length. tinygrad binds whole tensors at default
limits, so the token embedding is split for the head, and its rows are uploaded from the host.
"""

from __future__ import annotations

import json
import os
import platform
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.native.worker import Emit

# tinygrad searches Dawn among the system's libraries; the package dawn-python has one.
_DAWN = "libwebgpu_dawn_{}.{}".format(
    platform.machine(), "dylib" if platform.system() == "Darwin" else "so"
)
os.environ.setdefault(
    "WEBGPU_PATH", str(Path(sysconfig.get_paths()["purelib"], "pydawn", "lib", _DAWN))
)
os.environ["DEV"] = "WEBGPU"

from tinygrad import Device, Tensor, TinyJit, Variable  # noqa: E402 - after DEV is set
from tinygrad.nn.state import safe_load  # noqa: E402

MAX_BINDING = 128 << 20  # bytes


class Engine:
    def load(self, model: Path, threads: int) -> dict[str, str]:
        if Device.DEFAULT != "WEBGPU":
            raise RuntimeError(f"tinygrad took {Device.DEFAULT} instead of WEBGPU")
        config = json.loads((model / "config.json").read_text())
        self._layers, self._heads = config["n_layer"], config["n_head"]
        self._width, self._context = config["n_embd"], config["n_positions"]
        self._epsilon = config["layer_norm_epsilon"]
        found = safe_load(model / "model.safetensors")
        held = {name.removeprefix("transformer."): value for name, value in found.items()}
        self._words = held.pop("wte.weight").numpy()
        self._w = {
            name: value.to(Device.DEFAULT).float().contiguous() for name, value in held.items()
        }
        rows = MAX_BINDING // (4 * self._width)
        self._head = [
            Tensor(self._words[first : first + rows]).contiguous()
            for first in range(0, len(self._words), rows)
        ]
        Tensor.realize(*self._w.values(), *self._head)
        self._caches: list[Tensor] = []
        self._step = TinyJit(self._forward)
        self._prefill = TinyJit(lambda x: self._forward(x, 0))
        return {"tinygrad": version("tinygrad"), "dawn-python": version("dawn-python")}

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        ids = work["ids"]
        if not self._caches:
            shape = (2, len(ids), self._context, self._heads, self._width // self._heads)
            zeros = [Tensor.zeros(*shape).contiguous().realize() for _ in range(self._layers)]
            self._caches = zeros
        tokens = self._prefill(self._embedded(ids)).tolist()
        emit(tokens)
        first = len(ids[0])
        for position in range(first, first + count - 1):
            place = Variable("position", 1, self._context - 1).bind(position)
            tokens = self._step(self._embedded([[token] for token in tokens]), place).tolist()
            emit(tokens)

    def _embedded(self, ids: list[list[int]]) -> Tensor:
        return Tensor(self._words[ids]).realize()

    def _forward(self, x: Tensor, start: Any) -> Tensor:
        """Return the most probable tokens after ``x`` [B, T, width], which begins at ``start``."""
        tokens = x.shape[1]
        x = x + self._w["wpe.weight"].shrink(((start, start + tokens), None))
        for n in range(self._layers):
            x = x + self._attend(self._norm(x, f"h.{n}.ln_1"), n, start)
            inner = self._linear(self._norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc").gelu()
            x = x + self._linear(inner, f"h.{n}.mlp.c_proj")
        last = self._norm(x[:, -1], "ln_f")
        logits = [last.matmul(part.T).realize() for part in self._head]
        return logits[0].cat(*logits[1:], dim=-1).argmax(-1).flatten().realize()

    def _attend(self, x: Tensor, n: int, start: Any) -> Tensor:
        rows, tokens, depth = x.shape[0], x.shape[1], self._width // self._heads
        qkv = self._linear(x, f"h.{n}.attn.c_attn").reshape(rows, tokens, 3, self._heads, depth)
        q, k, v = (qkv[:, :, part] for part in range(3))
        cache = self._caches[n]
        place = (None, None, (start, start + tokens), None, None)
        cache.shrink(place).assign(Tensor.stack(k, v)).realize()
        mask = None
        if tokens > 1:  # the prompt, from position 0
            mask = Tensor.full((1, 1, tokens, tokens), float("-inf")).triu(1)
        else:
            k, v = (cache[part].shrink((None, (0, start + 1), None, None)) for part in range(2))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        out = q.scaled_dot_product_attention(k, v, attn_mask=mask).transpose(1, 2)
        return self._linear(out.reshape(rows, tokens, self._width), f"h.{n}.attn.c_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x.matmul(self._w[f"{name}.weight"]) + self._w[f"{name}.bias"]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x.layernorm(eps=self._epsilon) * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]
