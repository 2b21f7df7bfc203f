"""``generate`` and ``generate_async`` with their arguments and types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.control import Cancellation
from gpt2_wgpu.models.generate_arguments import (
    Callback,
    GenerateOptions,
    GenerateRequest,
    SamplerLike,
    Seeds,
    StopTokens,
)
from gpt2_wgpu.models.generation_details import GenerationDetails
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.webgpu import sync


class GenerateMethods(ABC):
    """``generate`` in terms of ``_generate``."""

    @overload
    def generate(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: Literal[1] = ...,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails: ...

    @overload
    def generate(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails | list[GenerationDetails]: ...

    @overload
    def generate(
        self,
        inputs: list[str] | tuple[str, ...],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[GenerationDetails]: ...

    @overload
    def generate(
        self,
        inputs: dict[str, Any],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails | list[GenerationDetails]: ...

    @overload
    def generate(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: Literal[1] = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> str: ...

    @overload
    def generate(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> str | list[str]: ...

    @overload
    def generate(
        self,
        inputs: list[str] | tuple[str, ...],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        inputs: dict[str, Any],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> dict[str, Any]: ...

    @named("lm.generate")
    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: Seeds | None = None,
        num_return_sequences: int = 1,
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
        return_details: bool = False,
        top_logprobs: int | None = 0,
        callback: Callback | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> Any:
        """Generate text; blocks (async counterpart: ``generate_async``).

        Args:
            inputs: a str, a list of str, or a dict of packed ids.
            max_length: limit of all tokens, including prompt and start token; default: the
                preprocessor's ``sequence_length``, or with ``max_new_tokens`` the context. For a
                dict the arrays' length is used. Without both limits those of the checkpoint apply,
                ``lm.generation_limits``.
            stop_token_ids: "auto" (the end tokens of tokenizer and configuration), ids, or None or
                [] for none.
            strip_prompt: whether to omit the prompt.
            max_new_tokens: limit of the new tokens of each row, besides ``max_length``.
            stop_texts: texts before which a row's text ends. One that is a special token ends it
                when this token is generated. Ids end with the token that completes the text.
                None: those of the checkpoint, in ``lm.generation_limits``; () switches them off.
            sampler: as in ``compile``, for this call; default: the compiled one.
            seed: seed of this call's random numbers, as of a new sampler with this seed; or one for
                each row of the result, which then has the text of the prompt alone with that seed.
            num_return_sequences: number of texts for each prompt, one after the other in the
                result; above 1 a str gives a list. Of beam search the best beams, at most
                ``num_beams``; greedy and contrastive search have one text only.
            add_start_token: default: the preprocessor's.
            allowed_special: special tokens to recognise in prompts, or "all"; default: the
                preprocessor's, none.
            return_details: whether to return ``GenerationDetails`` for each row: text, new ids,
                their log-probabilities, finish reason, times. Decode steps compute the
                log-probabilities; beam and contrastive search, drafts and replaced methods take
                another pass at the end.
            top_logprobs: number of the most likely ids of each token in the details, at most 20; 0:
                no others than the token. None: no log-probabilities either, so that none are
                computed (``logprobs``, ``ranks`` and ``entropies`` are empty, too).
            callback: called as ``callback(row, token_id, text)`` for each new token, with the text
                that it completes. False ends the call with what there is; an exception ends it,
                too, and is raised. Where a whole step is replaced, it is called at the end.
            time_limit: seconds after which the call ends with what there is (finish reason
                "time_limit"), counted from the call, with the time in the queue. None: that of the
                checkpoint, in ``lm.generation_limits``, if it has one.
            cancellation: ends the call likewise ("aborted") when its ``cancel()`` is called, by
                any thread or task. A cancelled asyncio task ends its call by the exception.
            wait: while the model generates for another thread or task, calls wait in a queue and
                then run one after the other; False: ``BusyError`` instead. Calls within a
                generation (in its callback, or in the loop over a stream) never wait.

        Returns:
            A str, a list of str, or a dict of packed ids, according to ``inputs``. With details
            one object for a str or one row of ids, else a list.

        Raises:
            ContextLengthError: a prompt does not fit (KerasHub truncates it silently), or
                ``max_length`` exceeds the context.
            InvalidArgumentError: other invalid input.
            BusyError: see ``wait``; or a blocking call for which a task of its own thread would
                have to go on.
        """
        generate: Any = self.generate_async  # its overloads are too many for mypy
        generating = generate(
            inputs,
            max_length,
            stop_token_ids,
            strip_prompt,
            max_new_tokens=max_new_tokens,
            stop_texts=stop_texts,
            sampler=sampler,
            seed=seed,
            num_return_sequences=num_return_sequences,
            add_start_token=add_start_token,
            allowed_special=allowed_special,
            return_details=return_details,
            top_logprobs=top_logprobs,
            callback=callback,
            time_limit=time_limit,
            cancellation=cancellation,
            wait=wait,
        )
        return sync(generating, "generate_async(...)")

    @overload
    async def generate_async(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: Literal[1] = ...,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails: ...

    @overload
    async def generate_async(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails | list[GenerationDetails]: ...

    @overload
    async def generate_async(
        self,
        inputs: list[str] | tuple[str, ...],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[GenerationDetails]: ...

    @overload
    async def generate_async(
        self,
        inputs: dict[str, Any],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        return_details: Literal[True],
        num_return_sequences: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> GenerationDetails | list[GenerationDetails]: ...

    @overload
    async def generate_async(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: Literal[1] = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> str: ...

    @overload
    async def generate_async(
        self,
        inputs: str,
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> str | list[str]: ...

    @overload
    async def generate_async(
        self,
        inputs: list[str] | tuple[str, ...],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[str]: ...

    @overload
    async def generate_async(
        self,
        inputs: dict[str, Any],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        strip_prompt: bool = ...,
        *,
        num_return_sequences: int = ...,
        return_details: Literal[False] = ...,
        **options: Unpack[GenerateOptions],
    ) -> dict[str, Any]: ...

    @named("lm.generate")
    async def generate_async(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: Seeds | None = None,
        num_return_sequences: int = 1,
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
        return_details: bool = False,
        top_logprobs: int | None = 0,
        callback: Callback | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> Any:
        """Async counterpart of :meth:`generate`."""
        request = GenerateRequest(
            inputs,
            max_length,
            stop_token_ids,
            strip_prompt,
            max_new_tokens=max_new_tokens,
            stop_texts=stop_texts,
            sampler=sampler,
            seed=seed,
            num_return_sequences=num_return_sequences,
            add_start_token=add_start_token,
            allowed_special=allowed_special,
            return_details=return_details,
            top_logprobs=top_logprobs,
            callback=callback,
            time_limit=time_limit,
            cancellation=cancellation,
            wait=wait,
        )
        return await self._generate(request)

    @abstractmethod
    async def _generate(self, request: GenerateRequest) -> Any:
        """Generate for ``request``; see :meth:`generate`."""
