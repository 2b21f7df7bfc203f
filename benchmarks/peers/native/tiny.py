"""tinygrad on WEBGPU (Dawn), after its GPT-2 example: a captured step over a cache of fixed size.

The position is a bound variable, so that one captured step serves every token. The prefill is
captured too, for its one length, which the example does not do.
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

# tinygrad looks for Dawn among the system's libraries; PyPI's dawn-python carries one.
_DAWN = "libwebgpu_dawn_{}.{}".format(
    platform.machine(), "dylib" if platform.system() == "Darwin" else "so"
)
os.environ.setdefault(
    "WEBGPU_PATH", str(Path(sysconfig.get_paths()["purelib"], "pydawn", "lib", _DAWN))
)
os.environ["DEV"] = "WEBGPU"

from tinygrad import Device, Tensor, TinyJit, Variable  # noqa: E402 - after DEV is set
from tinygrad.nn.state import safe_load  # noqa: E402


class Engine:
    def load(self, model: Path, threads: int) -> dict[str, str]:
        if Device.DEFAULT != "WEBGPU":
            raise RuntimeError(f"tinygrad took {Device.DEFAULT} instead of WEBGPU")
        config = json.loads((model / "config.json").read_text())
        self._layers, self._heads = config["n_layer"], config["n_head"]
        self._width, self._context = config["n_embd"], config["n_positions"]
        self._vocabulary = config["vocab_size"]
        self._epsilon = config["layer_norm_epsilon"]
        self._w = {
            name.removeprefix("transformer."): value.to(Device.DEFAULT).float().contiguous()
            for name, value in safe_load(model / "model.safetensors").items()
        }
        Tensor.realize(*self._w.values())
        shape = (2, 1, self._context, self._heads, self._width // self._heads)
        self._caches = [Tensor.zeros(*shape).contiguous().realize() for _ in range(self._layers)]
        self._step = TinyJit(self._forward)
        self._prefill = TinyJit(lambda ids: self._forward(ids, 0))
        return {"tinygrad": version("tinygrad"), "dawn-python": version("dawn-python")}

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        token = self._prefill(Tensor([work["ids"]]).realize())
        emit([token.item()])
        first = len(work["ids"])
        for position in range(first, first + count - 1):
            place = Variable("position", 1, self._context - 1).bind(position)
            word = Variable("token", 0, self._vocabulary - 1).bind(token.item())
            token = self._step(word, place)
            emit([token.item()])

    def _forward(self, ids: Any, start: Any) -> Tensor:
        """The likeliest token after ``ids``, which begin at position ``start``.

        ``ids``: a tensor [1, T], or one bound variable, which takes its row without a search.
        """
        words, tokens = self._w["wte.weight"], 1
        if isinstance(ids, Tensor):
            x, tokens = words[ids], ids.shape[1]
        else:
            x = words.shrink(((ids, ids + 1), None)).unsqueeze(0)
        x = x + self._w["wpe.weight"].shrink(((start, start + tokens), None))
        for n in range(self._layers):
            x = x + self._attend(self._norm(x, f"h.{n}.ln_1"), n, start)
            inner = self._linear(self._norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc").gelu()
            x = x + self._linear(inner, f"h.{n}.mlp.c_proj")
        last = self._norm(x[:, -1], "ln_f")
        return last.matmul(self._w["wte.weight"].T).argmax(-1).flatten().realize()

    def _attend(self, x: Tensor, n: int, start: Any) -> Tensor:
        tokens, depth = x.shape[1], self._width // self._heads
        qkv = self._linear(x, f"h.{n}.attn.c_attn").reshape(1, tokens, 3, self._heads, depth)
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
        return self._linear(out.reshape(1, tokens, self._width), f"h.{n}.attn.c_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x.matmul(self._w[f"{name}.weight"]) + self._w[f"{name}.bias"]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x.layernorm(eps=self._epsilon) * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]
