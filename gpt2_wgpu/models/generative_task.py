"""``GenerativeTask``: a model with a preprocessor, a sampler and ``generate``."""

from __future__ import annotations

import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

from gpt2_wgpu import samplers
from gpt2_wgpu.copying import CopiedByAttributes
from gpt2_wgpu.errors import ContextLengthError, DisposedTensorError, InvalidArgumentError
from gpt2_wgpu.models.call_settings import settings_of
from gpt2_wgpu.models.generate_arguments import SamplerLike, StopTokens
from gpt2_wgpu.models.generate_function import GenerateFunction
from gpt2_wgpu.models.generate_methods import GenerateMethods
from gpt2_wgpu.models.generation_config import GenerationSettings
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.kept_runs import KeptRuns
from gpt2_wgpu.models.overrides import default
from gpt2_wgpu.models.prompt_lookup import check_prompt_lookup
from gpt2_wgpu.models.token_choice import LogitsProcessor, check_processors
from gpt2_wgpu.models.token_ids import (
    Candidates,
    check_rows,
    check_vocabularies,
    end_token_ids,
)
from gpt2_wgpu.models.turns import Turns
from gpt2_wgpu.nn import NO_RULES
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import instance, integer
from gpt2_wgpu.webgpu import Device


class GenerativeTask(GenerateMethods, CopiedByAttributes):
    """A backbone, an optional preprocessor and a sampler, with ``generate``.

    Subclasses implement :meth:`generate_step`.
    """

    def __init__(
        self, backbone: GPT2Backbone, preprocessor: GPT2CausalLMPreprocessor | None = None
    ) -> None:
        instance("backbone", backbone, GPT2Backbone)
        if preprocessor is not None:
            instance("preprocessor", preprocessor, GPT2CausalLMPreprocessor)
            check_vocabularies(preprocessor.tokenizer, backbone.config.vocab_size)
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.token_rules = NO_RULES  # of generation_config.json; those of the sampler win
        # Sampling parameters of generation_config.json (greedy: temperature 0) or those of a
        # search: defaults of the command and the page, and arguments of `samplers.of_settings`;
        # `compile` has its own.
        self.generation_defaults: dict[str, Any] = {}
        # Arguments of `generate` of that file, for a call without its own: max_new_tokens or
        # max_length, stop_texts, time_limit.
        self.generation_limits: dict[str, Any] = {}
        self.generation_settings = GenerationSettings()  # of the file, for `save_to_preset`
        self.kept_runs = KeptRuns()
        self.turns = Turns()
        self.compile()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        if isinstance(self._function, weakref.ref):
            copied._function = None  # the default one is bound to the original
        copied.kept_runs, copied.turns = KeptRuns(), Turns()
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.kept_runs)], memo[id(self.turns)] = KeptRuns(), Turns()
        copied = super().__deepcopy__(memo)
        if isinstance(self._function, weakref.ref):
            copied._function = None  # as in __copy__
        return copied

    _instead_of_pickling = "load it in the other process (from_preset)"

    @property
    def device(self) -> Device:
        """Device of the backbone."""
        return self.backbone.device

    def compile(
        self,
        sampler: SamplerLike = "top_k",
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        optimizer: object = None,
        loss: object = None,
        weighted_metrics: object = None,
        prompt_lookup_num_tokens: int = 0,
    ) -> None:
        """Set the sampler and the logits processors.

        Args:
            sampler: "greedy", "random", "top_k", "top_p", "min_p", "typical", "beam",
                "contrastive" or an object. A subclass of ``samplers.Sampler`` that replaces its
                ``get_next_token`` runs in Python, token by token.
            logits_processors: functions ``(token_ids, logits) -> logits``, called in this order
                at every step: the ids of each row so far, as lists, and the model's logits [B, V]
                on the GPU, before penalties and temperature. Minus infinity excludes a token. A
                function that leaves ``token_ids`` alone and calls only functions of
                ``gpt2_wgpu.ops`` is recorded with the step; any other runs token by token. It may
                be a coroutine function.
            optimizer: KerasHub's argument for training, which does not exist here: accepted
                with a ``UserWarning``, without effect.
            loss: likewise.
            weighted_metrics: likewise.
            prompt_lookup_num_tokens: length of the drafts that prompt lookup takes from earlier
                text, up to 7 (transformers' name); 0: none. The text is the same; it is computed
                in fewer steps where it repeats prompt or text (docs/search.md).

        Raises:
            InvalidArgumentError: an unknown sampler, one that defines no choice, or a processor
                or prompt lookup that cannot be used like this or with this sampler.
        """
        if not (optimizer is loss is weighted_metrics is None):
            warnings.warn(
                "optimizer, loss and weighted_metrics have no effect: this library does not train",
                stacklevel=2,
            )
        chosen = samplers.check_usable(samplers.get(sampler))
        processors = check_processors(logits_processors, chosen)
        self.prompt_lookup_num_tokens = check_prompt_lookup(
            prompt_lookup_num_tokens, chosen, processors
        )
        self.draft_model_of(chosen, processors)
        self.logits_processors = processors
        self.sampler = chosen
        self._function: Any = None  # the default one as a weak reference: it refers to the model
        self._checks_steps = False
        self.kept_runs.close()
        self.kept_runs = KeptRuns()

    @property
    def sampler(self) -> samplers.Sampler:
        """Sampler of ``compile``; during a call with ``sampler`` or ``seed``, that of the call."""
        settings = settings_of(self)
        return self._sampler if settings is None else settings.sampler

    @sampler.setter
    def sampler(self, sampler: samplers.Sampler) -> None:
        self._sampler = sampler

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

    # --- checks of arguments ---------------------------------------------------------------------

    def draft_model_of(
        self, sampler: samplers.Sampler, processors: Sequence[LogitsProcessor]
    ) -> GenerativeTask | None:
        """Return the draft model of a ``SpeculativeSampler``; None for any other sampler.

        Raises:
            InvalidArgumentError: it has none, or one that does not fit this model.
        """
        if not isinstance(sampler, samplers.SpeculativeSampler):
            return None
        if processors:
            raise InvalidArgumentError(
                "SpeculativeSampler cannot be combined with logits processors, which need each "
                "token before the next"
            )
        draft = sampler.draft_model
        if not isinstance(draft, GenerativeTask):
            raise InvalidArgumentError(
                f"SpeculativeSampler needs draft_model, a GPT2CausalLM, not {shown(draft)}"
            )
        if draft.backbone.disposed:
            raise DisposedTensorError("draft_model was disposed: load it again")
        ours, theirs = self.backbone.config, draft.backbone.config
        if theirs.vocab_size != ours.vocab_size or theirs.n_positions < ours.n_positions:
            raise InvalidArgumentError(
                f"draft_model has {theirs.vocab_size} tokens and a context of "
                f"{theirs.n_positions}: it needs the {ours.vocab_size} tokens of the model, and "
                f"its context of {ours.n_positions}"
            )
        if draft.device is not self.device and draft.device.is_open and self.device.is_open:
            raise InvalidArgumentError(
                "draft_model is on another device: load it with device=lm.device"
            )
        return draft

    def limits_of_call(
        self, max_length: int | None, max_new_tokens: int | None, longest: int
    ) -> tuple[int | None, int | None]:
        """Return ``max_length`` and ``max_new_tokens`` of a call, if it has neither the model's.

        ``longest``: limit of ``max_length`` of generation_config.json.
        """
        if max_length is not None or max_new_tokens is not None:
            return max_length, max_new_tokens
        limits = self.generation_limits
        return min(longest, limits.get("max_length", longest)), limits.get("max_new_tokens")

    def ends_of_call(
        self, stop_texts: Sequence[str] | None, time_limit: float | None
    ) -> tuple[Sequence[str], float | None]:
        """Return ``stop_texts`` and ``time_limit`` of a call; None: the checkpoint's, if any."""
        limits = self.generation_limits
        if stop_texts is None:  # texts need a tokenizer
            stop_texts = () if self.preprocessor is None else limits.get("stop_texts", ())
        return stop_texts, limits.get("time_limit") if time_limit is None else time_limit

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
