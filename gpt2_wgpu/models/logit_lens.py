"""Logit lens (nostalgebraist 2020): what the head would predict from the stream of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.models.evaluation import LOGIT_BYTES
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hooks import applied, not_finite
from gpt2_wgpu.models.residual_stacks import stacked
from gpt2_wgpu.tensors import Tensor, dispose, ops, tidy
from gpt2_wgpu.webgpu import sync


@dataclass(frozen=True)
class LogitLens:
    """Predictions from the residual stream before each block, and after the last.

    Tensors of the memory scope of the caller; layers [N], which ``labels`` names. Where logits are
    not finite, ids and ranks are -1, probabilities and divergences NaN; divergences are also NaN
    where those of the final prediction are. :meth:`numpy` and :meth:`data` raise NumericalError.
    """

    labels: list[str]
    positions: list[int]  # [T], of the text
    ids: Tensor  # [N, B, T, top] int32: the most likely tokens, the first most
    probabilities: Tensor  # [N, B, T, top]
    divergences: Tensor  # [N, B, T]: KL(final prediction || this one), in nats
    ranks: Tensor | None = None  # [N, B, T] int32 of the given tokens, 0 for the most likely

    def _tensors(self) -> dict[str, Tensor]:
        names = ("ids", "probabilities", "divergences", "ranks")
        return {name: each for name in names if (each := getattr(self, name)) is not None}

    def dispose(self) -> None:
        """Free the tensors. Idempotent."""
        dispose(self._tensors())

    def numpy(self) -> dict[str, Any]:
        """Copy the tensors to NumPy arrays, by name; blocks (async counterpart: ``data``).

        Raises:
            NumericalError: logits are not finite; the message has the first layer and position.
        """
        import numpy as np

        return {name: np.asarray(view) for name, view in sync(self.data(), "lens.data()").items()}

    async def data(self) -> dict[str, memoryview]:
        """Read the tensors: a memoryview of each, by name. NumericalError as of :meth:`numpy`."""
        found = {name: await each.data() for name, each in self._tensors().items()}
        top = self.probabilities.shape[-1]
        for place, value in enumerate(found["probabilities"].cast("B").cast("f")[::top]):
            if not math.isfinite(value):
                _, batch, positions, _ = self.probabilities.shape
                layer, rest = divmod(place, batch * positions)
                row, index = divmod(rest, positions)
                raise not_finite(
                    f"logit_lens: the logits of {self.labels[layer]}, row {row} at position "
                    f"{self.positions[index]}, are not finite",
                    "a hook of the run returned them, ",
                )
        return found


def logit_lens(
    backbone: GPT2Backbone,
    streams: Sequence[Tensor],
    labels: list[str],
    places: list[int],
    top: int,
    targets: Tensor | None,
) -> LogitLens:
    """Return the lens of ``streams`` [B, T, D], the last of which is that before the head.

    ``places``: positions [T] in the text. ``targets``: tokens [B, T] whose ranks are wanted.
    Computed in chunks, as logits take much memory. DisposedTensorError if the model is disposed.
    """
    backbone.check_usable()
    batch, positions, width = streams[0].shape
    rows, vocabulary = batch * positions, backbone.config.vocab_size
    step = max(1, LOGIT_BYTES // (4 * vocabulary))
    pieces: list[list[Sequence[Tensor]]] = [[] for _ in streams]
    with applied(()), tidy("logit lens") as scope:
        flat = [pad_last_axis(x).view((rows, -(-width // 8) * 8)) for x in streams]
        for first in range(0, rows, step):
            count = min(step, rows - first)
            with tidy("chunk") as chunk:
                final = _logits(backbone, flat[-1], first, count)
                wanted = None
                if targets is not None:
                    wanted = ops.slice(targets.view((rows,)), (first,), (count,))
                for layer, x in enumerate(flat):
                    is_last = layer == len(flat) - 1
                    logits = final if is_last else _logits(backbone, x, first, count)
                    pieces[layer].append(chunk.escape(_seen(backbone, logits, final, top, wanted)))
        found = [
            stacked([ops.concat([piece[part] for piece in layer]) for layer in pieces])
            for part in range(len(pieces[0][0]))
        ]
        shapes = [(batch, positions, top)] * 2 + [(batch, positions)] * 2
        views = [
            each.view((len(streams), *shape))
            for each, shape in zip(found, shapes[: len(found)], strict=True)
        ]
        return scope.escape(LogitLens(labels, places, *views))


def _logits(backbone: GPT2Backbone, x: Tensor, first: int, count: int) -> Tensor:
    """Return logits [R, V] of rows of x."""
    with tidy("logits") as scope:
        return scope.escape(backbone.logits(ops.slice(x, (first, 0), (count, x.shape[1]))))


def _seen(
    backbone: GPT2Backbone, logits: Tensor, final: Tensor, top: int, targets: Tensor | None
) -> Sequence[Tensor]:
    """Return ids, probabilities, divergences and, with ``targets``, ranks of logits [R, V]."""
    with tidy("lens of a layer") as scope:
        count, vocabulary = logits.shape
        probabilities, ids = ops.top_k(ops.softmax(logits), top)
        known = ops.equal(first := ops.slice(probabilities, (0, 0), (count, 1)), first)  # not NaN
        ids = ops.where(known, ids, -1)
        any_target = backbone.as_uint32([0] * count)
        divergences, _ = nn.divergence(logits, final, any_target)
        results = [ids, probabilities, divergences]
        if targets is not None:
            place = backbone.as_uint32([row * vocabulary for row in range(count)])
            place = ops.add(ops.cast(place, "int32"), ops.cast(targets, "int32"))
            own = ops.gather(logits.view((logits.size,)), place)
            larger = ops.cast(ops.greater(logits, ops.expand_dims(own, 1)), "int32")
            results.append(ops.where(known.view((count,)), ops.sum(larger, -1), -1))
        return scope.escape(results)
