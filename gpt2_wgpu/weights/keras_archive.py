"""Models that Keras saved: ``.keras`` files, zips of a configuration, weights and tokenizer files.

Entries are read by fixed names, and the configuration is data: nothing of the file is executed or
extracted by a name of its own.
"""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.checkpoint_files import CONFIG, MERGES, VOCABULARIES, WHOLE_TOKENIZER
from gpt2_wgpu.errors import ConfigError, PresetError, WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.closing import Closing
from gpt2_wgpu.weights.presets import looks_like_path

SUFFIX = ".keras"
METADATA = "metadata.json"
WEIGHTS_FILE = "model.weights.h5"
#: Folder of the tokenizer's files.
ASSETS = "assets/preprocessor/tokenizer"
BACKBONE, CAUSAL_LM = "GPT2Backbone", "GPT2CausalLM"
PREPROCESSOR = "GPT2CausalLMPreprocessor"
#: Class → path of the backbone's weights in ``model.weights.h5``.
PREFIXES = {BACKBONE: "", CAUSAL_LM: "layers/gpt2_backbone/"}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and of extra fields
_ENCRYPTED = 1
# The others of zipfile, bzip2 and LZMA, unpack to more bytes at a time than were asked for.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FAULTS = (
    zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, RuntimeError, ValueError,
    struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class SavedModel:
    """What the configuration of a ``.keras`` file describes; objects as Keras serialises them."""

    class_name: str
    config: Mapping[str, Any]  # arguments of the class
    backbone: Mapping[str, Any]
    preprocessor: Mapping[str, Any] | None


def keras_file(name: object) -> Path | None:
    """Return the path of an existing ``.keras`` file, with ``~`` expanded; None for other names.

    Raises:
        PresetError: a path has the suffix, and there is no file.
    """
    if not isinstance(name, str | os.PathLike):
        return None
    text = os.fspath(name)
    if not isinstance(text, str) or not text.endswith(SUFFIX):
        return None
    try:
        path = os.path.expanduser(text)
    except ValueError:  # a NUL in the name
        return None
    if os.path.exists(path):
        return None if os.path.isdir(path) else Path(path)
    if "://" not in text and ("/" not in text or looks_like_path(text)):
        raise PresetError(f"no such file: {shown(text)}")
    return None


class KerasArchive(Closing):
    """A ``.keras`` file, open for reading.

    Raises:
        WeightsError: the file cannot be read, or is no zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would block
                raise WeightsError(f"{path}: this is not a regular file")
            self._file = path.open("rb")
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            self._zip = zipfile.ZipFile(self._file)
        except BaseException as error:
            self._file.close()
            if isinstance(error, (*_FAULTS, OSError)):
                raise self._fault(
                    f"it is damaged, or not a model that Keras saved ({shown(str(error))})"
                ) from None
            raise

    def read(self, name: str) -> bytes:
        """Return all bytes of an entry; WeightsError if it is missing, damaged or too large."""
        entry = self._entry(name)
        try:
            small_files.check_size(entry.file_size)
        except ValueError as error:
            raise self._fault(f"{name}: {error}") from None
        try:
            with self._zip.open(entry) as file:
                data = file.read(entry.file_size + 1)
        except (*_FAULTS, OSError) as error:
            raise self._fault(f"{name} is damaged ({shown(str(error))})") from None
        if len(data) != entry.file_size:
            raise self._fault(f"{name} is damaged: {len(data):,} of {entry.file_size:,} bytes")
        return data

    def weights(self) -> io.RawIOBase:
        """Return ``model.weights.h5`` as a file, which can be read until `close`.

        Keras stores it without compression, so that its size is bounded by the file's own.

        Raises:
            WeightsError: the entry is missing, compressed or damaged.
        """
        entry = self._entry(WEIGHTS_FILE)
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise self._fault(
                f"{WEIGHTS_FILE} is compressed: Keras stores it uncompressed (zip -0)"
            )
        end, header = os.fstat(self._file.fileno()).st_size, b""
        if 0 <= entry.header_offset < end:
            self._file.seek(entry.header_offset)
            header = self._file.read(_LOCAL_HEADER.size)
        signature, name, extra = _LOCAL_HEADER.unpack(header.ljust(_LOCAL_HEADER.size, b"\0"))
        begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
        if signature != b"PK\3\4" or begin + entry.file_size > end:
            raise self._fault(f"{WEIGHTS_FILE} is damaged or cut off")
        return _Window(self._file, begin, entry.file_size)

    def saved(self) -> SavedModel:
        """Return what ``config.json`` describes.

        Raises:
            ConfigError: it is malformed, or of another class than GPT-2's of KerasHub.
            WeightsError: the entry cannot be read.
        """
        try:
            values = strict_json.parse(self.read(CONFIG))
        except ValueError as error:
            if isinstance(error, WeightsError):
                raise
            raise ConfigError(f"{self.path}: {CONFIG}: {error}") from None
        name, config = _serialised(values)
        if not isinstance(name, str) or name not in PREFIXES or config is None:
            raise ConfigError(
                f"{self.path} holds a {shown(name)} of Keras; only {CAUSAL_LM} and {BACKBONE} of "
                "KerasHub are supported"
            )
        if name == BACKBONE:
            assert isinstance(values, dict)
            return SavedModel(name, config, values, None)
        backbone, preprocessor = config.get("backbone"), config.get("preprocessor")
        kind, arguments = _serialised(backbone)
        if not isinstance(backbone, dict) or kind != BACKBONE or arguments is None:
            what = "is no" if kind != BACKBONE else "lacks the config of a"
            raise ConfigError(f"{self.path}: the model's backbone {what} {BACKBONE} of KerasHub")
        if preprocessor is not None:
            kind, arguments = _serialised(preprocessor)
            if kind != PREPROCESSOR or arguments is None:
                raise ConfigError(
                    f"{self.path}: the model's preprocessor is a {shown(kind)}; only "
                    f"{PREPROCESSOR} is supported"
                )
        return SavedModel(name, config, backbone, preprocessor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._zip.close()
        self._file.close()

    def _entry(self, name: str) -> zipfile.ZipInfo:
        found = [entry for entry in self._zip.infolist() if entry.filename == name]
        if len(found) != 1:
            raise self._fault(
                f"{name} is there {len(found)} times"
                if found
                else f"there is no {name}, so this is not a model that Keras saved"
            )
        (entry,) = found
        if entry.flag_bits & _ENCRYPTED:
            raise self._fault(f"{name} is encrypted")
        if entry.compress_type not in _BOUNDED:
            raise self._fault(
                f"{name} has compression method {entry.compress_type}, which is not supported: "
                "only stored (0) and deflated (8) are"
            )
        return entry

    def _fault(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path}: {what}")


def _serialised(values: object) -> tuple[object, dict[str, Any] | None]:
    """Return class name and arguments of a serialised object of Keras."""
    if not isinstance(values, dict):
        return None, None
    config = values.get("config")
    return values.get("class_name"), config if isinstance(config, dict) else None


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, SavedModel]]:
    """Yield a temporary directory with the model's files except weights, and what they describe.

    The directory has the names of KerasHub's ``save_to_preset``; without a preprocessor it has no
    tokenizer. Messages of errors that are raised in the ``with`` block should not name it: see
    ``models.loading``.

    Raises:
        ConfigError, WeightsError: the file is malformed, or holds another model.
    """
    with KerasArchive(path) as archive, TemporaryDirectory() as folder:
        saved, directory = archive.saved(), Path(folder)
        (directory / CONFIG).write_text(json.dumps(saved.backbone))
        if saved.preprocessor is not None:
            (directory / "preprocessor.json").write_text(json.dumps(saved.preprocessor))
            tokenizer = saved.preprocessor["config"].get("tokenizer")
            (directory / WHOLE_TOKENIZER).write_text(json.dumps(tokenizer))
            assets = directory / "assets" / "tokenizer"
            assets.mkdir(parents=True)
            for name in (VOCABULARIES[1], MERGES):
                # Keras writes an empty file for a tokenizer without merges.
                (assets / name).write_bytes(archive.read(f"{ASSETS}/{name}") or b"\n")
        yield directory, saved


class _Window(io.RawIOBase):
    """Bytes [begin, begin + size) of a file, which has one reader at a time."""

    def __init__(self, file: io.BufferedReader, begin: int, size: int) -> None:
        super().__init__()
        self._file, self._begin, self._size, self._position = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._begin + self._position)
        done = self._file.readinto(view[:count])
        self._position += done
        return done
