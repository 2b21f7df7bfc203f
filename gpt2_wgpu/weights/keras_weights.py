"""Weights in Keras' format: ``model.weights.h5`` of a preset or a ``.keras`` file.

They have Hugging Face's names here.

Keras has a matrix for each of query, key and value, [D, heads, head size]; here, as in
transformers, they are the columns of one, ``c_attn``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.closing import Closing
from gpt2_wgpu.weights.header import TensorEntry
from gpt2_wgpu.weights.keras_archive import PREFIXES, WEIGHTS_FILE, KerasArchive

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# What h5py raises for damaged files, each of them in many places.
_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
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


class KerasWeights(Closing):
    """`WeightSource` over the arrays of an HDF5 file, which are read one at a time."""

    disagreements: tuple[str, ...] = ()
    metadata: Mapping[str, str] = {}

    def __init__(
        self, file: Any, where: str, num_layers: int, prefix: str = "", owner: Any = None
    ) -> None:
        """Use an open ``h5py.File`` of a model with ``num_layers`` blocks; see `open`.

        ``prefix``: path of the backbone. ``owner``: closed after the file.
        """
        self.where = where
        self._file, self._owner = file, owner
        self._paths = array_paths(num_layers, prefix)
        with self._reading("wte.weight"):
            shape = self._array("wte.weight", 0).shape
        if len(shape) != 2 or not all(shape):
            raise WeightsError(f"{where}: wte.weight has shape {shown(shape)}, not two axes")
        self._width = shape[1]

    @classmethod
    def open(cls, place: Path, num_layers: int) -> KerasWeights:
        """Open the weights of a directory, or of a ``.keras`` file.

        Raises:
            WeightsError: the file is missing or malformed, or h5py is not installed.
            ConfigError: a ``.keras`` file holds another model.
        """
        if place.is_dir():
            path = place / WEIGHTS_FILE
            return cls._opened(path, str(path), num_layers)
        archive = KerasArchive(place)
        try:
            prefix = PREFIXES[archive.saved().class_name]
            where = f"{place}/{WEIGHTS_FILE}"
            return cls._opened(archive.weights(), where, num_layers, prefix, archive)
        except BaseException:
            archive.close()
            raise

    @classmethod
    def _opened(
        cls, source: Any, where: str, num_layers: int, prefix: str = "", owner: Any = None
    ) -> KerasWeights:
        h5py = imported(where)
        try:
            file = h5py.File(source, "r")
        except _FAULTS as error:
            raise WeightsError(f"{where}: cannot be read: {error}") from None
        try:
            return cls(file, where, num_layers, prefix, owner)
        except BaseException:
            file.close()
            raise

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self._paths)

    def entry(self, name: str) -> TensorEntry:
        """Return dtype and shape of a tensor; WeightsError for an unknown name."""
        with self._reading(name):
            arrays = self._arrays(name)
            dtypes = {_dtype(array) for array in arrays}
            shapes = [array.shape for array in arrays]
            size = sum(array.nbytes for array in arrays)
        if len(dtypes) != 1 or not dtypes <= _DTYPES.keys():
            raise WeightsError(
                f"{self.where}: {name} is stored as {shown(', '.join(sorted(dtypes)))}; only "
                "float32, float16 and bfloat16 are supported"
            )
        (dtype,) = dtypes
        return TensorEntry(name, _DTYPES[dtype], self._shape(name, shapes), 0, size)

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes.

        Raises:
            WeightsError: the tensor does not exist, or the file is damaged.
        """
        import numpy as np

        with self._reading(name):
            arrays = [np.asarray(array) for array in self._arrays(name)]
            if len(arrays) > 1:
                first = (self._width, -1) if name.endswith(".weight") else (-1,)
                arrays = [np.concatenate([array.reshape(first) for array in arrays], axis=-1)]
            little = np.ascontiguousarray(arrays[0], arrays[0].dtype.newbyteorder("<"))
            return little.reshape(-1).view(np.uint8).data

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
        if self._owner is not None:
            self._owner.close()

    def _shape(self, name: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape of a tensor from those of its arrays, with one axis for all heads."""
        if name.endswith("attn.c_attn.weight"):
            return self._width, sum(math.prod(shape) for shape in shapes) // self._width
        if name.endswith("attn.c_attn.bias"):
            return (sum(map(math.prod, shapes)),)
        if name.endswith("attn.c_proj.weight"):
            return math.prod(shapes[0]) // self._width, self._width
        return shapes[0]

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Raise WeightsError for what h5py raises when it reads a damaged file."""
        try:
            yield
        except WeightsError:
            raise
        except _FAULTS as error:
            reason = shown(str(error).strip("'"))  # a KeyError's has quotation marks
            raise WeightsError(f"{self.where}: {name} cannot be read ({reason})") from None

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
        if (stored := array.id.get_storage_size()) != array.nbytes:
            raise WeightsError(
                f"{self.where}: {path} takes {stored:,} bytes instead of {array.nbytes:,}: it is "
                "compressed or incomplete"
            )
        return array


def imported(where: str) -> Any:
    """Return the module h5py; WeightsError about ``where`` if it is not installed."""
    try:
        import h5py
    except ImportError:
        raise WeightsError(
            f"{where}: weights in KerasHub's format need h5py: pip install 'gpt2-wgpu[keras]'"
        ) from None
    return h5py


def _dtype(array: Any) -> str:
    """Return the name of a dataset's dtype; Keras stores bfloat16 as two bytes and an attribute."""
    dtype = str(array.dtype)
    if dtype == "|V2":
        name = array.attrs.get("dtype")
        return name if isinstance(name, str) and name == "bfloat16" else dtype
    return dtype


def array_paths(num_layers: int, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Return name → paths of the arrays that it is made of; ``prefix``: path of the backbone."""
    layers = f"{prefix}layers"
    paths: dict[str, tuple[str, ...]] = {
        "wte.weight": (f"{layers}/reversible_embedding/vars/0",),
        "wpe.weight": (f"{layers}/position_embedding/vars/0",),
    }
    kinds = ("weight", "bias")
    for i in range(num_layers):
        decoder = f"{layers}/transformer_decoder{f'_{i}' if i else ''}"
        for name, parts in _BLOCK.items():
            for index, kind in enumerate(kinds):
                paths[f"h.{i}.{name}.{kind}"] = tuple(
                    f"{decoder}/{part}/vars/{index}" for part in parts
                )
    for index, kind in enumerate(kinds):
        paths[f"ln_f.{kind}"] = (f"{layers}/layer_normalization/vars/{index}",)
    return paths


def keras_arrays(name: str, array: Any, num_heads: int) -> list[Any]:
    """Return the arrays of `array_paths` that a tensor with Hugging Face's name is made of."""
    import numpy as np

    if name.endswith("attn.c_attn.weight"):
        width = array.shape[0]
        return [each.reshape(width, num_heads, -1) for each in np.split(array, 3, axis=1)]
    if name.endswith("attn.c_attn.bias"):
        return [each.reshape(num_heads, -1) for each in np.split(array, 3)]
    if name.endswith("attn.c_proj.weight"):
        return [array.reshape(num_heads, -1, array.shape[1])]
    return [array]
