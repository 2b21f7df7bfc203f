"""Token rules and penalties of a search, applied to scores as in transformers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.row_texts import RowTexts
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from gpt2_wgpu.tensors import Tensor, dispose, keep, tidy
from gpt2_wgpu.webgpu import Device


class SearchRules(NotCopyable):
    """Sampling state of the rows of all prompts, written anew for each step; close it at the end.

    A prompt has ``count`` rows: its beams, or candidates.
    """

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
        self._prompts, self._limits = prompts, limits
        rows = [History(prompt, len(prompt)) for prompt in prompts for _ in range(count)]
        excluded = {*candidates.excluded, *options.rules.always_excluded(stop_token_ids)}
        with tidy("search rules"):
            self._state: SamplingState = keep(
                SamplingState.create(
                    device,
                    rows,
                    [limit for limit in limits for _ in range(count)],
                    options,
                    stop_token_ids,
                    candidates.end,
                    excluded=sorted(excluded),
                    length=max(*limits, *map(len, prompts)),
                )
            )
        self._texts = RowTexts(self._state, options, prompts, excluded)

    @classmethod
    def of(
        cls,
        device: Device,
        options: SamplingOptions,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        stop_token_ids: Sequence[int],
        candidates: Candidates,
        count: int,
    ) -> SearchRules | None:
        """Return the rules and penalties of ``options``; None if they have no effect."""
        if not (options.rules.any or options.penalties.any):
            return None
        return cls(device, options, prompts, limits, stop_token_ids, candidates, count)

    def apply(self, scores: Tensor) -> Tensor:
        """Return ``scores`` [R, V], logits or log-probabilities, for the texts last written.

        Those of tokens that cannot be chosen are lowest, see samplers/beams.py.
        """
        state = self._state.first_rows(scores.shape[0])
        nn.exclude_tokens(state)
        nn.bias_sequences(state)
        return nn.penalize(scores, state)

    def write(self, live: Sequence[int], new: Sequence[Sequence[Sequence[int]]]) -> None:
        """Take the new tokens of each row of the ``live`` prompts, ``count`` of each."""
        rows = [(which, row) for which, group in zip(live, new, strict=True) for row in group]
        token, position, params = (array("I") for _ in range(3))
        for which, row in rows:
            prompt = self._prompts[which]
            token.append((row or prompt)[-1])
            position.append(len(prompt) + len(row) - 1)
            params.extend((self._limits[which], 0, 0, 0))
        state = self._state
        for tensor, words in (
            (state.token, token),
            (state.position, position),
            (state.row_params, params),
        ):
            self._queue.upload(tensor.storage, 0, words)
        self._texts.write(rows)

    def close(self) -> None:
        """Free the GPU memory. Idempotent."""
        dispose(self._state)
