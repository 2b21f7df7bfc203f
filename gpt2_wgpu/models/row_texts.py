"""Token history of the rows of a sampling state, written anew for each step.

A state of plain decoding appends the token that it samples. Rows that Python chooses, beams and
drafts, may continue another text at every step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from gpt2_wgpu.nn import History, SamplingOptions, SamplingState
from gpt2_wgpu.nn.sampling import EXCLUDED, maxima_and_counts


class RowTexts:
    """Writer of the texts and token counts that rules and penalties need, if any do.

    ``prompts``: those that the rows continue. ``excluded``: tokens that are never chosen.
    """

    def __init__(
        self,
        state: SamplingState,
        options: SamplingOptions,
        prompts: Sequence[Sequence[int]],
        excluded: Iterable[int],
    ) -> None:
        self._state, self._prompts = state, prompts
        never = sorted({*excluded})
        self._counts = [
            array("I", maxima_and_counts(History(prompt, len(prompt)), state.candidates, never))
            for prompt in (prompts if options.penalties.any else ())
        ]

    def write(self, rows: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Write the first rows of the state: index of the prompt, and new tokens, of each."""
        state, width = self._state, 0 if self._state.texts is None else self._state.texts.shape[1]
        texts, counts = array("I"), array("I")
        if not width and not self._counts:
            return
        for which, new in rows:
            prompt = self._prompts[which]
            if width:
                length = len(prompt) + len(new)
                texts.extend((len(prompt), *prompt, *new, *[0] * (width - 1 - length)))
            if self._counts:
                counts += self._counted(which, new)
        for tensor, words in ((state.texts, texts), (state.maxima_and_counts, counts)):
            if tensor is not None and words:
                tensor.device.queue.upload(tensor.storage, 0, words)

    def _counted(self, which: int, new: Sequence[int]) -> array[int]:
        """Return a row of ``maxima_and_counts``."""
        counts = self._counts[which][:]
        first = len(counts) - self._state.candidates
        for token in new:
            if counts[first + token] != EXCLUDED:
                counts[first + token] += 1
        return counts
