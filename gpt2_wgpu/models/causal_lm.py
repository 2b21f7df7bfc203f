"""``CausalLM``: a task that generates token after token, by KerasHub's pipeline.

``preprocessor.generate_preprocess`` → ``make_generate_function`` → ``generate_step`` →
(``build_cache``, then ``call_with_cache`` and the sampler for every token) →
``preprocessor.generate_postprocess``. Each of them may be replaced in a subclass or on an object,
by a function or a coroutine function (overrides.py).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.generate_function import GenerateFunction
from gpt2_wgpu.models.generative_task import GenerativeTask, StopTokens
from gpt2_wgpu.models.overrides import (
    add_blocking_forms,
    chosen,
    default,
    is_default,
    settled,
)
from gpt2_wgpu.models.packed_ids import masked, packed, prompts_of, rows_of, without_prompts
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.sampler_call import generate_by_call
from gpt2_wgpu.models.search import generate_by_search, is_search
from gpt2_wgpu.models.text_stream import TextStream, TokenSource, WholeText
from gpt2_wgpu.models.token_choice import TokenChoice, check_processors
from gpt2_wgpu.models.token_ids import (
    Candidates,
    check_rows,
    end_token_ids,
)
from gpt2_wgpu.nn import KVCache, SamplingState
from gpt2_wgpu.samplers import runs_its_own_loop
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, StopTextMatcher
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import sync

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
        self, token_ids: Any, *, prefill: Prefill | None = None
    ) -> tuple[Tensor | None, KVCache]:
        """Async counterpart of :meth:`build_cache`."""

    # --- the pipeline ---------------------------------------------------------------------------

    async def generate_async(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        allowed_special: AllowedSpecial | None = None,
    ) -> Any:
        """Async counterpart of :meth:`generate`."""
        stops = self.resolve_stop_tokens(stop_token_ids)
        if isinstance(inputs, dict):
            return await self._generate_packed(inputs, stops, strip_prompt)
        preprocessor = self._require_preprocessor(
            "generate then takes a dict of token_ids and padding_mask"
        )
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if max_length is None:
            max_length = preprocessor.sequence_length
        length = self.total_length(max_length, [])
        given = await settled(self._preprocess(preprocessor, inputs, length, allowed_special))
        output = await self._generate_packed(given, stops, strip_prompt)
        return await self._postprocess(preprocessor, output, stops)

    async def _generate_packed(
        self, inputs: dict[str, Any], stops: Sequence[int], strip_prompt: bool
    ) -> Any:
        """Generate from packed ids by the function of :meth:`make_generate_function`."""
        function = await settled(chosen(self, "make_generate_function")())
        generate = function.call_async if isinstance(function, GenerateFunction) else function
        output = await settled(generate(inputs, stop_token_ids=stops))
        if not strip_prompt:
            return output
        return without_prompts(output, inputs, self.backbone.config.vocab_size)

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
        given = preprocess(prompts, sequence_length=length, **extra)
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
        ids, mask = rows_of(inputs, self.backbone.config.vocab_size)
        rows, starts = prompts_of(ids, mask)
        if rows:
            limits = [len(row) - start for row, start in zip(ids, starts, strict=True)]
            self.total_length(max(limits), rows)
            if runs_its_own_loop(self.sampler):
                check_processors(self.logits_processors, self.sampler)  # it may be assigned
                stops = stop_token_ids or ()
                candidates = self.candidates(stops)
                if is_search(self.sampler):
                    return await generate_by_search(self, self.sampler, inputs, stops, candidates)
                return await generate_by_call(self, self.sampler, inputs, stops, candidates)
            generation = self.start_generation(rows, limits, stop_token_ids or ())
            try:
                while not generation.done:
                    for row, new in zip(rows, await generation.advance(), strict=True):
                        row.extend(new)
            finally:
                generation.close()
        return packed(rows, ids, is_one_row(inputs["token_ids"]), starts)

    def start_generation(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        stop_token_ids: Sequence[int] = (),
    ) -> Generation:
        """Return the decoding loop of ``prompts``, each up to a total length of ``limits``."""
        candidates = self.candidates(stop_token_ids)
        choice = TokenChoice.of(self.sampler, self.logits_processors)
        options = choice.options(self.sampler)
        return Generation(
            self,
            prompts,
            limits,
            options,
            stop_token_ids,
            candidates,
            choice=choice,
            check=self._checks_steps,
        )

    # --- streaming ------------------------------------------------------------------------------

    def stream(
        self,
        prompt: str,
        max_new_tokens: int | None = None,
        *,
        stop_token_ids: StopTokens = "auto",
        stop_texts: Sequence[str] = (),
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> TextStream:
        """Generate text piece by piece, without the prompt.

        A replaced ``generate_preprocess``, ``build_cache`` or ``call_with_cache`` is called here,
        too. If ``make_generate_function``, ``generate_step``, ``generate_postprocess`` or the
        sampler's ``__call__`` is replaced, the text arrives in one piece when it is complete.

        Args:
            prompt: one prompt.
            max_new_tokens: limit of new tokens; default, and maximum: the rest of the context. At
                the limit the finish reason in ``stream.stats`` is "length".
            stop_token_ids: "auto" (the end tokens of tokenizer and configuration), ids, or None.
            stop_texts: texts before which the output ends. One that is a special token ends it
                when this token is generated.
            add_start_token: default: the preprocessor's.
            allowed_special: special tokens to recognise in the prompt, or "all"; default: the
                preprocessor's.

        Returns:
            A stream, for ``for`` and ``async for``.

        Raises:
            ContextLengthError: the prompt fills the context.
            InvalidArgumentError: a token has no row in the model, or an argument is invalid.
        """
        begun = time.perf_counter()
        preprocessor = self._require_preprocessor("stream works on text; for ids use generate")
        if not isinstance(prompt, str):
            raise InvalidArgumentError(f"stream takes one prompt, a str, not {shown(prompt)}")
        if max_new_tokens is not None:
            integer("max_new_tokens", max_new_tokens, 1, 2**31 - 1)
        if add_start_token is not None and add_start_token != preprocessor.add_start_token:
            preprocessor = copy(preprocessor)
            preprocessor.add_start_token = add_start_token
        stops = self.resolve_stop_tokens(stop_token_ids)
        matcher = StopTextMatcher(stop_texts)
        context = self.backbone.config.n_positions
        given = self._preprocess(preprocessor, prompt, context, allowed_special)

        def open_source(given: Any) -> TokenSource:
            return self._token_source(preprocessor, given, max_new_tokens, stops)

        return TextStream(given, open_source, preprocessor.tokenizer, matcher, begun)

    stream_async = stream

    def _token_source(
        self,
        preprocessor: GPT2CausalLMPreprocessor,
        given: dict[str, Any],
        max_new_tokens: int | None,
        stops: Sequence[int],
    ) -> TokenSource:
        """Return the source of a stream: the decoding loop, or the text of replaced methods."""
        vocabulary, context = self.backbone.config.vocab_size, self.backbone.config.n_positions
        ids, mask = rows_of(given, vocabulary)
        (prompt,), (start,) = prompts_of(ids, mask)
        if len(prompt) == context:
            raise ContextLengthError(
                f"the prompt's {len(prompt)} tokens (start token included) fill the model's "
                f"context, so nothing can follow: at most {context - 1} may"
            )
        limit = context
        if max_new_tokens is not None:
            limit = min(context, len(prompt) + max_new_tokens)
        of_the_whole = [
            chosen(self, "make_generate_function"),
            chosen(self, "generate_step"),
            chosen(preprocessor, "generate_postprocess"),
        ]
        if all(map(is_default, of_the_whole)) and not runs_its_own_loop(self.sampler):
            return self.start_generation([prompt], [limit], stops)
        room = [row[start : start + limit] for row in ids]
        inputs = packed([prompt], room, is_one_row(given["token_ids"]))

        async def whole() -> tuple[list[int], str]:
            output = await self._generate_packed(inputs, stops, strip_prompt=True)
            text = await self._postprocess(preprocessor, output, stops)
            (new, *_), (real, *_) = rows_of(output, vocabulary)  # the best of several beams
            text = text if isinstance(text, str) else text[0]
            return [token for token, is_new in zip(new, real, strict=True) if is_new], text

        return WholeText(len(prompt), stops, whole)

    def total_length(self, max_length: int, rows: Sequence[Sequence[int]]) -> int:
        """Return ``max_length``, validated against the context and the longest prompt."""
        context = self.backbone.config.n_positions
        max_length = integer("max_length", max_length, 1, 2**31 - 1)
        if max_length > context:
            raise ContextLengthError(
                f"max_length {max_length} exceeds the model's context of {context} tokens"
            )
        for index, row in enumerate(rows):
            if len(row) > max_length:
                which = f"prompt {index}" if len(rows) > 1 else "the prompt"
                remedy = " or raise max_length" if len(row) <= context else ""
                raise ContextLengthError(
                    f"{which} has {len(row)} tokens (start token included), but only "
                    f"{max_length} fit: shorten it{remedy}"
                )
        return max_length

    def resolve_stop_tokens(self, stop_token_ids: StopTokens) -> list[int]:
        """Return the ids of the stop tokens; "auto": those of tokenizer and configuration.

        Raises:
            InvalidArgumentError: "auto" without a preprocessor, or invalid ids.
        """
        if stop_token_ids is None:
            return []
        if isinstance(stop_token_ids, str):
            if stop_token_ids != "auto":
                raise InvalidArgumentError(
                    f"stop_token_ids must be 'auto', ids or None, not {shown(stop_token_ids)}"
                )
            preprocessor = self._require_preprocessor(
                'stop_token_ids="auto" needs its tokenizer; pass ids, or None for none'
            )
            return end_token_ids(preprocessor.tokenizer, self.backbone.config)
        rows = rows_of_ids(stop_token_ids, self.backbone.config.vocab_size, "stop_token_ids")
        if len(rows) != 1:
            raise InvalidArgumentError(f"stop_token_ids must be one list of ids, not {len(rows)}")
        return rows[0]

    def candidates(self, stop_token_ids: Sequence[int]) -> Candidates | None:
        """Return the ids that may be sampled; None for all, without a preprocessor."""
        if self.preprocessor is None:
            return None
        rows = self.backbone.config.vocab_size
        return Candidates.of(self.preprocessor.tokenizer, rows, stop_token_ids)

    def encode_prompts(
        self,
        prompts: Sequence[str],
        preprocessor: GPT2CausalLMPreprocessor,
        allowed_special: AllowedSpecial | None = None,
    ) -> list[list[int]]:
        """Encode prompts and check that all ids have a row in the model.

        Raises:
            InvalidArgumentError: a token has no row, or as in ``preprocessor.encode_prompts``.
            ContextLengthError: as in ``preprocessor.encode_prompts``.
        """
        rows = preprocessor.encode_prompts(prompts, allowed_special=allowed_special)
        check_rows(rows, preprocessor.tokenizer, self.backbone.config.vocab_size)
        return rows

    def _require_preprocessor(self, why: str) -> GPT2CausalLMPreprocessor:
        if self.preprocessor is None:
            raise InvalidArgumentError(f"this model has no preprocessor: {why}")
        return self.preprocessor
