"""Beam search: the decoding loop of ``BeamSampler``.

The best continuations of each row are found on the GPU and read once a step, a few numbers a row;
which beams run on and which end is decided in Python (samplers/beams.py), since a readback of any
size costs the same and ends depend on all beams of a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack

from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.sampler_call import only
from gpt2_wgpu.models.search_rules import SearchRules
from gpt2_wgpu.models.search_step import SearchStep, started
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers import BeamSampler
from gpt2_wgpu.samplers.beams import Beam, Beams, Continuations
from gpt2_wgpu.tensors import Tensor, ops


async def beam_search(
    sampler: BeamSampler,
    model: CachedModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    candidates: Candidates,
    control: Control | None = None,
    options: SamplingOptions | None = None,
) -> list[list[Beam]]:
    """Return the beams of each prompt, best first, with total lengths up to ``limits``.

    Those that still run at the end of ``control`` are among them. ``options``: those of
    ``sampler``, with the rules of the checkpoint (default: without).

    InvalidArgumentError with fewer candidates than beams.
    """
    control, options = control or Control(), options or sampler.options()
    count, stops = sampler.checked().num_beams, {*stop_token_ids}
    words = sampler.forced_words()
    excluded = {*candidates.excluded, *options.rules.always_excluded(stop_token_ids)}
    words.check(stops, excluded, candidates.end)
    free = candidates.end - len({*excluded, *(s for s in stops if s < candidates.end)})
    if count > free:
        raise InvalidArgumentError(
            f"num_beams {count} exceeds the number of tokens that can follow, {free}"
        )
    searches = [
        sampler.beams(limit - len(prompt), stop_token_ids)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]

    def goes_on() -> bool:
        return not all(search.done for search in searches) and control.reason is None

    if not goes_on():
        return [search.best for search in searches]
    # A row's best `count` tokens that do not stop are among these.
    most = min(count + len(stops), candidates.end)
    temperature = sampler.temperature
    device = model.backbone.device
    rules = SearchRules.of(device, options, prompts, limits, stop_token_ids, candidates, count)

    def score(logits: Tensor) -> Sequence[Tensor]:
        logits = only(logits, candidates)
        if temperature != 1:
            logits = ops.div(logits, temperature)
        logits = ops.log_softmax(logits)
        if rules is not None:
            logits = rules.apply(logits)
        best = ops.top_k(logits, most)
        return (*best, ops.gather(logits, words.tokens, 1)) if words.tokens else best

    async with AsyncExitStack() as opened:
        if rules is not None:
            opened.callback(rules.close)
        step = await started(SearchStep.start(model, prompts, max(limits), count, score), control)
        if step is None:
            return [search.best for search in searches]
        opened.callback(step.close)
        parents = [[0] * count for _ in prompts]
        while goes_on():
            await step.compact([search.done for search in searches])
            live = step.prompts
            rows = [(prompts[which], searches[which]) for which in live]
            if rules is not None:
                rules.write(live, [_new_tokens(search, count) for _, search in rows])
            values, ids, *forced = await step.run(
                [token for prompt, search in rows for token in _newest(prompt, search, count)],
                [_position(*row) for row in rows for _ in range(count)],
                [parent for which in live for parent in parents[which]],
            )
            found = _continuations(values.cast("f"), ids.cast("i"), most)
            if forced:
                found = _with_tokens(found, words.tokens, forced[0].cast("f").tolist())
            for place, which in enumerate(live):
                search = searches[which]
                if not search.done:
                    moved = search.advance(found[place * count : (place + 1) * count])
                    if search.done and not search.finished:
                        raise NumericalError(
                            f"every token of all beams of row {which} is excluded: "
                            f"{options.rules.cause_of_exclusion()}; leave one"
                        )
                    parents[which] = moved + [0] * (count - len(moved))
                else:
                    parents[which] = [*range(count)]
    return [search.best for search in searches]


def _new_tokens(search: Beams, count: int) -> list[tuple[int, ...]]:
    """Return the new tokens of each beam, one for each row; none of a finished search."""
    running = [] if search.done else search.running
    beams: list[tuple[int, ...]] = [beam.tokens for beam in running] or [()]
    return beams + beams[:1] * (count - len(beams))


def _newest(prompt: Sequence[int], search: Beams, count: int) -> list[int]:
    """Return the newest token of each beam, one for each row."""
    tokens = [(beam.tokens or prompt)[-1] for beam in search.running] or [0]
    return tokens + tokens[:1] * (count - len(tokens))


def _position(prompt: Sequence[int], search: Beams) -> int:
    """Return the position of the newest tokens; of a finished search, the prompt's last one."""
    new = 0 if search.done else len(search.running[0].tokens)
    return len(prompt) - 1 + new


def _continuations(
    values: memoryview[float], ids: memoryview[int], most: int
) -> list[Continuations]:
    """Return the tokens of each row with log-probabilities; NumericalError for NaN."""
    result: list[Continuations] = []
    for first in range(0, len(values), most):
        row = values[first : first + most].tolist()
        if not math.isfinite(row[0]):
            raise not_finite(f"the logits of beam {first // most} are not finite")
        result.append(list(zip(ids[first : first + most].tolist(), row, strict=True)))
    return result


def _with_tokens(
    rows: list[Continuations], tokens: list[int], values: Sequence[float]
) -> list[Continuations]:
    """Append ``tokens`` with their log-probabilities [R, T] to the continuations of each row."""
    count = len(tokens)
    return [
        [*row, *zip(tokens, values[which * count : (which + 1) * count], strict=True)]
        for which, row in enumerate(rows)
    ]
