"""Batch inference on every GPU of a cluster: a callable class for Ray Data.

    import ray
    from gpt2_wgpu.integrations.ray import GPT2Generator

    texts = ray.data.read_json("prompts.jsonl").map_batches(
        GPT2Generator,
        fn_constructor_kwargs={"preset": "fairytales", "max_new_tokens": 100},
        compute=ray.data.ActorPoolStrategy(size=8), num_gpus=1, batch_size=256,
    )

This module does not import Ray; the class works without it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gpt2_wgpu import samplers
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.diagnostics import set_memory_budget
from gpt2_wgpu.errors import (
    ContextLengthError,
    GPT2WGPUError,
    InvalidArgumentError,
    NumericalError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.integrations.visible_gpus import open_assigned
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.row_ends import limit_reached
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import sync

_ANY = 2**31 - 1


@dataclass
class _Row:
    """One row of a batch: request and result."""

    index: int  # in the batch
    prompt: list[int] = field(default_factory=list)
    limit: int = 0  # total length, prompt included
    seed: int = 0
    new: list[int] = field(default_factory=list)
    finish_reason: str = "error"
    error: str = ""


class GPT2Generator(NotCopyable):
    """Batch generator: loads a model once and continues the prompts of each batch.

    A batch is a dict of columns (``batch_format="numpy"``, Ray's default). The result has its rows
    and columns unchanged, and these additional columns, without nulls:

    - ``generated_text``: str, without the prompt
    - ``finish_reason``: "stop" (stop token), "length" (limit), "context" (the model's context
      is full) or "error"
    - ``prompt_tokens`` (with the start token), ``new_tokens`` (with the stop token): int
    - ``error``: the row's error message, or empty

    A row's text depends on its prompt, limit and seed and on the arguments below, not on other
    rows, their order or the worker: each group is padded to ``rows_at_once`` rows, so that the
    same kernels are used, and each row has its own seed. With ``seed_column`` the text is that of
    a new sampler with this seed and the prompt alone; else the seed is derived from the sampler's
    seed (0 if it has none) and the prompt, so that equal prompts give equal texts.

    Args:
        preset: preset name, directory or hub id, as for ``GPT2CausalLM.from_preset``.
        prompt_column: column of prompts, str.
        max_new_tokens: limit of new tokens per row; the context is a further limit.
        max_new_tokens_column: column of limits per row, instead of ``max_new_tokens``.
        seed_column: column of seeds, integers from 0 to 2^64 - 1.
        sampler: name, ``{"class_name", "config"}`` or object, as for ``compile``.
        stop_token_ids: "auto" (the end token), ids, or None for none.
        rows_at_once: batch size on the GPU. Larger is faster and takes more memory; on
            out-of-memory it is halved, with a warning. From 9 on, rows are independent bit for
            bit; below, on GPUs, up to rounding.
        dtype: weight dtype, as for ``GPT2CausalLM.from_preset``. Set it for CPU adapters: by
            default each worker chooses the dtype it measures to be fastest.
        adapter: "auto": the GPU that Ray assigned to the worker (``num_gpus``), or wgpu's
            preferred adapter if it assigned none; else as for ``Device(adapter=...)``.
        memory_budget: limit of GPU memory in bytes (default: see ``set_memory_budget``).
        on_error: "record" stores a row's error in ``error``, "raise" raises it.
        prefix: prefix of the names of the additional columns.
        allowed_special: special tokens to recognise in prompts, or "all".

    Raises:
        InvalidArgumentError: an argument is out of range.
        GPT2WGPUError: from ``Device`` and ``from_preset``; no memory stays allocated.
    """

    def __init__(
        self,
        preset: str | os.PathLike[str] = "fairytales",
        *,
        prompt_column: str = "prompt",
        max_new_tokens: int = 100,
        max_new_tokens_column: str | None = None,
        seed_column: str | None = None,
        sampler: str | dict[str, Any] | samplers.Sampler = "top_k",
        stop_token_ids: Sequence[int] | str | None = "auto",
        rows_at_once: int = 16,
        dtype: str | None = None,
        adapter: int | str | None = "auto",
        memory_budget: int | None = None,
        on_error: str = "record",
        prefix: str = "",
        allowed_special: Collection[str] | Literal["all"] = (),
    ) -> None:
        self._prompt_column = _name("prompt_column", prompt_column)
        self._max_new_tokens = integer("max_new_tokens", max_new_tokens, 1, _ANY)
        self._limit_column = _name("max_new_tokens_column", max_new_tokens_column, optional=True)
        self._seed_column = _name("seed_column", seed_column, optional=True)
        self._sampler = samplers.get(sampler)
        if samplers.runs_in_python(self._sampler) or samplers.runs_its_own_loop(self._sampler):
            raise InvalidArgumentError(
                f"GPT2Generator needs a sampler that runs on the GPU, and {self._sampler!r} "
                "chooses in Python: pass one of gpt2_wgpu.samplers"
            )
        self.rows_at_once = integer("rows_at_once", rows_at_once, 1, 65_535)
        if on_error not in ("record", "raise"):
            raise InvalidArgumentError(
                f"on_error must be 'record' or 'raise', not {shown(on_error)}"
            )
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a str, not {shown(prefix)}")
        self._raises, self._prefix = on_error == "raise", prefix
        self._lock = threading.Lock()
        self._device = open_assigned(adapter)
        try:
            if memory_budget is not None:
                set_memory_budget(memory_budget, self._device)
            self._lm = GPT2CausalLM.from_preset(preset, dtype=dtype, device=self._device)
            self._preprocessor.allowed_special = allowed_special
            self._stops = self._lm.resolve_stop_tokens(stop_token_ids)
        except BaseException:
            self._device.close()
            raise

    _instead_of_pickling = "pass the class, which each worker calls (map_batches does so)"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``batch`` with the additional columns. Concurrent calls are serialised.

        Raises:
            InvalidArgumentError: ``batch`` is not a dict, lacks a column, or already has one of
                the additional columns.
            GPT2WGPUError: the error of a row, with ``on_error="raise"``.
        """
        with self._lock:
            rows = [self._row(*values) for values in enumerate(self._values(batch))]
            self._generate([row for row in rows if not row.error])
        new = self._new_columns(rows)
        if clash := sorted(batch.keys() & new.keys()):
            raise InvalidArgumentError(
                f"the batch has a column {shown(clash[0])} already: drop it, or give prefix="
            )
        return {**batch, **new}

    def _values(self, batch: Mapping[str, Any]) -> Iterable[tuple[Any, Any, Any]]:
        """Yield prompt, limit and seed of each row; None for a seed that is to be derived."""
        if not isinstance(batch, Mapping):
            raise InvalidArgumentError(
                f"a batch must be a dict of columns, not {type(batch).__name__}: leave "
                "batch_format of map_batches at 'numpy'"
            )

        def column(name: str, default: Any) -> list[Any]:
            if not name:
                return [default] * len(prompts)
            if name not in batch:
                raise InvalidArgumentError(
                    f"the batch has no column {shown(name)}; it has {shown([*batch])}"
                )
            return list(batch[name])

        prompts = column(self._prompt_column, None)
        limits = column(self._limit_column, self._max_new_tokens)
        return zip(prompts, limits, column(self._seed_column, None), strict=True)

    def _row(self, index: int, values: tuple[Any, Any, Any]) -> _Row:
        """Validate and encode a row; a fault is recorded as its error."""
        row = _Row(index)
        prompt, max_new_tokens, seed = values
        try:
            if not isinstance(prompt, str):
                missing = prompt is None or prompt != prompt  # pandas makes NaN of null
                found = "null" if missing else f"{shown(prompt)}"
                raise InvalidArgumentError(f"a prompt must be a str, not {found}")
            (row.prompt,) = self._lm.encode_prompts([prompt], self._preprocessor)
            context = self._lm.backbone.config.n_positions
            if len(row.prompt) >= context:
                raise ContextLengthError(
                    f"the prompt has {len(row.prompt)} tokens (start token included), but at most "
                    f"{context - 1} leave room in the model's context: shorten it"
                )
            new = integer(self._limit_column or "max_new_tokens", max_new_tokens, 1, _ANY)
            row.limit = min(context, len(row.prompt) + new)
            row.seed = self._seed_of(prompt, seed)
        except InvalidArgumentError as error:
            self._fail(row, error)
        return row

    def _seed_of(self, prompt: str, seed: Any) -> int:
        config = self._sampler.get_config()
        if "seed" not in config:
            return 0  # greedy: the seed has no effect
        if self._seed_column:
            seed = integer(self._seed_column, seed, 0, 2**64 - 1)
        else:
            key = (config["seed"] or 0).to_bytes(8, "little")
            digest = hashlib.blake2b(prompt.encode(), key=key, digest_size=8).digest()
            seed = int.from_bytes(digest, "little")
        return type(self._sampler)(**{**config, "seed": seed}).next_options().seed

    def _fail(self, row: _Row, error: GPT2WGPUError) -> None:
        if self._raises:
            raise type(error)(f"row {row.index} of the batch: {error}") from error
        row.error = f"{type(error).__name__}: {error}"

    def _generate(self, rows: list[_Row]) -> None:
        """Complete ``rows``, grouped by similar length, longest first, to minimise padding."""
        pending = sorted(rows, key=lambda row: (row.limit, len(row.prompt)), reverse=True)
        while pending:
            group = pending[: self.rows_at_once]
            try:
                self._complete(group)
            except OutOfGPUMemoryError as error:
                if self.rows_at_once == 1:
                    raise
                self.rows_at_once //= 2
                warnings.warn(
                    f"{error}; going on with rows_at_once={self.rows_at_once}", stacklevel=3
                )
            else:
                pending = pending[len(group) :]

    def _complete(self, group: list[_Row]) -> None:
        try:
            self._run(group)
        except NumericalError as error:
            if len(group) == 1:
                self._fail(group[0], error)
                return
            for row in group:  # one at a time, so that only the faulty row fails
                self._complete([row])

    def _run(self, group: list[_Row]) -> None:
        """Run one generation, padded with rows that are finished from the start."""
        idle = self.rows_at_once - len(group)
        generation = Generation(
            self._lm,
            [*(row.prompt for row in group), *[[0]] * idle],
            [*(row.limit for row in group), *[1] * idle],
            replace(self._sampler.next_options(), seed=0),
            self._stops,
            self._lm.candidates(self._stops),
            [*(row.seed for row in group), *[0] * idle],
        )
        new: list[list[int]] = [[] for _ in group]
        try:
            while not generation.done:
                found = sync(generation.advance(), "Generation.advance()")
                for ids, more in zip(new, found, strict=False):
                    ids += more
        finally:
            generation.close()
        for index, row in enumerate(group):
            row.new = new[index]
            tokens, context = len(row.prompt) + len(row.new), self._lm.backbone.config.n_positions
            stopped = generation.stopped(index)
            row.finish_reason = "stop" if stopped else limit_reached(tokens, context)

    @property
    def _preprocessor(self) -> Any:
        return self._lm.preprocessor

    def _new_columns(self, rows: list[_Row]) -> dict[str, Any]:
        import numpy as np

        tokenizer = self._preprocessor.tokenizer

        def texts(values: Iterable[str]) -> Any:
            return np.array([*values], dtype=object)

        def counts(values: Iterable[int]) -> Any:
            return np.array([*values], dtype=np.int64)

        decoded = (tokenizer.decode_shown(row.new) for row in rows)
        columns = {
            "generated_text": texts(decoded),
            "finish_reason": texts(row.finish_reason for row in rows),
            "prompt_tokens": counts(len(row.prompt) for row in rows),
            "new_tokens": counts(len(row.new) for row in rows),
            "error": texts(row.error for row in rows),
        }
        return {self._prefix + name: values for name, values in columns.items()}

    def close(self) -> None:
        """Free the model and close the device. Idempotent; called when Ray deletes the object."""
        if (lm := getattr(self, "_lm", None)) is not None:
            lm.dispose()
            self._device.successor.close()
            self._device.close()

    def __enter__(self) -> GPT2Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at exit the process frees its memory anyway
            self.close()


def _name(parameter: str, value: Any, *, optional: bool = False) -> str:
    """Return a column name; "" for none."""
    if optional and value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{parameter} must be the name of a column, not {shown(value)}")
    return value
