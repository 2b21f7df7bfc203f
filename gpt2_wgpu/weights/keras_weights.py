"""Weights of a KerasHub preset: ``model.weights.h5``, under Hugging Face's names.

Keras has a matrix for each of query, key and value, [D, heads, head size]; here, as in
transformers, they are the columns of one, ``c_attn``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.header import TensorEntry

WEIGHTS_FILE = "model.weights.h5"
_DTYPES = {"float32": "F32", "float16": "F16"}
_BLOCK = {
    "ln_1": ("_self_attention_layer_norm",),
    "attn.c_attn": tuple(
        f"_self_attention_layer/{each}_dense" for each in ("query", "key", "value")
    ),
    "attn.c_proj": ("_self_attention_layer/output_dense",),
    "ln_2": ("_feedforward_layer_norm",),
    "mlp.c_fc": ("_feedforward_intermediate_dense",),
    "mlp.c_proj": ("_feedforward_output_dense",),
}


class KerasWeights:
    """`WeightSource` over the arrays of an HDF5 file, which are read one at a time."""

    disagreements: tuple[str, ...] = ()
    metadata: Mapping[str, str] = {}

    def __init__(self, file: Any, where: str, num_layers: int) -> None:
        """Use an open ``h5py.File`` of a model with ``num_layers`` blocks; see `open`."""
        self.where = where
        self._file = file
        self._paths = _paths(num_layers)
        shape = self._array("wte.weight", 0).shape
        if len(shape) != 2 or not all(shape):
            raise WeightsError(f"{where}: wte.weight has shape {shown(shape)}, not two axes")
        self._width = shape[1]

    @classmethod
    def open(cls, directory: str | os.PathLike[str], num_layers: int) -> KerasWeights:
        """Open ``model.weights.h5`` of a directory.

        Raises:
            WeightsError: the file is missing or malformed, or h5py is not installed.
        """
        path = Path(directory, WEIGHTS_FILE)
        try:
            import h5py
        except ImportError:
            raise WeightsError(
                f"{path}: weights in KerasHub's format need h5py: pip install 'gpt2-wgpu[keras]'"
            ) from None
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error}") from None
        try:
            return cls(file, str(path), num_layers)
        except BaseException:
            file.close()
            raise

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self._paths)

    def entry(self, name: str) -> TensorEntry:
        """Return dtype and shape of a tensor; WeightsError for an unknown name."""
        arrays = self._arrays(name)
        dtypes = {str(array.dtype) for array in arrays}
        if len(dtypes) != 1 or not dtypes <= _DTYPES.keys():
            raise WeightsError(
                f"{self.where}: {name} is stored as {', '.join(sorted(dtypes))}; only float32 and "
                "float16 are supported"
            )
        (dtype,) = dtypes
        shape = self._shape(name, [array.shape for array in arrays])
        size = sum(array.size for array in arrays) * arrays[0].dtype.itemsize
        return TensorEntry(name, _DTYPES[dtype], shape, 0, size)

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes.

        Raises:
            WeightsError: the tensor does not exist.
        """
        import numpy as np

        arrays = [np.asarray(array) for array in self._arrays(name)]
        if len(arrays) > 1:
            first = (self._width, -1) if name.endswith(".weight") else (-1,)
            arrays = [np.concatenate([array.reshape(first) for array in arrays], axis=-1)]
        little = np.ascontiguousarray(arrays[0], arrays[0].dtype.newbyteorder("<"))
        return little.reshape(-1).view(np.uint8).data

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> KerasWeights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _shape(self, name: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape of a tensor from those of its arrays, with one axis for all heads."""
        if name.endswith("attn.c_attn.weight"):
            return self._width, sum(math.prod(shape) for shape in shapes) // self._width
        if name.endswith("attn.c_attn.bias"):
            return (sum(map(math.prod, shapes)),)
        if name.endswith("attn.c_proj.weight"):
            return math.prod(shapes[0]) // self._width, self._width
        return shapes[0]

    def _arrays(self, name: str) -> list[Any]:
        if name not in self._paths:
            raise WeightsError(f"{self.where}: there is no tensor {name!r}")
        return [self._array(name, index) for index in range(len(self._paths[name]))]

    def _array(self, name: str, index: int) -> Any:
        """Return a dataset, whose data must be in this file: HDF5 can refer to other files."""
        import h5py

        path = self._paths[name][index]
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            link = self._file.get("/".join(parts[:end]), getclass=True, getlink=True)
            if link is None:
                raise WeightsError(
                    f"{self.where} holds no {path}: it is not a GPT2Backbone of KerasHub with "
                    "the number of layers that config.json gives"
                )
            if link is not h5py.HardLink:
                raise WeightsError(f"{self.where}: {path} is a link, which is not supported")
        array = self._file[path]
        if not isinstance(array, h5py.Dataset) or not array.shape:
            raise WeightsError(f"{self.where}: {path} is not an array")
        if array.external or array.is_virtual:
            raise WeightsError(f"{self.where}: {path} is stored in other files; copy it into this")
        return array


def _paths(num_layers: int) -> dict[str, tuple[str, ...]]:
    """Return name → paths of the arrays that it is made of."""
    paths: dict[str, tuple[str, ...]] = {
        "wte.weight": ("layers/reversible_embedding/vars/0",),
        "wpe.weight": ("layers/position_embedding/vars/0",),
    }
    kinds = ("weight", "bias")
    for i in range(num_layers):
        decoder = f"layers/transformer_decoder{f'_{i}' if i else ''}"
        for name, parts in _BLOCK.items():
            for index, kind in enumerate(kinds):
                paths[f"h.{i}.{name}.{kind}"] = tuple(
                    f"{decoder}/{part}/vars/{index}" for part in parts
                )
    for index, kind in enumerate(kinds):
        paths[f"ln_f.{kind}"] = (f"layers/layer_normalization/vars/{index}",)
    return paths
