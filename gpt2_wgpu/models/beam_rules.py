"""Token rules and penalties of a beam search, applied to log-probabilities as in transformers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from gpt2_wgpu.nn.sampling import EXCLUDED, maxima_and_counts
from gpt2_wgpu.tensors import Tensor, dispose, keep, tidy
from gpt2_wgpu.webgpu import Device


class BeamRules(NotCopyable):
    """Sampling state of the rows of all beams, written anew for each step; close it at the end."""

    def __init__(
        self,
        device: Device,
        options: SamplingOptions,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        stop_token_ids: Sequence[int],
        candidates: Candidates,
        count: int,
    ) -> None:
        self._queue = device.queue
        self._prompts, self._limits, self._count = prompts, limits, count
        rows = [History(prompt, len(prompt)) for prompt in prompts for _ in range(count)]
        excluded = sorted({*candidates.excluded, *options.rules.always_excluded(stop_token_ids)})
        with tidy("beam rules"):
            self._state: SamplingState = keep(
                SamplingState.create(
                    device,
                    rows,
                    [limit for limit in limits for _ in range(count)],
                    options,
                    stop_token_ids,
                    candidates.end,
                    excluded=excluded,
                    length=max(*limits, *map(len, prompts)),
                )
            )
        self._counts = [
            array("I", maxima_and_counts(History(prompt, len(prompt)), candidates.end, excluded))
            for prompt in (prompts if options.penalties.any else ())
        ]

    def apply(self, log_probabilities: Tensor) -> Tensor:
        """Return ``log_probabilities`` [R, V] for the texts of the last :meth:`write`.

        Those of tokens that cannot be chosen are lowest, see samplers/beams.py.
        """
        state = self._state.first_rows(log_probabilities.shape[0])
        nn.exclude_tokens(state)
        nn.bias_sequences(state)
        return nn.penalize(log_probabilities, state)

    def write(self, live: Sequence[int], new: Sequence[Sequence[Sequence[int]]]) -> None:
        """Take the new tokens of each beam of the ``live`` prompts, ``count`` of each."""
        state, width = self._state, 0 if self._state.texts is None else self._state.texts.shape[1]
        token, position, params, texts, counts = (array("I") for _ in range(5))
        for which, beams in zip(live, new, strict=True):
            prompt, limit = self._prompts[which], self._limits[which]
            for beam in beams:
                length = len(prompt) + len(beam)
                token.append((beam or prompt)[-1])
                position.append(length - 1)
                params.extend((limit, 0, 0, 0))
                if width:
                    padding = [0] * (width - 1 - length)
                    texts.extend((len(prompt), *prompt, *beam, *padding))
                if self._counts:
                    counts += self._counted(which, beam)
        for tensor, words in (
            (state.token, token),
            (state.position, position),
            (state.row_params, params),
            (state.texts, texts),
            (state.maxima_and_counts, counts),
        ):
            if tensor is not None and words:
                self._queue.upload(tensor.storage, 0, words)

    def _counted(self, which: int, beam: Sequence[int]) -> array[int]:
        """Return the row of ``maxima_and_counts`` of a beam."""
        counts = self._counts[which][:]
        first = len(counts) - self._state.candidates
        for token in beam:
            if counts[first + token] != EXCLUDED:
                counts[first + token] += 1
        return counts

    def close(self) -> None:
        """Free the GPU memory. Idempotent."""
        dispose(self._state)
