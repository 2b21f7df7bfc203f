"""Choosing the next token on the GPU, and the state that moves on with it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import dispatch
from gpt2_wgpu.gpu.layers.linear_layers import Logits
from gpt2_wgpu.gpu.tensor import Tensor, tensor

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device

RECENT = 16  # tokens a row remembers: the most that one submit may add
LIVE, STOPPED, FULL, NOT_FINITE = range(4)  # values of ``finished``


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep all."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0  # 64 bits

    def pack(self, stop_token_ids: Sequence[int]) -> memoryview:
        """The bytes of ``Options`` in shaders/sample.wgsl."""
        greedy = self.temperature < 1e-30  # would not survive as an f32
        stops = list(stop_token_ids) or [0]  # WGSL's array is never empty
        return memoryview(
            struct.pack(
                f"<ffIII{len(stops)}I",
                1.0 if greedy else self.temperature,
                self.top_p,
                self.top_k,
                greedy,
                len(stop_token_ids),
                *stops,
            )
        ).cast("I")


@dataclass(frozen=True)
class SamplingState:
    """Where each of B rows stands; the kernel advances it (shaders/sample.wgsl)."""

    token: Tensor  # [B, 1] the newest token
    position: Tensor  # [B] its position
    finished: Tensor  # [B] LIVE, STOPPED, FULL or NOT_FINITE
    recent: Tensor  # [B, RECENT] the token at position p stands at p % RECENT
    plan: Tensor  # [B, 4] total length at which a row is full; stream and seed of its draws
    options: Tensor

    @classmethod
    def create(
        cls,
        device: Device,
        tokens: Sequence[int],
        positions: Sequence[int],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        seeds: Sequence[int] | None = None,
    ) -> SamplingState:
        """State of rows whose newest token stands at ``positions`` and is not yet computed.

        Rows share the seed of ``options``, each with its index as a stream of its own. With
        ``seeds`` each draws what it would as the only row of a batch with that seed.
        """

        def words(values: object) -> Tensor:
            return tensor(values, "uint32", device=device)

        rows = len(tokens)
        keys = (
            [(r, options.seed) for r in range(rows)] if seeds is None else [(0, s) for s in seeds]
        )
        plan = [
            (limit, stream, seed & 0xFFFFFFFF, seed >> 32)
            for limit, (stream, seed) in zip(limits, keys, strict=True)
        ]
        full = [FULL if p + 1 >= n else LIVE for p, n in zip(positions, limits, strict=True)]
        return cls(
            token=words([[token] for token in tokens]),
            position=words(list(positions)),
            finished=words(full),
            recent=words([[0] * RECENT] * rows),
            plan=words(plan),
            options=words(options.pack(stop_token_ids)),
        )


def sample(logits: Logits, state: SamplingState) -> None:
    """Choose a token for each row of ``logits`` [B, V] and move ``state`` on by one position.

    Rows that are finished stay as they are. Raises ``ShapeError``.
    """
    rows, stride = logits.values.shape
    if state.position.shape != (rows,):
        raise ShapeError(
            f"sample: logits {logits.values.shape} for state of {state.position.shape} rows"
        )
    device = logits.values.device
    dispatch(
        device,
        "sample",
        (rows, 1, 1),
        {
            "logits": logits.values,
            "largest": logits.largest,
            "options": state.options,
            "plan": state.plan,
            "token": state.token,
            "position": state.position,
            "finished": state.finished,
            "recent": state.recent,
        },
        {"vocabulary": logits.candidates, "stride": stride},
        constants={"WORKGROUP": _threads(device, logits.candidates)},
    )


def _threads(device: Device, vocabulary: int) -> int:
    """A CPU adapter runs the threads of a workgroup in turns: fewer of them switch less often.

    At most 20 passes over the vocabulary have to stay within what one thread may loop.
    """
    loops = 20 * (vocabulary // 32 + 256)
    few = device.capabilities.barrier_free and loops < device.capabilities.max_iterations
    return 32 if few else 256
