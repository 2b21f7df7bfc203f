"""What a row of a continuous batch computes, from the arguments of its caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.call_settings import sampler_of_call
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.evaluation import LanguageModel
from gpt2_wgpu.models.generate_arguments import SamplerLike, StopTokens
from gpt2_wgpu.models.token_choice import with_rules
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import Penalties, SamplingOptions, TokenRules
from gpt2_wgpu.samplers import runs_in_python, runs_its_own_loop
from gpt2_wgpu.sampling_parameters import MAX_TOP_LOGPROBS
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer


@dataclass(frozen=True)
class GroupKey:
    """Properties of the kernels of a step; rows in which they are equal share it."""

    candidates: int
    counted: bool
    penalties: Penalties
    rules: TokenRules
    stop_token_ids: tuple[int, ...]  # where rules depend on them
    top_logprobs: int | None  # alternatives that the step keeps; None: no log-probabilities


@dataclass(frozen=True)
class RowPlan:
    """Input of a row: prompt, total length at which it is full, and how tokens are chosen."""

    prompt: Sequence[int]
    limit: int
    context: int
    options: SamplingOptions
    stop_token_ids: frozenset[int]
    candidates: int  # ids below this may be chosen
    excluded: tuple[int, ...]  # but these
    top_logprobs: int | None = None  # alternatives of each new id; None: no log-probabilities
    most_logprobs: int | None = None  # alternatives that the step keeps, for all rows alike

    def with_logprobs(self, top: int, model: LanguageModel) -> RowPlan:
        """Return the plan of a row with ``top`` alternatives of each new id."""
        most = min(MAX_TOP_LOGPROBS, model.backbone.config.vocab_size)
        return replace(self, top_logprobs=top, most_logprobs=most)

    @property
    def key(self) -> GroupKey:
        """Key of the rows that can share a step with this one."""
        options, rules = self.options, self.options.rules
        counted = options.penalties.any or bool(self.excluded) or rules.depend_on_text
        stops = tuple(sorted(self.stop_token_ids)) if rules.depend_on_text else ()
        kept = self.most_logprobs
        return GroupKey(self.candidates, counted, options.penalties, rules, stops, kept)


def row_plan(
    lm: CausalLM,
    max_length: int,
    prompt_ids: Sequence[int],
    max_new_tokens: int | None,
    sampler: SamplerLike | None,
    seed: int | None,
    stop_token_ids: StopTokens,
) -> RowPlan:
    """Return the plan of a row; ``max_length``: limit of its tokens, the rest as in ``submit``.

    Raises:
        ContextLengthError: the prompt fills ``max_length``.
        InvalidArgumentError: an argument is invalid.
    """
    config = lm.backbone.config
    if isinstance(prompt_ids, str | bytes):
        raise InvalidArgumentError(
            f"prompt_ids must be token ids, not the text {shown(prompt_ids)}: encode it first, "
            "lm.encode_prompts([text], lm.preprocessor)[0]"
        )
    rows = rows_of_ids(prompt_ids, config.vocab_size, "prompt_ids")
    if len(rows) != 1 or not rows[0]:
        raise InvalidArgumentError("prompt_ids must be one list of at least one id")
    (prompt,) = rows
    most, new = lm.limits_of_call(None, max_new_tokens, max_length)
    limit = max_length if most is None else most
    if len(prompt) >= limit:
        raise ContextLengthError(
            f"the prompt's {len(prompt)} tokens leave no room below the max_length of {limit}: "
            f"at most {limit - 1} may be given"
        )
    if new is not None:
        limit = min(limit, len(prompt) + integer("max_new_tokens", new, 1, 2**31 - 1))
    if seed is not None:
        seed = integer("seed", seed, 0, 2**64 - 1)
    used, _ = sampler_of_call(lm.sampler, lm.logits_processors, sampler, seed)
    if runs_in_python(used) or runs_its_own_loop(used):
        raise InvalidArgumentError(
            f"{type(used).__name__} does not choose on the GPU row by row, as rows of a "
            "ContinuousBatch do: use generate"
        )
    stops = lm.resolve_stop_tokens(stop_token_ids)
    options = with_rules(used.next_options(), used, lm.token_rules)
    candidates = lm.candidates(stops) or Candidates(config.vocab_size)
    options.rules.check(candidates.end)
    excluded = {*candidates.excluded, *options.rules.always_excluded(stops)}
    return RowPlan(
        prompt,
        limit,
        config.n_positions,
        options,
        frozenset(stops),
        candidates.end,
        tuple(sorted(excluded)),
    )
