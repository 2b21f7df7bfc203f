"""``StreamedCausalLM``: ``CausalLM`` with text that is generated piece by piece."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.call_settings import CallSettings
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.generate_arguments import SamplerLike, StopTokens
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.models.packed_ids import packed, prompts_of, rows_of, without_prompts
from gpt2_wgpu.models.row_ends import RowEnds, with_start_token
from gpt2_wgpu.models.text_stream import TextStream, TokenSource, WholeText
from gpt2_wgpu.samplers import runs_its_own_loop
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, TokenReader
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids


class StreamedCausalLM(CausalLM):
    """``CausalLM`` with ``stream``."""

    def stream(
        self,
        inputs: str | Sequence[int] | dict[str, Any],
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        *,
        max_new_tokens: int | None = None,
        stop_texts: Sequence[str] = (),
        sampler: SamplerLike | None = None,
        seed: int | None = None,
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> TextStream:
        """Generate text piece by piece, without the prompt.

        A replaced ``generate_preprocess``, ``build_cache`` or ``call_with_cache`` is called here,
        too. If ``make_generate_function``, ``generate_step``, ``generate_postprocess`` or the
        sampler's ``__call__`` is replaced, the text arrives in one piece when it is complete.

        Args:
            inputs: one prompt: a str; its ids, to which no start token is added; or a dict with
                one row of packed ids, as in :meth:`generate`.
            max_length: limit of all tokens, including prompt and start token; default, and
                maximum: the context. For a dict the array's length is used.
            max_new_tokens: limit of the new tokens, besides ``max_length``.
            stop_token_ids: see :meth:`generate`, as for all other arguments.
            stop_texts: see there.
            sampler: see there.
            seed: see there.
            add_start_token: see there.
            allowed_special: see there.

        Returns:
            A stream, for ``for`` and ``async for``; after the end its ``details()`` are those of
            ``generate(..., return_details=True)``.

        Raises:
            ContextLengthError: the prompt fills the context.
            InvalidArgumentError: a token has no row in the model, or an argument is invalid.
        """
        begun = time.perf_counter()
        preprocessor = self._require_preprocessor("stream gives text; for ids use generate")
        context = self.backbone.config.n_positions
        if not isinstance(inputs, Mapping):
            limits = max_length, max_new_tokens
            max_length, max_new_tokens = self.limits_of_call(*limits, context)
        settings = self._settings(sampler, seed, max_new_tokens)
        preprocessor = with_start_token(preprocessor, add_start_token)
        stops = self.resolve_stop_tokens(stop_token_ids)
        reader = TokenReader(preprocessor.tokenizer, stop_texts)
        ends = RowEnds(preprocessor, None, stop_texts)
        length = context if max_length is None else self.total_length(max_length, [])
        given: Any
        if isinstance(inputs, str):
            given = self._preprocess(preprocessor, inputs, length, allowed_special)
        else:
            given, length = self._packed_prompt(inputs, length)

        def open_source(given: Any) -> TokenSource:
            return self._token_source(preprocessor, given, length, stops, settings, ends)

        return TextStream(given, open_source, reader, begun, self)

    stream_async = stream

    def _packed_prompt(self, inputs: Any, length: int) -> tuple[dict[str, Any], int]:
        """Return the ids of a prompt, packed in one row, and the limit of its total length."""
        vocabulary = self.backbone.config.vocab_size
        one = "stream takes one prompt: a str, a list of ids, or a dict with one row of ids"
        if isinstance(inputs, Mapping):
            ids, mask = rows_of(inputs, vocabulary)
            if len(ids) != 1:
                raise InvalidArgumentError(f"{one}, not {len(ids)} rows")
            (prompt,), (start,) = prompts_of(ids, mask)
            return dict(inputs), self.total_length(len(ids[0]) - start, [prompt])
        if isinstance(inputs, bytes | set) or not hasattr(inputs, "__len__"):
            raise InvalidArgumentError(f"{one}, not {shown(inputs)}")
        texts = any(isinstance(each, str) for each in inputs)
        if not len(inputs) or texts or not is_one_row(inputs):
            raise InvalidArgumentError(f"{one}, not {shown(inputs)}")
        (prompt,) = rows_of_ids(inputs, vocabulary)
        self.total_length(length, [prompt])
        return packed([prompt], [prompt + [0] * (length - len(prompt))], True), length

    def _token_source(
        self,
        preprocessor: GPT2CausalLMPreprocessor,
        given: dict[str, Any],
        length: int,
        stops: Sequence[int],
        settings: CallSettings,
        ends: RowEnds,
    ) -> TokenSource:
        """Return the source of a stream: the decoding loop, or the text of replaced methods."""
        vocabulary = self.backbone.config.vocab_size
        ids, mask = rows_of(given, vocabulary)
        (prompt,), (start,) = prompts_of(ids, mask)
        if len(prompt) >= length:
            full = length == self.backbone.config.n_positions
            fits = "fill the model's context" if full else f"reach max_length {length}"
            raise ContextLengthError(
                f"the prompt's {len(prompt)} tokens (start token included) {fits}, so nothing can "
                f"follow: at most {length - 1} may"
            )
        limit = length
        if settings.max_new_tokens is not None:
            limit = min(length, len(prompt) + settings.max_new_tokens)
        of_the_whole = [
            chosen(self, "make_generate_function"),
            chosen(self, "generate_step"),
            chosen(preprocessor, "generate_postprocess"),
        ]
        if all(map(is_default, of_the_whole)) and not runs_its_own_loop(settings.sampler):
            with settings.applied():
                return self.start_generation([prompt], [limit], stops)
        room = [row[start : start + limit] for row in ids]
        inputs = packed([prompt], room, is_one_row(given["token_ids"]))

        async def whole() -> tuple[list[int], str]:
            output = await self._generate_packed(inputs, stops, settings, ends)
            output = without_prompts(output, inputs, vocabulary)
            text = await self._postprocess(preprocessor, output, stops)
            (new, *_), (real, *_) = rows_of(output, vocabulary)  # the best of several beams
            text = text if isinstance(text, str) else text[0]
            return [token for token, is_new in zip(new, real, strict=True) if is_new], text

        return WholeText(len(prompt), stops, whole)
