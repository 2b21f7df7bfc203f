"""Keras' ``predict``: results of a model as a NumPy array, computed in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.validation import integer


def predicted(model: Callable[[Mapping[str, Any]], Tensor], x: Any, batch_size: int) -> Any:
    """Return ``model(x)`` for ``{"token_ids", "padding_mask"}`` [N, T], as a NumPy array; blocks.

    Raises:
        InvalidArgumentError: x has no rows, or ``batch_size`` is not at least 1.
    """
    import numpy as np

    rows = integer("batch_size", batch_size, 1, 1 << 20)
    given = {name: values for name, values in x.items() if values is not None}
    count = len(given.get("token_ids", ()))
    if not count:
        raise InvalidArgumentError("predict takes {'token_ids', 'padding_mask'} of some rows")
    found = []
    for first in range(0, count, rows):
        with tidy("predict"):
            part = {name: values[first : first + rows] for name, values in given.items()}
            found.append(model(part).numpy())
    return np.concatenate(found)
