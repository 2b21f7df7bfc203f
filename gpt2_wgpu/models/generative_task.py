"""``GenerativeTask``: a model with a preprocessor, a sampler and ``generate``."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

from gpt2_wgpu import samplers
from gpt2_wgpu.copying import CopiedByAttributes
from gpt2_wgpu.models.generate_function import GenerateFunction
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.kept_runs import KeptRuns
from gpt2_wgpu.models.overrides import default
from gpt2_wgpu.models.token_choice import LogitsProcessor, check_processors
from gpt2_wgpu.models.token_ids import (
    check_vocabularies,
)
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.webgpu import Device, sync

StopTokens = Sequence[int] | str | None


class GenerativeTask(CopiedByAttributes, ABC):
    """A backbone, an optional preprocessor and a sampler, with ``generate``.

    Subclasses implement :meth:`generate_step`.
    """

    def __init__(
        self, backbone: GPT2Backbone, preprocessor: GPT2CausalLMPreprocessor | None = None
    ) -> None:
        if preprocessor is not None:
            check_vocabularies(preprocessor.tokenizer, backbone.config.vocab_size)
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.kept_runs = KeptRuns()
        self.compile()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        if isinstance(self._function, weakref.ref):
            copied._function = None  # the default one is bound to the original
        copied.kept_runs = KeptRuns()
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if isinstance(self._function, weakref.ref):
            memo[id(self._function)] = None  # as in __copy__
        memo[id(self.kept_runs)] = KeptRuns()
        return super().__deepcopy__(memo)

    _instead_of_pickling = "load it in the other process (from_preset)"

    @property
    def device(self) -> Device:
        """Device of the backbone."""
        return self.backbone.device

    def compile(
        self,
        sampler: str | dict[str, Any] | samplers.Sampler = "top_k",
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        """Set the sampler and the logits processors.

        Args:
            sampler: "greedy", "random", "top_k", "top_p", "beam" or an object. A subclass of
                ``samplers.Sampler`` that replaces its ``get_next_token`` runs in Python, token by
                token.
            logits_processors: functions ``(token_ids, logits) -> logits``, called in this order
                at every step: the ids of each row so far, as lists, and the model's logits [B, V]
                on the GPU, before penalties and temperature. Minus infinity excludes a token. A
                function that leaves ``token_ids`` alone and calls only functions of
                ``gpt2_wgpu.ops`` is recorded with the step; any other runs token by token. It may
                be a coroutine function.

        Raises:
            InvalidArgumentError: an unknown sampler, one that defines no choice, or a processor
                that cannot be called like this or beside this sampler.
        """
        chosen = samplers.check_usable(samplers.get(sampler))
        self.logits_processors = check_processors(logits_processors, chosen)
        self.sampler = chosen
        self._function: Any = None  # the default one as a weak reference: it refers to the model
        self._checks_steps = False
        self.kept_runs.close()
        self.kept_runs = KeptRuns()

    @property
    def generate_function(self) -> Callable[..., Any] | None:
        """The function of :meth:`make_generate_function`; None after ``compile``."""
        function = self._function
        if isinstance(function, weakref.ref):
            function = function() or self._new_function()
        result: Callable[..., Any] | None = function
        return result

    @generate_function.setter
    def generate_function(self, function: Callable[..., Any] | None) -> None:
        self._function = function

    def _new_function(self) -> GenerateFunction:
        function = GenerateFunction(self)
        self._function = weakref.ref(function)
        return function

    @abstractmethod
    def generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Generate from packed ids; see the subclass."""

    @default
    def make_generate_function(self, check: bool | None = None) -> Callable[..., Any]:
        """Return the function of packed ids that ``generate`` runs, kept until ``compile``.

        It calls :meth:`generate_step`.

        Args:
            check: whether to compare some recorded steps with the same step run eagerly: a
                difference raises ``DeviceError`` and names the dispatch. Slow; for authors of
                kernels, samplers and replaced methods. None: unchanged, at first False.

        Returns:
            A function ``(inputs, stop_token_ids) -> outputs``.
        """
        if check is not None:
            self._checks_steps = check
        return self.generate_function or self._new_function()

    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        allowed_special: AllowedSpecial | None = None,
    ) -> Any:
        """Generate text; blocks (async counterpart: ``generate_async``).

        Args:
            inputs: a str, a list of str, or a dict of packed ids.
            max_length: limit of all tokens, including prompt and start token; default: the
                preprocessor's ``sequence_length``. For a dict the arrays' length is used.
            stop_token_ids: "auto" (the end tokens of tokenizer and configuration), ids, or None or
                [] for none.
            strip_prompt: whether to omit the prompt.
            allowed_special: special tokens to recognise in prompts, or "all"; default: the
                preprocessor's, none.

        Returns:
            A str, a list of str, or a dict of packed ids, according to ``inputs``.

        Raises:
            ContextLengthError: a prompt does not fit (KerasHub truncates it silently), or
                ``max_length`` exceeds the context.
            InvalidArgumentError: other invalid input.
        """
        return sync(
            self.generate_async(
                inputs, max_length, stop_token_ids, strip_prompt, allowed_special=allowed_special
            ),
            "generate_async(...)",
        )

    @abstractmethod
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
