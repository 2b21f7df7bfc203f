"""Details of generated rows: ``generate(..., return_details=True)``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.evaluation import LanguageModel, TokenLogprobs
from gpt2_wgpu.models.generate_arguments import GenerateRequest
from gpt2_wgpu.models.packed_ids import for_each_row, new_ids, prompts_of, rows_of
from gpt2_wgpu.models.row_ends import RowEnds, limit_reached
from gpt2_wgpu.models.step_logprobs import StepLogprobs, logprobs_of_rows
from gpt2_wgpu.sampling_parameters import MAX_TOP_LOGPROBS
from gpt2_wgpu.text.token_arrays import is_one_row
from gpt2_wgpu.validation import integer


@dataclass(frozen=True)
class GenerationDetails:
    """Details of one row that ``generate`` returns.

    Attributes:
        text: the text, as without details; None for a model without a preprocessor.
        token_ids: the new ids.
        logprobs: log-probability of each new id by the model, in nats, before logits processors,
            penalties and temperature.
        top_logprobs: for each new id the most likely ids in descending order, with their
            log-probabilities: as many as ``top_logprobs=n`` of the call says, by default none.
        ranks: for each new id the number of ids that were more likely.
        entropies: for each new id the entropy of the distribution that it was chosen from, before
            processors and temperature, in nats.
        finish_reason: "stop" (a stop token), "stop_text", "length" (``max_length`` or
            ``max_new_tokens``), "context" (the model's context is full), "time_limit" or "aborted"
            (by ``callback`` or ``cancellation``).
        prompt_tokens: number of tokens of the prompt.
        seconds_to_first_token: time from the call to this row's first tokens; None without any.
        seconds: time of the whole call, without a pass for log-probabilities after it.
        score: that of a beam, with ``return_all_beams`` (docs/search.md); else None.
    """

    text: str | None
    token_ids: list[int]
    logprobs: list[float]
    top_logprobs: list[dict[int, float]]
    ranks: list[int]
    entropies: list[float]
    finish_reason: str
    prompt_tokens: int
    seconds_to_first_token: float | None
    seconds: float
    score: float | None = None


def check_top_logprobs(top: int, model: LanguageModel) -> int:
    """Return ``top_logprobs``; InvalidArgumentError unless the vocabulary has so many ids."""
    most = min(MAX_TOP_LOGPROBS, model.backbone.config.vocab_size)
    return integer("top_logprobs", top, 0, most)


def check_details(return_details: bool, top: int | None, model: LanguageModel) -> None:
    """Raise InvalidArgumentError for ``top_logprobs`` without the details that have them."""
    if top is not None and check_top_logprobs(top, model) and not return_details:
        raise InvalidArgumentError(
            f"top_logprobs={top} is for the details: add return_details=True"
        )


def new_step_logprobs(top: int | None, model: LanguageModel) -> StepLogprobs | None:
    """Return those of a stream with ``top_logprobs``; None without. InvalidArgumentError."""
    return None if top is None else StepLogprobs(check_top_logprobs(top, model))


async def logprobs_of_details(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    new: Sequence[list[int]],
    top: int | None,
    steps: StepLogprobs | None,
) -> list[TokenLogprobs]:
    """Return ``logprobs_of_rows``, or empty ones where ``top`` is None."""
    if top is None:
        return [TokenLogprobs([], [], [], []) for _ in new]
    return await logprobs_of_rows(model, prompts, new, top, steps)


async def details_of(
    model: LanguageModel,
    output: Any,
    inputs: Any,
    stops: Collection[int],
    ends: RowEnds,
    text: Any,
    seconds: float,
    request: GenerateRequest,
    steps: StepLogprobs | None,
) -> Any:
    """Return the details of ``output`` of ``generate_step``, one object for one row [T].

    ``text``: the text or texts of the output, or None. ``steps``: log-probabilities by its steps.
    """
    config = model.backbone.config
    new = new_ids(output, inputs, config.vocab_size)
    ids, mask = rows_of(inputs, config.vocab_size)
    prompts, starts = prompts_of(ids, mask)
    room = [len(row) - start for row, start in zip(ids, starts, strict=True)]
    prompts, room = for_each_row(prompts, len(new)), for_each_row(room, len(new))
    found = await logprobs_of_details(model, prompts, new, request.top_logprobs, steps)
    one = is_one_row(output["token_ids"])
    texts = [text] * len(new) if text is None or isinstance(text, str) else text
    scores = output.get("scores", ())  # of all beams
    details = []
    for index, (prompt, row, most) in enumerate(zip(prompts, new, room, strict=True)):
        limit = min(most, len(prompt) + (request.max_new_tokens or most))
        length = len(prompt) + len(row)
        if ends.matches(row):
            reason = "stop_text"
        elif row and row[-1] in stops:
            reason = "stop"
        elif ends.ended_by is not None and length < limit:
            reason = ends.ended_by
        else:
            reason = limit_reached(length, config.n_positions)
        details.append(
            GenerationDetails(
                texts[index],
                row,
                *found[index],
                reason,
                len(prompt),
                ends.first_token_after.get(index),
                seconds,
                float(scores[index]) if len(scores) else None,
            )
        )
    return details[0] if one else details
