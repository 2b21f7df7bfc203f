"""Cache of recorded decode steps and prefills, reused by later generations.

The recordings of the function of ``make_generate_function`` are kept by the model until ``compile``
or ``dispose``. Between generations their buffers belong to the device's pool, as one group per run:
they are not counted as live, and are freed by ``trim``, memory pressure and the pool's limit. A run
without buffers is recorded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import GPT2Weights
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import (
    History,
    KVCache,
    Penalties,
    SamplingOptions,
    SamplingState,
    TokenRules,
    odds_width,
)
from gpt2_wgpu.tensors import dispose, keep
from gpt2_wgpu.webgpu import Capabilities, Device, Recording
from gpt2_wgpu.webgpu.idle_recording import IdleRecording

MAX_RUNS = 4


# Methods of the backbone that a step records; one that is replaced is called for each recording.
_RECORDED = {
    name: getattr(GPT2Backbone, name)
    for name in ("blocks", "half_blocks", "_attention", "_mlp", "_norm", "head", "attention_scale")
}


def has_own_methods(backbone: GPT2Backbone) -> bool:
    """Return whether no method that a step records is replaced, so that recordings can be kept."""
    return all(
        getattr(getattr(backbone, name), "__func__", None) is method
        for name, method in _RECORDED.items()
    )


class CachedPrefix(Protocol):
    """Protocol of keys and values that a generation of one row starts with."""

    async def fill(self, prefill: Prefill) -> None:
        """Write all tokens but the last to the cache of ``prefill``."""


@dataclass(frozen=True)
class DecodeInputs:
    """Input of a generation: token histories and options; see ``Generation``."""

    rows: Sequence[History]
    limits: Sequence[int]
    options: SamplingOptions
    stop_token_ids: Sequence[int]
    candidates: Candidates
    seeds: Sequence[int] | None
    length: int  # positions of the cache
    prefix: CachedPrefix | None = None  # source of the first positions; None: computed
    top_logprobs: int | None = None  # of the steps' tokens; None: no log-probabilities

    @property
    def ended(self) -> list[int | None]:
        """For each row the number of steps that it took part in; None while it is live."""
        rows = zip(self.rows, self.limits, strict=True)
        return [len(r.ids) - r.before if limit <= len(r.ids) else None for r, limit in rows]

    @property
    def excluded(self) -> list[int]:
        """Ids that are never chosen: with counts in the state, which its recordings depend on."""
        by_rules = self.options.rules.always_excluded(self.stop_token_ids)
        return sorted({*self.candidates.excluded, *by_rules})

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
            self.excluded,
            self.length,
            odds_width=0 if self.top_logprobs is None else odds_width(self.top_logprobs),
        )

    def write(self, state: SamplingState) -> None:
        """Reset a state of the same shape."""
        state.write(
            self.rows,
            self.limits,
            self.options,
            self.stop_token_ids,
            self.seeds,
            self.excluded,
        )


@dataclass(frozen=True)
class RunKey:
    """Key of a run: the values on which its dispatches depend; other values are uploaded."""

    device: Device
    weights: GPT2Weights  # compared by its tensors: others have other buffers
    capabilities: Capabilities
    cache_dtype: str
    rows: int
    length: int
    candidates: int
    excludes: bool
    stops: int
    penalties: Penalties
    rules: TokenRules
    top_logprobs: int | None

    @classmethod
    def of(cls, backbone: GPT2Backbone, inputs: DecodeInputs) -> RunKey:
        """Return the key of a run with these inputs."""
        return cls(
            device=backbone.device,
            weights=backbone.weights,
            capabilities=backbone.device.capabilities,
            cache_dtype=backbone.cache_dtype,
            rows=len(inputs.rows),
            length=inputs.length,
            candidates=inputs.candidates.end,
            excludes=bool(inputs.excluded),
            stops=len(inputs.stop_token_ids),
            penalties=inputs.options.penalties,
            rules=inputs.options.rules,
            top_logprobs=inputs.top_logprobs,
        )


class RunParts(NotCopyable):
    """KV cache and state of a run, with their recordings.

    ``steps``: recordings of the step, by number of rows; that of all rows comes first, and the
    others use its buffers.
    """

    def __init__(self, state: SamplingState, step: Recording, prefill: Prefill) -> None:
        self.state = state
        self.prefill = prefill
        self.steps = {prefill.cache.batch_size: step}
        self._idle: dict[int, IdleRecording] | None = None

    @property
    def cache(self) -> KVCache:
        """The KV cache."""
        return self.prefill.cache

    @property
    def step(self) -> Recording:
        """The step of all rows."""
        return self.steps[self.prefill.cache.batch_size]

    def suspend(self) -> None:
        """Give the buffers to the pool until :meth:`resume`."""
        dispose([self.cache, self.state])
        # The last has all references to the shared buffers, and they become its group.
        self._idle = {rows: IdleRecording(step) for rows, step in reversed(self.steps.items())}

    def resume(self) -> bool:
        """Take the buffers back; False if they are gone."""
        idle, self._idle = self._idle or {}, None
        rows = self.cache.batch_size
        if rows not in idle or not idle[rows].resume():
            for one in idle.values():
                one.close()
            self.prefill.close()
            return False
        self.steps = {n: step for n, step in self.steps.items() if n == rows or idle[n].resume()}
        self.state = keep(self.state.renewed())
        self.prefill.cache = keep(self.cache.renewed())
        return True

    def close(self) -> None:
        """Free everything. Idempotent."""
        self.prefill.close()
        if self._idle is not None:
            for idle in self._idle.values():
                idle.close()
            return
        for step in reversed(self.steps.values()):
            step.close()
        dispose([self.cache, self.state])


class KeptRuns(NotCopyable):
    """Idle runs, the last used at the end."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunKey, RunParts]] = []
        self._lock = Lock()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, key: RunKey) -> RunParts | None:
        """Return a run for ``key``, the caller's until :meth:`put`; None if there is none.

        Runs of a lost or closed device are freed.
        """
        with self._lock:
            lost = [parts for known, parts in self._runs if not known.device.is_open]
            self._runs = [run for run in self._runs if run[0].device.is_open]
        for parts in lost:
            parts.close()
        while True:
            with self._lock:
                found = next((run for run in reversed(self._runs) if run[0] == key), None)
                if found is None:
                    return None
                self._runs.remove(found)
            if found[1].resume():
                return found[1]

    def put(self, key: RunKey, parts: RunParts) -> None:
        """Keep ``parts``, in a valid state, for the next generation of this shape."""
        parts.suspend()
        with self._lock:
            self._runs.append((key, parts))
            most = 0 if self._is_closed else MAX_RUNS
            dropped = [self._runs.pop(0) for _ in range(len(self._runs) - most)]
        for _, parts in dropped:
            parts.close()

    def close(self) -> None:
        """Free all runs, and all that are put later. Idempotent."""
        with self._lock:
            self._is_closed = True
            runs, self._runs = self._runs, []
        for _, parts in runs:
            parts.close()
