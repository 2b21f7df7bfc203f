"""Sampling of the next token on the GPU, and the per-row decoding state."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn.choice_options import Penalties, SamplingOptions
from gpt2_wgpu.nn.token_rules import TokenRules
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for, threads_per_row
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.webgpu.device import Device

CHUNK = 256  # logits per stored maximum: shaders/include/rank.wgsl
OF_PROMPT = 1 << 31  # flag in a token's count: in the prompt
EXCLUDED = 1 << 30  # flag in a token's count: never chosen
PASSES = 25  # max passes over the vocabulary, including the overhead of a pass
RECENT = 16  # newest tokens stored per row, the max number of new tokens per submit
_OWN_OPTIONS = len(SamplingOptions().pack((), 0))  # words of a row, without stop tokens
LIVE, STOPPED, FULL, NOT_FINITE, ALL_EXCLUDED = range(5)  # values of ``finished``


@dataclass(frozen=True)
class History:
    """Token history of a row; the first ``prompt`` ids are the prompt.

    ``begin``: ids before the first that this generation adds; default: the prompt. It is more where
    a session goes on with tokens that it has generated before.
    """

    ids: Sequence[int]
    prompt: int
    begin: int | None = None

    @property
    def before(self) -> int:
        """Number of ids before the first that this generation adds."""
        return self.prompt if self.begin is None else self.begin


@dataclass(frozen=True)
class SamplingState:
    """Per-row decoding state, updated in place by shaders/sample.wgsl."""

    token: Tensor  # [B, 1] newest token
    position: Tensor  # [B] its position
    finished: Tensor  # [B] LIVE, STOPPED, FULL, NOT_FINITE or ALL_EXCLUDED
    recent: Tensor  # [B, RECENT] ring buffer: the token of position p is at p % RECENT
    row_params: Tensor  # [B, 4] total length at which a row is full; stream and seed of its draws
    maxima_and_counts: Tensor  # [B, chunks (+ candidates)]: include/maxima_and_counts.wgsl
    options: Tensor
    rules: Tensor | None  # words of the token rules that depend on the text, and the
    texts: Tensor | None  # [B, 1 + max length] length of the prompt, and token history
    bias: Tensor | None  # [candidates] or [B, candidates] added to the logits
    odds: Tensor | None  # [B, odds_width(top)] of the newest tokens: shaders/record_odds.wgsl
    candidates: int  # ids below this may be chosen
    penalties: Penalties
    counted: bool = False  # has counts as well: for penalties, or for excluded ids
    own_options: bool = False  # each row has its own, without stop tokens

    @classmethod
    def create(
        cls,
        device: Device,
        rows: Sequence[History],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        candidates: int,
        seeds: Sequence[int] | None = None,
        excluded: Sequence[int] = (),
        length: int = 0,
        own_options: bool = False,
        odds_width: int = 0,
    ) -> SamplingState:
        """Create the state of ``rows`` whose newest tokens are not yet computed.

        Rows share the seed of ``options``, with their index as the random stream. With ``seeds``
        each row draws as the only row of a batch with that seed. ``excluded``: ids below
        ``candidates`` that are never chosen. ``length``: room for the text of a row, at least
        the largest of ``limits`` (default). ``own_options``: rows can be replaced one by one, with
        temperature, top-k and so on of their own (:meth:`write_row`); stop tokens stop none.
        ``odds_width``: words for the odds of each row's tokens (step_odds.py); 0: none.
        """
        rules = options.rules
        rules.check(candidates)
        excluded = sorted({*excluded, *rules.always_excluded(stop_token_ids)})
        counted = options.penalties.any or bool(excluded) or rules.depend_on_text
        counts = excluded if counted else None
        words = _words_of(rows, limits, options, stop_token_ids, candidates, seeds, counts)
        if rules.depend_on_text:
            longest = max(*limits, *(len(row.ids) for row in rows))
            words |= _rule_words(rows, rules, stop_token_ids, length or longest)
        tensors: dict[str, Tensor | None] = dict.fromkeys(("rules", "texts", "bias", "odds"))
        if own_options:
            own = list(options.pack((), candidates))
            words["options"] = _words(own * len(rows), len(rows), _OWN_OPTIONS)
        if odds_width:
            words["odds"] = _words([0] * odds_width * len(rows), len(rows), odds_width)
        for name, values in words.items():
            tensors[name] = tensor(values, "uint32", device=device)
        if rules.sequence_bias:
            bias = array("f", bytes(4 * candidates))
            for token, value in rules.biases().items():
                bias[token] = value
            shape = [candidates]
            if rules.has_long_biases:
                bias, shape = bias * len(rows), [len(rows), candidates]
            filled = memoryview(bias).cast("B").cast("f", shape)
            tensors["bias"] = tensor(filled, "float32", device=device)
        return cls(
            **tensors,  # type: ignore[arg-type]
            candidates=candidates,
            penalties=options.penalties,
            counted=counted,
            own_options=own_options,
        )

    def renewed(self) -> SamplingState:
        """New tensors over the buffers of these, which are disposed."""
        tensors: dict[str, Any] = {
            name: value.renewed() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)

    def first_rows(self, rows: int) -> SamplingState:
        """Return views of the first ``rows``, in the same memory."""
        tensors: dict[str, Any] = {
            name: value.view(value.shape) if self._is_shared(name) else value.first(rows)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)

    def row_slices(self) -> list[tuple[Tensor, int, int]]:
        """Return tensor, first byte and bytes per row of each array of rows."""
        return [
            (value, 0, value.nbytes // value.shape[0])
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and not self._is_shared(name)
        ]

    def _is_shared(self, name: str) -> bool:
        """Return whether a tensor is one of all rows."""
        alike = self.bias is not None and self.bias.ndim == 1
        options = name == "options" and not self.own_options
        return options or name == "rules" or (name == "bias" and alike)

    def write(
        self,
        rows: Sequence[History],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        seeds: Sequence[int] | None = None,
        excluded: Sequence[int] = (),
    ) -> None:
        """Begin anew, as :meth:`create` with arguments that give tensors of the same shapes."""
        excluded = sorted({*excluded, *options.rules.always_excluded(stop_token_ids)})
        if excluded and not self.counted:
            raise InvalidArgumentError("a state without counts cannot exclude tokens")
        counts = excluded if self.counted else None
        words = _words_of(rows, limits, options, stop_token_ids, self.candidates, seeds, counts)
        if self.texts is not None:
            length = self.texts.shape[1] - 1
            words |= _rule_words(rows, options.rules, stop_token_ids, length)
        if self.odds is not None:
            words["odds"] = _words([0] * self.odds.size, *self.odds.shape)
        for name, values in words.items():
            self.token.device.queue.upload(getattr(self, name).storage, 0, values)

    def write_row(
        self,
        row: int,
        history: History,
        limit: int,
        options: SamplingOptions,
        excluded: Sequence[int] = (),
    ) -> None:
        """Begin ``row`` of a state with own options anew; it draws as the only row of a batch.

        Penalties and rules are those of the state. ``excluded``: all ids that are never chosen.
        """
        counts = excluded if self.counted else None
        one = [history]
        words = _words_of(one, [limit], options, (), self.candidates, None, counts)
        if self.texts is not None:
            length = self.texts.shape[1] - 1
            words["texts"] = _rule_words(one, options.rules, (), length)["texts"]
        if self.odds is not None:
            words["odds"] = _words([0] * self.odds.shape[1], 1, self.odds.shape[1])
        for name, values in words.items():
            storage = getattr(self, name).storage
            self.token.device.queue.upload(storage, row * values.nbytes, values)


def _words_of(
    rows: Sequence[History],
    limits: Sequence[int],
    options: SamplingOptions,
    stop_token_ids: Sequence[int],
    candidates: int,
    seeds: Sequence[int] | None,
    excluded: Sequence[int] | None,
) -> dict[str, memoryview]:
    """The contents of each tensor of a ``SamplingState``, in its shape.

    ``excluded``: None without counts.
    """
    count = len(rows)
    keys = (
        [(r, options.seed) for r in range(count)]
        if seeds is None
        else [(0, seed) for seed in seeds]
    )
    row_params: list[int] = []
    for limit, (stream, seed) in zip(limits, keys, strict=True):
        row_params += (limit, stream, seed & 0xFFFFFFFF, seed >> 32)
    room = [limit - len(row.ids) for row, limit in zip(rows, limits, strict=True)]
    notes: list[int] = []
    for row in rows:
        notes += maxima_and_counts(row, candidates, excluded)
    return {
        "token": _words([row.ids[-1] for row in rows], count, 1),
        "position": _words([len(row.ids) - 1 for row in rows], count),
        "finished": _words([LIVE if left > 0 else FULL for left in room], count),
        "recent": _words([0] * RECENT * count, count, RECENT),
        "row_params": _words(row_params, count, 4),
        "maxima_and_counts": _words(notes, count, len(notes) // count),
        "options": options.pack(stop_token_ids, candidates),
    }


def _rule_words(
    rows: Sequence[History], rules: TokenRules, stop_token_ids: Sequence[int], length: int
) -> dict[str, memoryview]:
    """The contents of ``rules`` and ``texts``."""
    texts: list[int] = []
    for row in rows:
        texts += (row.prompt, *row.ids, *[0] * (length - len(row.ids)))
    words = rules.words(stop_token_ids)
    return {
        "rules": _words(words, len(words)),
        "texts": _words(texts, len(rows), 1 + length),
    }


def _words(values: Sequence[int], *shape: int) -> memoryview:
    """``values`` as 32-bit words of ``shape``."""
    return memoryview(array("I", values)).cast("B").cast("I", shape)


def maxima_and_counts(row: History, candidates: int, excluded: Sequence[int] | None) -> list[int]:
    """Return a row of ``SamplingState.maxima_and_counts`` before the first step."""
    chunks = [0] * -(-candidates // CHUNK)
    if excluded is None:
        return chunks
    counts = [0] * candidates
    for place, token in enumerate(row.ids):
        if token < candidates:
            counts[token] = counts[token] | OF_PROMPT if place < row.prompt else counts[token] + 1
    for token in excluded:
        counts[token] = EXCLUDED
    return chunks + counts


def exclude_tokens(state: SamplingState) -> None:
    """Flag the tokens that the rules of ``state`` exclude from the next step, if it has rules."""
    if state.rules is None or state.texts is None:
        return
    dispatch(
        state.position.device,
        "exclude_tokens",
        (state.position.size, 1, 1),
        {
            "rules": state.rules,
            "texts": state.texts,
            "token": state.token,
            "position": state.position,
            "row_params": state.row_params,
            "maxima_and_counts": state.maxima_and_counts,
        },
        {
            "candidates": state.candidates,
            "maxima_and_counts_width": state.maxima_and_counts.shape[1],
            "texts_width": state.texts.shape[1],
        },
    )


def bias_sequences(state: SamplingState) -> None:
    """Write the biases of the next step, if they depend on the text.

    After :func:`exclude_tokens`, which appends the newest token to the text.
    """
    if state.bias is None or state.bias.ndim == 1 or state.rules is None or state.texts is None:
        return
    dispatch(
        state.position.device,
        "bias_sequences",
        (state.position.size, 1, 1),
        {
            "rules": state.rules,
            "texts": state.texts,
            "position": state.position,
            "bias": state.bias,
        },
        {"candidates": state.candidates, "texts_width": state.texts.shape[1]},
    )


def sample(logits: Tensor, state: SamplingState) -> None:
    """Choose a token for each row of ``logits`` [B, V] and advance ``state`` by one position.

    The logits must be those of :func:`project_logits`, which stores their maxima in ``state``.
    Finished rows do not change. ShapeError for incompatible shapes.
    """
    rows = state.position.size
    if logits.ndim != 2 or logits.shape[0] != rows or logits.shape[1] < state.candidates:
        raise ShapeError(
            f"sample: logits {logits.shape} for state of {rows} rows and {state.candidates} "
            "candidates"
        )
    dispatch(
        logits.device,
        "sample",
        (rows, 1, 1),
        {"logits": logits, **_bindings(state)},
        {**_advance_params(state), "stride": logits.shape[1]},
        constants={
            "WORKGROUP": threads_per_row(logits.device, "sample", state.candidates, PASSES),
        },
    )


def advance(tokens: Sequence[int], state: SamplingState) -> None:
    """Advance ``state`` by ``tokens``, one per row, chosen by the caller.

    Finished rows do not change. ShapeError for a wrong number of tokens, InvalidArgumentError for
    one that is not a candidate.
    """
    rows = state.position.size
    if len(tokens) != rows:
        raise ShapeError(f"advance: {len(tokens)} tokens for state of {rows} rows")
    for row, token in enumerate(tokens):
        if not 0 <= token < state.candidates:
            raise InvalidArgumentError(
                f"token {shown(token)} of row {row} cannot be chosen: it must be in "
                f"[0, {state.candidates})"
            )
    device = state.position.device
    chosen = tensor(list(tokens), "uint32", device=device)
    dispatch(
        device,
        "advance",
        groups_for(rows, 64),
        {"chosen": chosen, **_bindings(state)},
        {**_advance_params(state), "rows": rows},
    )
    chosen.dispose()


def _bindings(state: SamplingState) -> dict[str, Tensor]:
    """Return the bindings of advance_row.wgsl."""
    return {
        "options": state.options,
        "row_params": state.row_params,
        "token": state.token,
        "position": state.position,
        "finished": state.finished,
        "recent": state.recent,
        "maxima_and_counts": state.maxima_and_counts,
    }


def _advance_params(state: SamplingState) -> dict[str, int]:
    """Return the parameters of advance_row.wgsl."""
    return {
        "maxima_and_counts_width": state.maxima_and_counts.shape[1],
        "options_width": _OWN_OPTIONS if state.own_options else 0,
    }
