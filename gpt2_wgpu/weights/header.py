"""Strict parser of the safetensors header, from the first bytes of a file.

Layout (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian N, then N bytes
of JSON, then the tensors' bytes. This parser is as strict as the specification, unlike the
reference parser: it rejects repeated keys, unknown keys in an entry, and bytes outside of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2_wgpu import file_signatures, strict_json
from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.shown import shown

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
_MAX_COUNT = 2**63 - 1

#: Every dtype of the format, with its size in bits.
DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its bytes are ``file[begin:end]`` (little-endian, C order).

    ``begin`` is relative to the start of the file and may be unaligned. ``transposed`` is not part
    of the file: see `gpt2_wgpu.weights.naming.resolve`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    transposed: bool = False

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """A validated header: tensors in the order of their bytes, and free-form metadata.

    ``data_begin`` is the file offset of the first tensor (8 + N).
    """

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_begin: int


def header_length(prefix: bytes | memoryview, file_size: int, where: str) -> int:
    """Return N, the length of the JSON, from the first 8 bytes (more give better messages).

    Raises:
        WeightsError: the file is empty or too short, or N is impossible; the message names a
            recognised other file type (a Git LFS pointer, a web page, a pickle, ...).
    """
    if file_size < LENGTH_BYTES:
        _reject_other_types(prefix, where)
        raise WeightsError(
            f"{where}: {file_size} bytes is too short for safetensors (at least 8); "
            "download it again"
        )
    if len(prefix) < LENGTH_BYTES:
        raise InvalidArgumentError(f"header_length needs 8 bytes of {where}, got {len(prefix)}")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        _reject_other_types(prefix, where)
        raise WeightsError(
            f"{where}: header length {length:,} is above the limit of {MAX_HEADER_BYTES:,} bytes "
            f"(file size {file_size:,}); this is not a safetensors file"
        )
    if LENGTH_BYTES + length > file_size:
        _reject_other_types(prefix, where)
        raise WeightsError(
            f"{where}: header length {length:,} does not fit into the file ({file_size:,} bytes); "
            "the download is incomplete or this is not a safetensors file"
        )
    return length


def parse_header(prefix: bytes | memoryview, file_size: int, where: str) -> Header:
    """Parse and validate a header.

    Args:
        prefix: the start of the file, at least its first 8 + N bytes (see `header_length`).
        file_size: size of the whole file in bytes.
        where: name of the file in messages.

    Raises:
        WeightsError: the format is violated; the message names file, tensor and value.
        InvalidArgumentError: ``prefix`` is shorter than 8 + N bytes.
    """
    length = header_length(prefix, file_size, where)
    data_begin = LENGTH_BYTES + length
    if len(prefix) < data_begin:
        raise InvalidArgumentError(
            f"parse_header needs the first {data_begin:,} bytes of {where}, got {len(prefix):,}"
        )
    entries = _parse_json(prefix, data_begin, where)
    metadata = _checked_metadata(entries.pop("__metadata__", {}), where)
    tensors = [_checked_entry(name, entry, data_begin, where) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_coverage(tensors, data_begin, file_size, where)
    return Header({tensor.name: tensor for tensor in tensors}, metadata, data_begin)


def _parse_json(prefix: bytes | memoryview, data_begin: int, where: str) -> dict[str, object]:
    raw = bytes(prefix[LENGTH_BYTES:data_begin])
    if not raw.startswith(b"{"):
        _reject_other_types(prefix, where)
        raise WeightsError(
            f"{where}: the header starts with {raw[:8]!r}, not with '{{'; "
            "this is not a safetensors file"
        )
    if not raw.rstrip(b" ").endswith(b"}"):
        raise WeightsError(
            f"{where}: the header ends with {raw[-8:]!r}, not with '}}' and spaces; "
            "the file is damaged, download it again"
        )
    try:
        value = strict_json.parse(raw)
    except ValueError as error:
        raise WeightsError(f"{where}: the header is not valid: {error}") from None
    if not isinstance(value, dict):  # unreachable, as the text starts with '{'; narrows the type
        raise WeightsError(f"{where}: the header is not a JSON object")
    return value


def _checked_metadata(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise WeightsError(f"{where}: __metadata__ must map strings to strings, got {shown(value)}")
    return value


def _checked_entry(name: str, entry: object, data_begin: int, where: str) -> TensorEntry:
    label = f"{where}: tensor {shown(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        got = sorted(entry) if isinstance(entry, dict) else entry
        raise WeightsError(
            f"{label} must have exactly dtype, shape and data_offsets, got {shown(got)}"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise WeightsError(f"{label} has unknown dtype {shown(dtype)}")
    if not _is_list_of_counts(shape):
        raise WeightsError(
            f"{label} has shape {shown(shape)}; it must be a list of integers from 0 to 2^63-1"
        )
    if not _is_list_of_counts(offsets) or len(offsets) != 2:
        raise WeightsError(
            f"{label} has data_offsets {shown(offsets)}; they must be two integers from 0 to 2^63-1"
        )
    begin, end = offsets
    if end < begin:
        raise WeightsError(f"{label} has data_offsets in descending order: [{begin}, {end}]")
    if (bits := _size_in_bits(shape, DTYPE_BITS[dtype])) is None:
        raise WeightsError(f"{label} has shape {shown(shape)}: its size overflows 64 bits")
    if bits != 8 * (end - begin):
        raise WeightsError(
            f"{label} has dtype {dtype} and shape {shown(shape)}, which takes "
            f"{bits / 8:.10g} bytes, but data_offsets [{begin}, {end}] span {end - begin}"
        )
    return TensorEntry(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def _is_list_of_counts(value: object) -> bool:
    # type() rather than isinstance(): True is an int to isinstance.
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= _MAX_COUNT for item in value
    )


def _size_in_bits(shape: list[int], bits: int) -> int | None:
    """Return the size of a shape; None if it exceeds 64 bits (the exact product may be huge)."""
    for dimension in shape:
        bits *= dimension
        if bits > 8 * _MAX_COUNT:
            return None
    return bits


def _check_coverage(
    tensors: list[TensorEntry], data_begin: int, file_size: int, where: str
) -> None:
    """Check that tensors, sorted by ``begin``, cover the data without gaps or overlaps."""
    if tensors and (last := max(tensors, key=lambda tensor: tensor.end)).end > file_size:
        raise WeightsError(
            f"{where}: tensor {shown(last.name)} ends at byte {last.end:,} of a file of "
            f"{file_size:,} bytes; the download is incomplete, download it again"
        )
    position, before = data_begin, "the header"
    for tensor in tensors:
        name = f"tensor {shown(tensor.name)}"
        if tensor.begin != position:
            fault = "overlap" if tensor.begin < position else "leave a hole"
            raise WeightsError(
                f"{where}: {before} and {name} {fault} of {abs(tensor.begin - position):,} bytes; "
                "the file is damaged or hostile"
            )
        position, before = tensor.end, name
    if position != file_size:
        raise WeightsError(
            f"{where}: {file_size - position:,} bytes after {before} belong to no tensor; "
            "the file is damaged or hostile"
        )


def _reject_other_types(prefix: bytes | memoryview, where: str) -> None:
    """Raise WeightsError if the file is empty or has the magic bytes of another file type."""
    if bytes(prefix[4:LENGTH_BYTES]) == bytes(4):
        return  # a header length below 4 GiB: its low bytes may resemble any magic bytes
    if fault := file_signatures.fault(prefix, "weights"):
        raise WeightsError(f"{where}: {fault}")
