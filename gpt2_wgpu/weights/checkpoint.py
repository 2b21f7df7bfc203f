"""Checkpoint directory in Hugging Face's format: one safetensors file, or shards with an index."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.other_formats import weights_instead
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.weights.closing import Closing
from gpt2_wgpu.weights.header import TensorEntry
from gpt2_wgpu.weights.safetensors import SafetensorsFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"(model|pytorch_model)-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)
_MOST_SHARDS = 1000
T = TypeVar("T")


class WeightSource(Protocol):
    """Protocol of a source of tensors: `Checkpoint` (a directory) or `BlobCheckpoint` (browser)."""

    @property
    def where(self) -> str:
        """Name of this source in messages (a directory or URL)."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free-form metadata of the files."""

    @property
    def disagreements(self) -> Sequence[str]:
        """Contradictions between files, one sentence each, with the one that is used."""

    def names(self) -> Iterable[str]:
        """Return the names of all tensors."""

    def entry(self, name: str) -> TensorEntry:
        """Return dtype, shape and byte range of a tensor; WeightsError for an unknown name."""

    def read(self, name: str) -> memoryview | BlobRange:
        """Return a tensor's bytes (format ``B``) or their range in a blob.

        Raises:
            WeightsError: the tensor does not exist.
        """


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Byte range [``begin``, ``end``) of a blob; see `gpt2_wgpu.weights.blobs`."""

    blob: Any
    begin: int
    end: int


class Checkpoint(Closing):
    """`WeightSource` over the memory-mapped files of a directory; created by `open`.

    After `close`, existing views stay valid and `read` raises, as in `SafetensorsFile`.
    """

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, SafetensorsFile],
        weight_map: Mapping[str, str] | None = None,
    ) -> None:
        """Combine opened files (file name → file); see `open`.

        Raises:
            WeightsError: a tensor of ``weight_map`` is in none of them.
        """
        self.directory = directory
        self._files = tuple(files.values())
        tensors = {name: file.tensors for name, file in files.items()}
        file_names, self.disagreements = file_of_tensors(tensors, str(directory), weight_map or {})
        self._file_of = {name: files[file_name] for name, file_name in file_names.items()}

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Checkpoint:
        """Open ``model.safetensors``, or else the shards of ``model.safetensors.index.json``.

        Only headers are read. As in transformers, the single file takes precedence over shards,
        and the last shard over others with the same tensor; `disagreements` lists these cases.
        Shards without an index are read if none is missing.

        Raises:
            WeightsError: there are no safetensors weights, a shard is missing, a tensor of the
                index is in no shard, or a file violates the format.
        """
        directory = Path(directory)
        with ExitStack() as opened:  # closes the files if a later one is invalid
            there = _file_names(directory)
            weight_map: dict[str, str] = {}
            if SINGLE_FILE not in there and INDEX_FILE in there:
                weight_map = parsed_file(directory / INDEX_FILE, parse_index)
            files = {
                name: opened.enter_context(SafetensorsFile(directory / name))
                for name in weight_files(there, weight_map, str(directory))
            }
            checkpoint = cls(directory, files, weight_map)
            if {SINGLE_FILE, INDEX_FILE} <= there:
                checkpoint.disagreements = (
                    f"{directory}: {SINGLE_FILE} is read, and {INDEX_FILE} beside it with its "
                    "shards is not; delete what is out of date",
                )
            opened.pop_all()
        return checkpoint

    @property
    def where(self) -> str:
        """The directory, for messages."""
        return str(self.directory)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The files' ``__metadata__``; if shards differ, that of the last one."""
        return {key: value for file in self._files for key, value in file.metadata.items()}

    @property
    def nbytes(self) -> int:
        """Total size of all tensors in bytes."""
        return sum(entry.nbytes for file in self._files for entry in file.tensors.values())

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors, in the order of their bytes."""
        return tuple(self._file_of)

    def entry(self, name: str) -> TensorEntry:
        """Return dtype, shape and byte range (in its file) of a tensor.

        Raises:
            WeightsError: the tensor does not exist.
        """
        return self._file(name).tensors[name]

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes as a read-only view of the mapped file, without a copy.

        Raises:
            WeightsError: the tensor does not exist, or the checkpoint is closed.
        """
        return self._file(name).read(name)

    def close(self) -> None:
        """Close all files. Idempotent."""
        for file in self._files:
            file.close()

    def _file(self, name: str) -> SafetensorsFile:
        try:
            return self._file_of[name]
        except KeyError:
            raise WeightsError(f"{self.directory}: there is no tensor {shown(name)}") from None


def file_of_tensors(
    files: Mapping[str, Mapping[str, TensorEntry]], where: str, weight_map: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Map each tensor to the file to read it from.

    transformers loads one file after the other, so the last occurrence of a tensor is used,
    independent of the file that the index states for it; this function does the same.

    Args:
        files: file name → its tensors, sorted by name.
        where: name of the checkpoint in messages.
        weight_map: tensor name → file name, from the index; empty without an index.

    Returns:
        Tensor name → file name, and a sentence for each contradiction.

    Raises:
        WeightsError: a tensor of the index is in no file.
    """
    file_of: dict[str, str] = {}
    twice: dict[tuple[str, str], list[str]] = {}
    for file_name, tensors in files.items():
        for name in tensors:
            if (other := file_of.get(name)) is not None:
                twice.setdefault((other, file_name), []).append(name)
            file_of[name] = file_name
    elsewhere: dict[tuple[str, str], list[str]] = {}
    for name, file_name in weight_map.items():
        if (actual := file_of.get(name)) is None:
            raise WeightsError(
                f"{where}/{INDEX_FILE}: tensor {shown(name)} should be in {file_name}, "
                "but is not; download the checkpoint again"
            )
        if name not in files[file_name]:
            elsewhere.setdefault((file_name, actual), []).append(name)
    return file_of, (
        *(
            f"{where}: {listed(names, 2)} in both {other} and {file_name}: the latter is read, and "
            "one of the two files is probably out of date"
            for (other, file_name), names in twice.items()
        ),
        *(
            f"{where}: {listed(names, 2)} in {actual}, which is read, and not in {file_name}, as "
            f"{INDEX_FILE} has it"
            for (file_name, actual), names in elsewhere.items()
        ),
    )


def weight_files(there: Collection[str], weight_map: Mapping[str, str], where: str) -> list[str]:
    """Return the names of the weight files among the names of existing files, ``there``.

    Raises:
        WeightsError: there are no supported weights, or shards are missing.
    """
    if SINGLE_FILE in there:
        return [SINGLE_FILE]
    if weight_map:
        shards = sorted(set(weight_map.values()))
        missing = [shard for shard in shards if shard not in there]
        if missing:
            raise WeightsError(
                f"{where}: {len(missing)} of {len(shards)} shards are missing: "
                f"{listed(missing, 3)}; download them into the directory"
            )
        return shards
    shards, missing = _numbered_shards(there)
    if shards and not missing:
        return shards
    if shards:
        raise WeightsError(
            f"{where}: {listed(shards, 3)} {'is' if len(shards) == 1 else 'are'} there without the "
            f"index {INDEX_FILE}, and {listed(missing, 3)} missing; download the checkpoint again"
        )
    raise WeightsError(f"{where}: {weights_instead(there)}")


def _numbered_shards(there: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the existing and the missing shards of a set numbered by file name."""
    found = [match for name in there if (match := _SHARD.fullmatch(name))]
    if not found:
        return [], []
    stem, _, total = found[0].groups()
    if int(total) > _MOST_SHARDS or any(match[1] != stem or match[3] != total for match in found):
        return [], []
    names = [f"{stem}-{number:05d}-of-{total}.safetensors" for number in range(1, int(total) + 1)]
    shards = [name for name in names if name in there]
    return shards, [name for name in names if name not in there]


def _file_names(directory: Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir() if path.exists()}
    except FileNotFoundError:
        raise WeightsError(f"{directory}: no such directory") from None
    except OSError as error:
        raise WeightsError(f"{directory}: cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL, or a lone surrogate
        raise WeightsError(f"{shown(str(directory))} is not a valid directory name") from None


def shard_names(index: Path) -> tuple[str, ...]:
    """Return the file names that an index file refers to, sorted.

    Raises:
        WeightsError: the index cannot be read or is malformed.
    """
    return tuple(sorted(set(parsed_file(index, parse_index).values())))


def weights_there(directory: Path) -> tuple[str, ...]:
    """Return the weight files of a directory, the index last."""
    there = _file_names(directory)
    shards = {name for name in there if name == SINGLE_FILE or _SHARD.fullmatch(name)}
    with suppress(WeightsError):  # an unreadable index has no shards
        shards |= there & set(shard_names(directory / INDEX_FILE))
    return (*sorted(shards), *({INDEX_FILE} & there))


def parsed_file(path: Path, parse: Callable[[bytes, str], T]) -> T:
    """Return ``parse(content, path)`` of a small file; WeightsError if it cannot be read."""
    try:
        return parse(small_files.read(path), str(path))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def parse_index(data: bytes, path: str) -> dict[str, str]:
    """Return the ``weight_map`` (tensor name → shard) of an index file.

    Raises:
        WeightsError: the index is malformed, or a shard is not in its directory.
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
    """Return whether this is a bare file name: no directory or drive, on any system."""
    return (
        isinstance(value, str)
        and value.endswith(".safetensors")
        and not value.startswith(".")
        and not any(character in value for character in "/\\:\0")
    )
