"""``CausalLM``: a task that generates token after token, by KerasHub's pipeline.

``preprocessor.generate_preprocess`` → ``make_generate_function`` → ``generate_step`` →
(``build_cache``, then ``call_with_cache`` and the sampler for every token) →
``preprocessor.generate_postprocess``. Each of them may be replaced in a subclass or on an object,
by a function or a coroutine function (overrides.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError
from gpt2_wgpu.models.call_settings import CallSettings, sampler_of_call, seeds_of_call, settings_of
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.decoding import Generation, run_to_the_end
from gpt2_wgpu.models.generate_arguments import GenerateRequest, SamplerLike, Seeds
from gpt2_wgpu.models.generate_function import GenerateFunction
from gpt2_wgpu.models.generation_details import check_details, details_of, new_step_logprobs
from gpt2_wgpu.models.generative_task import GenerativeTask
from gpt2_wgpu.models.overrides import (
    add_blocking_forms,
    chosen,
    default,
    is_default,
    settled,
)
from gpt2_wgpu.models.packed_ids import (
    cut,
    masked,
    packed,
    prompts_of,
    repeated,
    rows_of,
    shortened,
    without_prompts,
)
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.prompt_lookup import check_prompt_lookup
from gpt2_wgpu.models.returned_sequences import best_beams_of
from gpt2_wgpu.models.row_ends import RowEnds, with_start_token
from gpt2_wgpu.models.sampler_call import generate_by_call
from gpt2_wgpu.models.search import generate_by_search, is_search
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.token_choice import TokenChoice, check_processors, with_rules
from gpt2_wgpu.models.token_ids import check_no_ids, check_rows
from gpt2_wgpu.nn import NO_RULES, KVCache, SamplingState
from gpt2_wgpu.samplers import runs_its_own_loop
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids
from gpt2_wgpu.validation import instance, integer
from gpt2_wgpu.webgpu import sync

G = TypeVar("G", bound=Generation)

default(GPT2CausalLMPreprocessor.generate_preprocess)
default(GPT2CausalLMPreprocessor.generate_postprocess)


class CausalLM(GenerativeTask):
    """Generative task of an autoregressive model."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        add_blocking_forms(cls, ("generate_step", "build_cache"))

    # --- what the model computes ----------------------------------------------------------------

    @abstractmethod
    def call_with_cache(
        self,
        token_ids: Any,
        cache: KVCache,
        cache_update_index: Any,
        *,
        sampling: SamplingState | None = None,
    ) -> tuple[Tensor, Tensor | None, KVCache]:
        """Return the logits of ``token_ids``, which follow the positions in ``cache``."""

    @abstractmethod
    def build_cache(self, token_ids: Any) -> tuple[Tensor, KVCache]:
        """Return a cache filled with ``token_ids``."""

    @abstractmethod
    async def build_cache_async(
        self,
        token_ids: Any,
        *,
        prefill: Prefill | None = None,
        hidden: list[Tensor] | None = None,
    ) -> tuple[Tensor | None, KVCache]:
        """Async counterpart of :meth:`build_cache`."""

    # --- the pipeline ---------------------------------------------------------------------------

    async def _generate(self, request: GenerateRequest) -> Any:
        inputs, preprocessor = request.inputs, self.preprocessor
        if not isinstance(inputs, dict):
            preprocessor = self._require_preprocessor(
                "generate then takes a dict of token_ids and padding_mask, and stop_token_ids as "
                "ids or None"
            )
            limits = request.max_length, request.max_new_tokens
            length, new = self.limits_of_call(*limits, preprocessor.sequence_length)
            request = replace(request, max_length=length, max_new_tokens=new)
        stops = self.resolve_stop_tokens(request.stop_token_ids)
        stop_texts, time_limit = self.ends_of_call(request.stop_texts, request.time_limit)
        control = Control(time_limit, request.cancellation)
        settings = self._settings(request.sampler, request.seed, request.max_new_tokens, control)
        instance("wait", request.wait, bool)
        turn = self.turns.turn(control, request.wait)
        best = best_beams_of(self, settings.sampler, request.num_return_sequences)
        settings = replace(settings, best_beams=best)
        if not isinstance(inputs, dict):
            assert preprocessor is not None
            preprocessor = with_start_token(preprocessor, request.add_start_token)
        check_details(request.return_details, request.top_logprobs, self)
        ends = RowEnds(
            preprocessor, request.max_new_tokens, stop_texts,
            request.callback, request.return_details,
        )  # fmt: skip
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if not isinstance(inputs, dict):
            assert preprocessor is not None
            length = self._length_of(request)
            packing = self._preprocess(preprocessor, inputs, length, request.allowed_special)
            inputs = await settled(packing)
        given = self._repeated(inputs, request, settings)
        try:
            await turn.take()
            top = request.top_logprobs if request.return_details else None
            logprobs = new_step_logprobs(top, self)
            output = await self._generate_packed(given, stops, settings, ends, logprobs)
            result = request, output, given, stops, ends, preprocessor, logprobs
            return await self._result(*result)
        finally:
            turn.give_back()

    async def _result(
        self,
        request: GenerateRequest,
        output: Any,
        given: Any,
        stops: Sequence[int],
        ends: RowEnds,
        preprocessor: GPT2CausalLMPreprocessor | None,
        logprobs: StepLogprobs | None,
    ) -> Any:
        """Return the result of ``generate`` of packed ids ``output``."""
        result = output
        if request.strip_prompt:
            result = without_prompts(output, given, self.backbone.config.vocab_size)
        if isinstance(request.inputs, dict) and not request.return_details:
            return result
        seconds, text = ends.seconds, None
        if preprocessor is not None:
            text = await self._postprocess(preprocessor, result, stops)
            text = ends.cut_text(text, None if request.strip_prompt else given)
        if not request.return_details:
            return text
        steps = logprobs
        return await details_of(self, output, given, stops, ends, text, seconds, request, steps)

    def _length_of(self, request: GenerateRequest) -> int:
        """Return the total length up to which prompts are packed."""
        context = self.backbone.config.n_positions
        return self.total_length(context if request.max_length is None else request.max_length, [])

    def _repeated(self, packed: Any, request: GenerateRequest, settings: CallSettings) -> Any:
        """Return packed prompts once per sequence, those of texts no longer than needed."""
        vocabulary = self.backbone.config.vocab_size
        if request.max_new_tokens is not None and not isinstance(request.inputs, dict):
            packed = shortened(packed, request.max_new_tokens, vocabulary)
        times = request.num_return_sequences // settings.best_beams
        return repeated(packed, times, vocabulary)

    def _settings(
        self,
        sampler: SamplerLike | None,
        seed: Seeds | None,
        max_new_tokens: int | None = None,
        control: Control | None = None,
    ) -> CallSettings:
        """Return the settings of a call; InvalidArgumentError for invalid ones."""
        if max_new_tokens is not None:
            integer("max_new_tokens", max_new_tokens, 1, 2**31 - 1)
        chosen, seeds = sampler_of_call(self.sampler, self.logits_processors, sampler, seed)
        check_prompt_lookup(self.prompt_lookup_num_tokens, chosen, self.logits_processors)
        return CallSettings(self, chosen, max_new_tokens, seeds, control)

    async def _generate_packed(
        self,
        inputs: dict[str, Any],
        stops: Sequence[int],
        settings: CallSettings,
        ends: RowEnds | None = None,
        logprobs: StepLogprobs | None = None,
    ) -> Any:
        """Generate from packed ids by the function of :meth:`make_generate_function`."""
        vocabulary = self.backbone.config.vocab_size
        make, step = chosen(self, "make_generate_function"), chosen(self, "generate_step")
        watch = None if ends is None else ends.watch()
        is_ours = is_default(make) and is_default(step)
        control = settings.control or Control()
        if control.reason is not None and not is_ours:
            return inputs
        by_steps = is_ours and not runs_its_own_loop(settings.sampler)
        settings = replace(settings, logprobs=logprobs if by_steps else None)
        if by_steps:
            settings = replace(settings, watch=watch)
        with settings.applied():
            function = await settled(make())
            generate = function.call_async if isinstance(function, GenerateFunction) else function
            output = await settled(generate(inputs, stop_token_ids=stops))
        if ends is not None and ends.any:
            output = cut(output, inputs, vocabulary, ends.kept)
            if watch is not None and not by_steps:
                output = cut(output, inputs, vocabulary, watch)
        if ends is not None:
            ends.ended_by = ends.ended_by or control.reason
        return output

    def _preprocess(
        self,
        preprocessor: GPT2CausalLMPreprocessor,
        prompts: str | Sequence[str],
        length: int,
        allowed_special: AllowedSpecial | None,
    ) -> Any:
        """Pack prompts to ``length`` and check their ids; the result may be awaitable."""
        extra = {} if allowed_special is None else {"allowed_special": allowed_special}
        preprocess = chosen(preprocessor, "generate_preprocess")
        if is_default(preprocess):
            check_no_ids(prompts)
        try:
            given = preprocess(prompts, sequence_length=length, **extra)
        except ContextLengthError as error:
            if length < self.backbone.config.n_positions:
                raise
            raise ContextLengthError(error.message) from None  # no length can be raised
        if is_default(preprocess):
            rows = rows_of_ids(given["token_ids"])
            check_rows(rows, preprocessor.tokenizer, self.backbone.config.vocab_size)
        return given

    @staticmethod
    async def _postprocess(
        preprocessor: GPT2CausalLMPreprocessor, output: Any, stops: Sequence[int]
    ) -> Any:
        """Decode packed ids."""
        postprocess = chosen(preprocessor, "generate_postprocess")
        if is_default(postprocess):
            hidden = {token for token in stops if not preprocessor.tokenizer.has_id(token)}
            output = masked(output, hidden) if hidden else output  # they have no text to decode
        return await settled(postprocess(output))

    @default
    def generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Generate tokens for packed ids; blocks.

        Args:
            inputs: ``{"token_ids", "padding_mask"}``, both [B, T] or [T]. The mask is True for the
                prompt. Padding before it, as ``transformers`` has it, has no effect on the text;
                new tokens take the places after the prompt.
            stop_token_ids: ids; None for none. Only generated tokens stop a row, so a pad id
                equal to a stop token has no effect (unlike in KerasHub).

        Returns:
            A dict with the same keys and shapes: ids with the generated tokens, and a mask that is
            True up to and including the first new stop token (everywhere without one). With all
            beams of a ``BeamSampler``: ``num_beams`` rows for each prompt, best first, and their
            ``scores``.
        """
        step = CausalLM.generate_step_async(self, inputs, stop_token_ids)
        return sync(step, "generate_step_async(...)")

    @default
    async def generate_step_async(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Async counterpart of :meth:`generate_step`."""
        settings = settings_of(self)
        # Within a call of generate this turn begins at once.
        turn = self.turns.turn(None if settings is None else settings.control)
        try:
            await turn.take()
            return await self._generate_step(inputs, stop_token_ids)
        finally:
            turn.give_back()

    async def _generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None
    ) -> dict[str, Any]:
        ids, mask = rows_of(inputs, self.backbone.config.vocab_size)
        rows, starts = prompts_of(ids, mask)
        if rows:
            limits = [len(row) - start for row, start in zip(ids, starts, strict=True)]
            self.total_length(max(limits), rows)
            settings = settings_of(self)
            control = None if settings is None else settings.control
            if settings is not None and settings.max_new_tokens is not None:
                most = settings.max_new_tokens
                limits = [
                    min(limit, len(row) + most) for limit, row in zip(limits, rows, strict=True)
                ]
            if runs_its_own_loop(self.sampler):
                # The sampler may be assigned.
                options = None
                if is_search(self.sampler):
                    options = self.sampler.checked().options()
                    options = with_rules(options, self.sampler, self.token_rules)
                rules = self.token_rules if options is None else NO_RULES
                check_processors(self.logits_processors, self.sampler, rules)
                stops = stop_token_ids or ()
                candidates = self.candidates(stops)
                if is_search(self.sampler):
                    best = 1 if settings is None else settings.best_beams
                    where = self, self.sampler, inputs, limits, stops, candidates
                    return await generate_by_search(*where, control, best, options)
                return await generate_by_call(
                    self, self.sampler, inputs, stops, candidates, control
                )
            generation: Generation = self.start_generation(rows, limits, stop_token_ids or ())
            watch = None if settings is None else settings.watch
            await run_to_the_end(generation, rows, watch, control)
        return packed(rows, ids, is_one_row(inputs["token_ids"]), starts)

    def start_generation(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        stop_token_ids: Sequence[int] = (),
        new: Callable[..., G] = Generation,  # type: ignore[assignment]
    ) -> G:
        """Return the decoding loop of ``prompts``, each up to a total length of ``limits``.

        ``new``: the class, or another function of its arguments.
        """
        settings, candidates = settings_of(self), self.candidates(stop_token_ids)
        choice = TokenChoice.of(self.sampler, self.logits_processors)
        options = choice.options(self.sampler)
        options = with_rules(options, self.sampler, self.token_rules)
        drafts = check_prompt_lookup(
            self.prompt_lookup_num_tokens, self.sampler, self.logits_processors
        )
        draft_model = self.draft_model_of(self.sampler, self.logits_processors)
        if isinstance(self.sampler, samplers.SpeculativeSampler):
            drafts = self.sampler.num_speculative_tokens
        return new(
            self,
            prompts,
            limits,
            options,
            stop_token_ids,
            candidates,
            seeds_of_call(self, len(prompts)),
            choice=choice,
            check=self._checks_steps,
            prompt_lookup=0 if self._checks_steps else drafts,  # checked: step by step
            draft_model=draft_model,
            control=None if settings is None else settings.control,
            logprobs=None if settings is None else settings.logprobs,
        )
