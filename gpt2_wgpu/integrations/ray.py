"""Offline generation over every GPU of a cluster: a callable class for Ray Data.

    import ray
    from gpt2_wgpu.integrations.ray import GPT2Generator

    texts = ray.data.read_json("prompts.jsonl").map_batches(
        GPT2Generator,
        fn_constructor_kwargs={"preset": "fairytales", "max_new_tokens": 100},
        compute=ray.data.ActorPoolStrategy(size=8), num_gpus=1, batch_size=256,
    )

Nothing here imports Ray: it is Ray that calls, and the class works without it.
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
from gpt2_wgpu.integrations.visible_gpus import assigned_adapter
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, adapters, sync

_ANY = 2**31 - 1


@dataclass
class _Row:
    """One row of a batch: what is asked, and what became of it."""

    index: int  # in the batch
    prompt: list[int] = field(default_factory=list)
    limit: int = 0  # total length, prompt included
    seed: int = 0
    new: list[int] = field(default_factory=list)
    finish_reason: str = "error"
    error: str = ""


class GPT2Generator(NotCopyable):
    """Loads a model once, then continues the prompts of every batch it is called with.

    A batch is a dict of columns (``batch_format="numpy"``, Ray's default). It comes back with its
    columns and rows as they were, and these columns more, none of which is ever null:

    - ``generated_text``: str, without the prompt
    - ``finish_reason``: "stop" (a stop token), "length" (a limit, or the model's context), "error"
    - ``prompt_tokens`` (start token included), ``new_tokens`` (stop token included): int
    - ``error``: what is wrong with the row, empty if nothing is

    A row's text depends on its prompt, its limit, its seed and the arguments below, not on the
    rows around it, their order, or the worker: each group of ``rows_at_once`` is filled up to that
    number, so that the same kernels compute it, and each row draws from a seed of its own. That
    seed is the ``seed_column``'s, and then the text is what a new sampler with this seed gives the
    prompt alone; else it is made of the sampler's seed (0 if it has none) and the prompt, so that
    equal prompts give equal texts.

    Args:
        preset: preset name, directory or hub id, as for ``GPT2CausalLM.from_preset``.
        prompt_column: the column of prompts, str.
        max_new_tokens: at most so many tokens a row, cut to what the context holds.
        max_new_tokens_column: a column with a limit for each row, in place of it.
        seed_column: a column of seeds, integers from 0 to 2^64 - 1.
        sampler: name, ``{"class_name", "config"}`` or object, as for ``compile``.
        stop_token_ids: "auto" (the end token), ids, or None for none.
        rows_at_once: rows generated together. More use a GPU better and take more memory: what
            does not fit is tried with half as many, with a warning. From 9 on, rows are
            independent to the last bit; below, on GPUs, to rounding.
        dtype: how matrices are stored, as for ``GPT2CausalLM.from_preset``. Without a GPU give one:
            else each worker takes what it measures to be fastest.
        adapter: "auto" takes the GPU that Ray gave the worker (``num_gpus``), and what wgpu
            prefers if it gave none; or as for ``Device(adapter=...)``.
        memory_budget: bytes of GPU memory at most (default: see ``set_memory_budget``).
        on_error: "record" puts a row's fault into ``error`` and goes on, "raise" raises it.
        prefix: put before the names of the columns that are added.
        allowed_special: special tokens that a prompt may spell out, or "all".

    Raises:
        InvalidArgumentError: an argument is out of range.
        GPT2WGPUError: what ``Device`` and ``from_preset`` raise; nothing stays allocated.
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
        self.rows_at_once = integer("rows_at_once", rows_at_once, 1, 65_535)
        if on_error not in ("record", "raise"):
            raise InvalidArgumentError(
                f"on_error must be 'record' or 'raise', not {shown(on_error)}"
            )
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a str, not {shown(prefix)}")
        self._raises, self._prefix = on_error == "raise", prefix
        self._lock = threading.Lock()
        self._device = _open_device(adapter)
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
        """``batch`` and the new columns. Serves one caller at a time; others wait.

        Raises ``InvalidArgumentError`` if it is no dict, lacks a column, or has one of the new
        ones; with ``on_error="raise"`` also what is wrong with a row.
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
        """Prompt, limit and seed of each row; a seed of None is to be made."""
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
        """The row, checked and encoded, or one that tells its error."""
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
            return 0  # draws nothing
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
        """Complete ``rows``: like ones together, the longest first, so that few wait for others."""
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
            for row in group:  # only the one at fault is to fail
                self._complete([row])

    def _run(self, group: list[_Row]) -> None:
        """One generation, filled up with rows that are finished before they begin."""
        idle = self.rows_at_once - len(group)
        generation = Generation(
            self._lm.backbone,
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
            row.finish_reason = "stop" if generation.stopped(index) else "length"

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
        """Free the model and give the device back. Idempotent; Ray drops the object at its end."""
        if (lm := getattr(self, "_lm", None)) is not None:
            lm.dispose()
            self._device.successor.close()
            self._device.close()

    def __enter__(self) -> GPT2Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # then the process frees all anyway
            self.close()


def _name(parameter: str, value: Any, *, optional: bool = False) -> str:
    """A column's name; "" for none."""
    if optional and value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{parameter} must be the name of a column, not {shown(value)}")
    return value


def _open_device(adapter: int | str | None) -> Device:
    if adapter != "auto":
        return Device(adapter=adapter)
    device = Device(adapter=assigned_adapter(os.environ, adapters()))
    if device.info.is_software:
        warnings.warn(f"no GPU: this worker computes on the CPU ({device.info.name})", stacklevel=3)
    return device
