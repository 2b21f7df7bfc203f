"""Details of the tokens of a stream while it is read: ``stream(..., top_logprobs=n)``."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.evaluation import LanguageModel
from gpt2_wgpu.models.growing_logprobs import GrowingLogprobs
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.token_details import TokenDetails
from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer


class StreamDetails(NotCopyable):
    """Details of the tokens of each row, taken in order.

    Those of ``steps``; of a loop that has none, computed by passes over the new tokens.
    """

    def __init__(self, model: LanguageModel, tokenizer: GPT2Tokenizer, steps: StepLogprobs) -> None:
        self._model, self._tokenizer, self._steps = model, tokenizer, steps
        self._rows: list[tuple[StreamingDetokenizer, GrowingLogprobs]] = []
        self._taken: list[int] = []

    def begin(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        """Begin rows with these prompts, of up to ``limits`` tokens in all."""
        backbone = self._model.backbone
        self._taken = [0] * len(prompts)
        self._rows = [
            (
                StreamingDetokenizer(self._tokenizer),
                GrowingLogprobs(backbone, prompt, limit, self._steps.top),
            )
            for prompt, limit in zip(prompts, limits, strict=True)
        ]

    async def take(self, row: int, ids: Sequence[int]) -> list[TokenDetails]:
        """Return the details of ``ids``, the next tokens of ``row``."""
        (detokenizer, growing), first = self._rows[row], self._taken[row]
        end = self._taken[row] = first + len(ids)
        found = self._steps.part(row, first, end, self._steps.top)
        if found is None:
            found = await growing.append(ids)
        texts = [detokenizer.push(token) if self._has_text(token) else "" for token in ids]
        columns = found.logprobs, found.ranks, found.entropies, found.top_logprobs
        return [TokenDetails(*each) for each in zip(ids, texts, *columns, strict=True)]

    def _has_text(self, token: int) -> bool:
        return self._tokenizer.has_id(token) and token not in self._tokenizer.special_token_ids

    def close(self) -> None:
        """Free the GPU memory of passes. Idempotent."""
        for _, growing in self._rows:
            growing.close()
