"""Recording of equal layers: the dispatches of the first, repeated with the buffers of the others.

The Python code of a layer takes several times as long as a copy of its dispatches, and before the
first token of a shape all layers of prefill and decode step are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.nn import Block, KVCache, kernels_are_chosen
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.webgpu import Device, Recording
from gpt2_wgpu.webgpu.queue import open_recorder
from gpt2_wgpu.webgpu.storage import Storage

# Half a layer of x: (layer, 0: attention or 1: MLP, x, function that computes it) → its result.
RunHalf = Callable[[int, int, Tensor, Callable[[], Tensor]], Tensor]


@dataclass(frozen=True)
class _Half:
    """Recorded dispatches of half a layer: ``first`` to before ``end``."""

    layer: int
    first: int
    end: int
    given: Storage
    result: Storage


class RepeatedLayers(NotCopyable):
    """Layers of a model while they are recorded, in halves: attention and MLP.

    ``constants``: for each layer what its dispatches depend on besides its tensors.
    """

    def __init__(
        self,
        recording: Recording,
        blocks: Sequence[Block],
        cache: KVCache,
        constants: Sequence[Hashable],
    ) -> None:
        self._recording = recording
        self._kinds: list[Hashable] = []  # equal for layers with equal dispatches
        self._tensors: list[list[Tensor]] = []  # weights and cache
        for layer, (block, constant) in enumerate(zip(blocks, constants, strict=True)):
            tensors = [*block.tensors(), cache.layer(layer)]
            storages = [tensor.storage for tensor in tensors]
            distinct = len(set(storages)) == len(storages)
            shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
            self._kinds.append((shapes, block.layout(), constant) if distinct else layer)
            self._tensors.append(tensors)
        self._halves: dict[tuple[Hashable, int], _Half] = {}

    def record(self, layer: int, half: int, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Return ``compute()``, half a layer of ``x``, recorded by it or as of an equal layer."""
        recorded = self._recording.recorded
        known = self._halves.get((self._kinds[layer], half))
        if known is None or known.given.size != x.storage.size:
            first = len(recorded)
            result = compute()
            made = _Half(layer, first, len(recorded), x.storage, result.storage)
            self._halves.setdefault((self._kinds[layer], half), made)
            return result
        pairs = zip(self._tensors[known.layer], self._tensors[layer], strict=True)
        others = {one.check().storage: other.check().storage for one, other in pairs}
        if x.storage is not known.given:
            # Exchanged: the buffer in place of x may also be one of the intermediate results.
            others |= {known.given: x.storage, x.storage: known.given}
        self._recording.repeat(known.first, known.end, others)
        storage = others.get(known.result, known.result)
        return Tensor(x.device, storage.retain(), x.shape, x.dtype)


def run_half(_layer: int, _half: int, _x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
    """Return ``compute()``."""
    return compute()


def recorder(
    device: Device, blocks: Sequence[Block], cache: KVCache, constants: Sequence[Hashable]
) -> RunHalf:
    """Return `RepeatedLayers.record` for the open recording; `run_half` without one."""
    opened = open_recorder.get()
    if not isinstance(opened, Recording) or opened.device is not device or kernels_are_chosen():
        return run_half
    return RepeatedLayers(opened, blocks, cache, constants).record
