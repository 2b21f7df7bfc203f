"""Recorded steps and prefills that serve one generation after another.

``make_generate_function`` names the function; what it has recorded is here, kept by the model until
``compile`` or ``dispose``. Between two generations the buffers belong to the pool of the device, as
a group for each run: nothing counts as live, and ``trim``, lack of memory and the pool's limit free
them. A run whose buffers are gone is recorded anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, KVCache, Penalties, SamplingOptions, SamplingState
from gpt2_wgpu.tensors import dispose, keep
from gpt2_wgpu.webgpu import Capabilities, Device, Recording
from gpt2_wgpu.webgpu.idle_recording import IdleRecording

MOST_RUNS = 4


@dataclass(frozen=True)
class DecodeInputs:
    """What a batch is to continue, and how: see ``Generation``."""

    rows: Sequence[History]
    limits: Sequence[int]
    options: SamplingOptions
    stop_token_ids: Sequence[int]
    candidates: Candidates
    seeds: Sequence[int] | None
    length: int  # positions of the cache

    def new_state(self, device: Device) -> SamplingState:
        """Create the sampling state."""
        return SamplingState.create(
            device,
            self.rows,
            self.limits,
            self.options,
            self.stop_token_ids,
            self.candidates.end,
            self.seeds,
            self.candidates.excluded,
        )

    def write(self, state: SamplingState) -> None:
        """Begin anew with a state of the same shape."""
        state.write(
            self.rows,
            self.limits,
            self.options,
            self.stop_token_ids,
            self.seeds,
            self.candidates.excluded,
        )


@dataclass(frozen=True)
class RunKey:
    """Key of a run: the values on which its dispatches depend; other values are uploaded."""

    device: Device
    weights: int  # identity: others have other buffers
    capabilities: Capabilities
    cache_dtype: str
    rows: int
    length: int
    candidates: int
    excludes: bool
    stops: int
    penalties: Penalties

    @classmethod
    def of(cls, backbone: GPT2Backbone, inputs: DecodeInputs) -> RunKey:
        """Return the key of a run with these inputs."""
        return cls(
            device=backbone.device,
            weights=id(backbone.weights),
            capabilities=backbone.device.capabilities,
            cache_dtype=backbone.cache_dtype,
            rows=len(inputs.rows),
            length=inputs.length,
            candidates=inputs.candidates.end,
            excludes=bool(inputs.candidates.excluded),
            stops=len(inputs.stop_token_ids),
            penalties=inputs.options.penalties,
        )


class RunParts(NotCopyable):
    """KV cache, state, and what is recorded with them."""

    def __init__(self, state: SamplingState, step: Recording, prefill: Prefill) -> None:
        self.state = state
        self.step = step
        self.prefill = prefill
        self._idle: IdleRecording | None = None

    @property
    def cache(self) -> KVCache:
        """The KV cache."""
        return self.prefill.cache

    def suspend(self) -> None:
        """Give the buffers to the pool until :meth:`resume`."""
        dispose([self.cache, self.state])
        self._idle = IdleRecording(self.step)

    def resume(self) -> bool:
        """Take the buffers back; False if they are gone."""
        if self._idle is None or not self._idle.resume():
            self.prefill.close()
            return False
        self._idle = None
        self.state = keep(self.state.renewed())
        self.prefill.cache = keep(self.cache.renewed())
        return True

    def close(self) -> None:
        """Free everything. Idempotent."""
        self.prefill.close()
        if self._idle is not None:
            self._idle.close()
            return
        self.step.close()
        dispose([self.cache, self.state])


class KeptRuns(NotCopyable):
    """Runs that no generation uses now, the last used at the end."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunKey, RunParts]] = []
        self._lock = Lock()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, key: RunKey) -> RunParts | None:
        """A run for ``key``, which is the caller's until :meth:`put`; None where there is none."""
        while True:
            with self._lock:
                found = next((run for run in reversed(self._runs) if run[0] == key), None)
                if found is None:
                    return None
                self._runs.remove(found)
            if found[1].resume():
                return found[1]

    def put(self, key: RunKey, parts: RunParts) -> None:
        """Keep ``parts``, which are in order, for the next generation of this shape."""
        parts.suspend()
        with self._lock:
            self._runs.append((key, parts))
            most = 0 if self._is_closed else MOST_RUNS
            dropped = [self._runs.pop(0) for _ in range(len(self._runs) - most)]
        for _, parts in dropped:
            parts.close()

    def close(self) -> None:
        """Free all, and from now on what comes. Idempotent."""
        with self._lock:
            self._is_closed = True
            runs, self._runs = self._runs, []
        for _, parts in runs:
            parts.close()
