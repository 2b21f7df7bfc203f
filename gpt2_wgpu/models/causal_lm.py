"""KerasHub's class tree of generating models: ``GenerativeTask`` → ``CausalLM`` → the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from gpt2_wgpu import samplers
from gpt2_wgpu.copying import CopiedByAttributes
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.token_ids import Candidates, check_rows, check_vocabularies, end_token_ids
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids, rows_of_mask
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, sync

GenerateFunction = Callable[[dict[str, Any], "Sequence[int] | None"], dict[str, Any]]
_PACKED: dict[str, Literal["int32", "bool"]] = {"token_ids": "int32", "padding_mask": "bool"}
StopTokens = Sequence[int] | str | None


class GenerativeTask(CopiedByAttributes, ABC):
    """A backbone, an optional preprocessor, a sampler, and ``generate`` on top of them.

    Subclasses say what one step is (:meth:`generate_step`).
    """

    def __init__(
        self, backbone: GPT2Backbone, preprocessor: GPT2CausalLMPreprocessor | None = None
    ) -> None:
        if preprocessor is not None:
            check_vocabularies(preprocessor.tokenizer, backbone.config.vocab_size)
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.generate_function: GenerateFunction | None = None
        self.compile()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.generate_function = None  # it is bound to the original
        return copied

    _instead_of_pickling = "load it in the other process (from_preset)"

    @property
    def device(self) -> Device:
        return self.backbone.device

    def compile(self, sampler: str | dict[str, Any] | samplers.Sampler = "top_k") -> None:
        """Choose the sampler: "greedy", "random", "top_k", "top_p" or an object.

        Raises ``InvalidArgumentError`` for an unknown one.
        """
        self.sampler = samplers.get(sampler)
        self.generate_function = None

    @abstractmethod
    def generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Generate from packed ids; see the subclass."""

    def make_generate_function(self) -> GenerateFunction:
        """What ``generate`` runs on packed ids, kept until the next ``compile``."""
        if self.generate_function is None:
            self.generate_function = self.generate_step
        return self.generate_function

    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        allowed_special: AllowedSpecial | None = None,
    ) -> Any:
        """Generate text: str → str, list of str → list of str, dict of ids → dict of ids.

        ``max_length`` counts all tokens, prompt and start token included (default: the
        preprocessor's ``sequence_length``); with a dict, the arrays' own length counts.
        ``stop_token_ids``: "auto" (the end tokens of tokenizer and configuration), ids, or None or
        [] for none. ``strip_prompt``: leave the prompt out. ``allowed_special``: special tokens
        that a prompt may spell out, or "all" (default: the preprocessor's, none). Blocks;
        ``generate_async`` is the twin.

        Raises ``ContextLengthError`` for a prompt that does not fit (KerasHub cuts it off in
        silence) or a ``max_length`` beyond the context, ``InvalidArgumentError`` for other input.
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
        """The asynchronous form of :meth:`generate`."""


class CausalLM(GenerativeTask):
    """A task that generates token after token, each from all before it."""

    async def generate_async(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        allowed_special: AllowedSpecial | None = None,
    ) -> Any:
        stops = self.resolve_stop_tokens(stop_token_ids)
        if isinstance(inputs, dict):
            return await self.generate_step_async(inputs, stops, strip_prompt=strip_prompt)
        preprocessor = self._require_preprocessor(
            "generate then takes a dict of token_ids and padding_mask"
        )
        prompts = [inputs] if isinstance(inputs, str) else inputs
        rows = self.encode_prompts(prompts, preprocessor, allowed_special)
        if max_length is None:
            max_length = preprocessor.sequence_length
        length = self.total_length(max_length, rows)
        lengths = [len(row) for row in rows]
        await self._complete(rows, [length] * len(rows), stops, self.candidates(stops))
        texts = [
            self._text_of(row[start:] if strip_prompt else row)
            for row, start in zip(rows, lengths, strict=True)
        ]
        return texts[0] if isinstance(inputs, str) else texts

    def generate_step(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Fill up the rows of ``{"token_ids", "padding_mask"}``, both [B, T] (or [T]).

        The mask says where the prompt is: at the beginning of each row. Returns the same keys and
        shapes: ids with what was generated, and a mask that is True up to and including the first
        new stop token (everywhere without one). A stop token counts only where it was generated,
        so a pad id that equals it does not stop (in KerasHub it does).
        """
        return sync(self.generate_step_async(inputs, stop_token_ids), "generate_step_async(...)")

    async def generate_step_async(
        self,
        inputs: dict[str, Any],
        stop_token_ids: Sequence[int] | None = None,
        *,
        strip_prompt: bool = False,
    ) -> dict[str, Any]:
        ids, prompts = self._packed_prompts(inputs)
        if not ids:
            return {key: as_array([], kind) for key, kind in _PACKED.items()}
        lengths = [len(prompt) for prompt in prompts]
        rows = [list(prompt) for prompt in prompts]
        self.total_length(len(ids[0]), rows)
        stops = stop_token_ids or ()
        limits = [len(row) for row in ids]
        await self._complete(rows, limits, stops, self.candidates(stops))
        token_ids, mask = [], []
        for row, packed, start in zip(rows, ids, lengths, strict=True):
            shown = row[start:] if strip_prompt else row
            rest = len(packed) - len(shown)
            token_ids.append(shown + packed[len(packed) - rest :])
            mask.append([True] * len(shown) + [False] * rest)
        scalar = is_one_row(inputs["token_ids"])
        return {
            "token_ids": as_array(token_ids[0] if scalar else token_ids, "int32"),
            "padding_mask": as_array(mask[0] if scalar else mask, "bool"),
        }

    async def _complete(
        self,
        rows: list[list[int]],
        limits: Sequence[int],
        stops: Sequence[int],
        candidates: Candidates | None,
    ) -> None:
        """Append what is generated to each row."""
        if not rows:
            return
        generation = Generation(
            self.backbone, rows, limits, self.sampler.next_options(), list(stops), candidates
        )
        try:
            while not generation.done:
                for row, new in zip(rows, await generation.advance(), strict=True):
                    row.extend(new)
        finally:
            generation.close()

    def _packed_prompts(self, inputs: dict[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
        """All ids of each row, and those that belong to its prompt."""
        missing = [key for key in ("token_ids", "padding_mask") if key not in inputs]
        if missing:
            raise InvalidArgumentError(
                f"inputs lack {shown(missing[0])}; got {shown(list(inputs))}"
            )
        ids = rows_of_ids(inputs["token_ids"], self.backbone.config.vocab_size, ragged=False)
        mask = rows_of_mask(inputs["padding_mask"], ragged=False)
        if [len(row) for row in ids] != [len(row) for row in mask]:
            raise InvalidArgumentError(
                f"token_ids [{len(ids)}, {len(ids[0])}] and padding_mask "
                f"[{len(mask)}, {len(mask[0]) if mask else 0}] differ in shape"
            )
        prompts = []
        for index, (row, real) in enumerate(zip(ids, mask, strict=True)):
            length = sum(real)
            if not length or not all(real[:length]):
                raise InvalidArgumentError(
                    f"row {index} of padding_mask must be True for the prompt (at least one "
                    f"token), then False; it is {shown(real)}"
                )
            prompts.append(row[:length])
        return ids, prompts

    def total_length(self, max_length: int, rows: Sequence[Sequence[int]]) -> int:
        """``max_length``, checked against the context and the longest prompt."""
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
        """Ids of the tokens that end a row; "auto" asks tokenizer and configuration.

        Raises ``InvalidArgumentError`` for "auto" without a preprocessor and for bad ids.
        """
        if stop_token_ids is None:
            return []
        if isinstance(stop_token_ids, str):
            if stop_token_ids != "auto":
                raise InvalidArgumentError(
                    f"stop_token_ids must be 'auto', ids or None, not {shown(stop_token_ids)}"
                )
            preprocessor = self._require_preprocessor(
                'stop_token_ids="auto" asks its tokenizer; pass ids, or None for none'
            )
            return end_token_ids(preprocessor.tokenizer, self.backbone.config)
        rows = rows_of_ids(stop_token_ids, self.backbone.config.vocab_size, "stop_token_ids")
        if len(rows) != 1:
            raise InvalidArgumentError(f"stop_token_ids must be one list of ids, not {len(rows)}")
        return rows[0]

    def candidates(self, stop_token_ids: Sequence[int]) -> Candidates | None:
        """The ids that may be drawn for a text; None, without a preprocessor, for all."""
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
        """Prompts as ids that all have a row in the model.

        Raises what ``preprocessor.encode_prompts`` does, ``InvalidArgumentError`` for a token
        without a row.
        """
        rows = preprocessor.encode_prompts(prompts, allowed_special=allowed_special)
        check_rows(rows, preprocessor.tokenizer, self.backbone.config.vocab_size)
        return rows

    def _require_preprocessor(self, why: str) -> GPT2CausalLMPreprocessor:
        if self.preprocessor is None:
            raise InvalidArgumentError(f"this model has no preprocessor: {why}")
        return self.preprocessor

    def _text_of(self, ids: Sequence[int]) -> str:
        tokenizer = self._require_preprocessor("ids cannot become text").tokenizer
        return tokenizer.decode_shown(ids)
