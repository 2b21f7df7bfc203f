"""A checkpoint directory in Hugging Face's format: one safetensors file, or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.header import TensorEntry
from gpt2_wgpu.weights.safetensors import SafetensorsFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_NAMED_IN_MESSAGES = 3


class WeightSource(Protocol):
    """Where a model's tensors come from: a `Checkpoint` on disk, or a browser's download."""

    @property
    def where(self) -> str:
        """What messages call this source (a directory, an address)."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The free-form metadata of its files."""

    def names(self) -> Iterable[str]:
        """Names of all tensors."""

    def entry(self, name: str) -> TensorEntry:
        """Dtype, shape and place of a tensor; raises WeightsError for an unknown name."""

    def read(self, name: str) -> memoryview | BlobRange:
        """A tensor's bytes, format ``B``, or where they lie in a blob.

        Raises WeightsError for an unknown name.
        """


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Bytes ``begin`` .. ``end`` of a blob, see `gpt2_wgpu.weights.blobs`."""

    blob: Any
    begin: int
    end: int


class Checkpoint:
    """The tensors of a directory: a `WeightSource` over mapped files. Make one with `open`.

    Closing follows `SafetensorsFile`: views stay valid, further reads are refused.
    """

    def __init__(self, directory: Path, files: Mapping[str, SafetensorsFile]) -> None:
        """Join files (file name → opened file); `open` is the usual way.

        Raises:
            WeightsError: two files hold a tensor of the same name.
        """
        self.directory = directory
        self._files = tuple(files.values())
        tensors = {name: file.tensors for name, file in files.items()}
        file_names = file_of_tensors(tensors, str(directory))
        self._file_of = {name: files[file_name] for name, file_name in file_names.items()}

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Checkpoint:
        """Open ``model.safetensors``, or else the shards of ``model.safetensors.index.json``.

        Only headers are read. Where both exist the single file is taken, as transformers does.

        Raises:
            WeightsError: there are no safetensors weights, a shard is missing, the index does not
                fit the shards, or a file breaks a rule of the format.
        """
        directory = Path(directory)
        with ExitStack() as opened:  # closes the files again if a later one is refused
            if (directory / SINGLE_FILE).exists():
                weight_map = {}
                file_names = [SINGLE_FILE]
            elif (directory / INDEX_FILE).exists():
                weight_map = _read_index(directory / INDEX_FILE)
                file_names = sorted(set(weight_map.values()))
                _require_shards(directory, file_names)
            else:
                raise WeightsError(_explain_absence(directory))
            files = {
                name: opened.enter_context(SafetensorsFile(directory / name)) for name in file_names
            }
            checkpoint = cls(directory, files)
            tensors = {name: file.tensors for name, file in files.items()}
            check_weight_map(weight_map, tensors, str(directory / INDEX_FILE))
            opened.pop_all()
        return checkpoint

    @property
    def where(self) -> str:
        """The directory, as messages name it."""
        return str(self.directory)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The files' ``__metadata__``; of shards that disagree, the last one's."""
        return {key: value for file in self._files for key, value in file.metadata.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(entry.nbytes for file in self._files for entry in file.tensors.values())

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in the order of the files' bytes."""
        return tuple(self._file_of)

    def entry(self, name: str) -> TensorEntry:
        """Dtype, shape and place (in its own file) of a tensor.

        Raises:
            WeightsError: there is no such tensor.
        """
        return self._file(name).tensors[name]

    def read(self, name: str) -> memoryview:
        """A tensor's bytes as a read-only view of the mapped file, without a copy.

        Raises:
            WeightsError: there is no such tensor, or the checkpoint has been closed.
        """
        return self._file(name).read(name)

    def close(self) -> None:
        """Close every file. Idempotent."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _file(self, name: str) -> SafetensorsFile:
        try:
            return self._file_of[name]
        except KeyError:
            raise WeightsError(f"{self.directory}: there is no tensor {shown(name)}") from None


def file_of_tensors(files: Mapping[str, Mapping[str, TensorEntry]], where: str) -> dict[str, str]:
    """Tensor name → file name, of file name → its tensors.

    Raises:
        WeightsError: two files hold a tensor of the same name.
    """
    file_of: dict[str, str] = {}
    for file_name, tensors in files.items():
        for name in tensors:
            other = file_of.setdefault(name, file_name)
            if other != file_name:
                raise WeightsError(
                    f"{where}: tensor {shown(name)} is in both {other} and {file_name}; "
                    "download the checkpoint again"
                )
    return file_of


def check_weight_map(
    weight_map: Mapping[str, str], files: Mapping[str, Mapping[str, TensorEntry]], where: str
) -> None:
    """Raises WeightsError unless each tensor is in the file that the index names."""
    for name, file_name in weight_map.items():
        if name not in files[file_name]:
            raise WeightsError(
                f"{where}: tensor {shown(name)} should be in {file_name}, "
                "but is not; download the checkpoint again"
            )


def shard_names(index: Path) -> tuple[str, ...]:
    """Return the file names that an index file refers to, sorted.

    Raises:
        WeightsError: the index cannot be read or is malformed.
    """
    return tuple(sorted(set(_read_index(index).values())))


def _read_index(path: Path) -> dict[str, str]:
    try:
        return parse_index(small_files.read(path), str(path))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def parse_index(data: bytes, path: str) -> dict[str, str]:
    """The ``weight_map`` (tensor name → shard) of an index file, which messages call ``path``.

    Raises:
        WeightsError: it is malformed, or names a shard that is not beside it.
    """
    try:
        index = strict_json.parse(data)
    except ValueError as error:
        raise WeightsError(f"{path}: the index is not valid: {error}") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: the index must hold a non-empty object 'weight_map'")
    for name, shard in weight_map.items():
        if not _is_shard_name(shard):
            raise WeightsError(
                f"{path}: tensor {shown(name)} is mapped to {shown(shard)}; "
                "a shard is a .safetensors file next to the index"
            )
    return weight_map


def _is_shard_name(value: object) -> bool:
    """Whether this is a bare file name: no directory, no drive, on any system."""
    return (
        isinstance(value, str)
        and value.endswith(".safetensors")
        and not value.startswith(".")
        and not any(character in value for character in "/\\:\0")
    )


def _require_shards(directory: Path, shards: list[str]) -> None:
    missing = [shard for shard in shards if not (directory / shard).exists()]
    if missing:
        more = ", ..." if len(missing) > _NAMED_IN_MESSAGES else ""
        raise WeightsError(
            f"{directory}: {len(missing)} of {len(shards)} shards are missing: "
            f"{', '.join(missing[:_NAMED_IN_MESSAGES])}{more}; download them into the directory"
        )


def _explain_absence(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory}: no such directory"
    if any(directory.glob("pytorch_model*.bin")):
        return (
            f"{directory}: pytorch_model.bin is a pickle, which can run code and is not read here; "
            'convert it once where transformers is installed: python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained({str(directory)!r})"
            f'.save_pretrained({str(directory)!r})"'
        )
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    if others:
        return (
            f"{directory}: there is no {SINGLE_FILE} or {INDEX_FILE}, only "
            f"{', '.join(others[:_NAMED_IN_MESSAGES])}; rename the file that holds the model"
        )
    return f"{directory}: there is no {SINGLE_FILE} or {INDEX_FILE} in this directory"
