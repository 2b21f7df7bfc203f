"""Corpus of malicious and damaged files, and of other file types, with the expected errors."""

from __future__ import annotations

from gpt2_wgpu.weights.header import MAX_HEADER_BYTES
from tests.weights.building import json_file, raw_file, tensor

ONE = '"dtype":"U8","shape":[1],"data_offsets":[0,1]'


def text_file(header: str, data: bytes = b"\0") -> bytes:
    """A file with this header; ``@`` is replaced by the body of a correct entry."""
    return raw_file(header.replace("@", ONE).encode(), data)


def entry_with(**changes: object) -> bytes:
    """One U8 tensor [4] in 4 bytes, some keys of it replaced."""
    return json_file({"a": {**tensor(0, 4), **changes}}, bytes(4))


# case → (file, what the message must hold)
ATTACKS: dict[str, tuple[bytes, str]] = {
    # rule 1: the length
    "empty": (b"", r"empty \(0 bytes\)"),
    "seven bytes": (bytes(7), r"7 bytes is too short"),
    "length beyond the file": (raw_file(b"{}", length=3), r"length 3 does not fit .*\(10 bytes\)"),
    "length of 2^64-1": (
        b"\xff" * 8 + b"{}",
        r"18,446,744,073,709,551,615 is above the limit of 100,000,000",
    ),
    "length of the limit and one": (
        raw_file(b"{}", length=MAX_HEADER_BYTES + 1),
        r"100,000,001 is above the limit",
    ),
    "length of the limit, file too short": (
        raw_file(b"{}", length=MAX_HEADER_BYTES),
        r"100,000,000 does not fit",
    ),
    "no header at all": (raw_file(b""), r"starts with b''"),
    # rule 2: the text
    "leading space": (raw_file(b" {}"), r"starts with b' \{\}'"),
    "byte order mark": (raw_file(b"\xef\xbb\xbf{}"), r"starts with b'\\xef"),
    "an array": (raw_file(b"[]"), r"starts with b'\[\]'"),
    "trailing newline": (raw_file(b"{}\n"), r"ends with"),
    "trailing tab after spaces": (raw_file(b"{}  \t"), r"ends with"),
    "trailing NUL": (raw_file(b"{}\0\0"), r"ends with"),
    "two objects": (raw_file(b"{}{}"), r"not JSON \(Extra data at character 2\)"),
    "not UTF-8": (raw_file(b'{"\xff":1}'), r"not UTF-8 at byte 2"),
    "surrogate bytes": (raw_file(b'{"\xed\xa0\x80":1}'), r"not UTF-8"),
    "cut JSON": (raw_file(b'{"a":{}'), r"not JSON"),
    "control character in a name": (raw_file(b'{"a\nb":1}'), r"not JSON"),
    "trailing comma": (text_file('{"a":{@},}'), r"not JSON"),
    # rule 3: keys
    "tensor twice": (text_file('{"a":{@},"a":{@}}'), r"key 'a' appears twice"),
    "tensor twice, once escaped": (
        text_file('{"a":{@},"\\u0061":{@}}'),
        r"key 'a' appears twice",
    ),
    "key of an entry twice": (text_file('{"a":{"dtype":"U8",@}}'), r"'dtype' appears twice"),
    "metadata twice": (
        text_file('{"__metadata__":{},"__metadata__":{},"a":{@}}'),
        r"'__metadata__' appears twice",
    ),
    "metadata key twice": (
        raw_file(b'{"__metadata__":{"a":"","a":""}}'),
        r"'a' appears twice",
    ),
    "metadata number": (json_file({"__metadata__": {"a": 1}}), r"__metadata__ must map .*'a': 1"),
    "metadata nested": (json_file({"__metadata__": {"a": {}}}), r"__metadata__ must map"),
    "metadata null": (json_file({"__metadata__": None}), r"__metadata__ must map .*None"),
    "metadata list": (json_file({"__metadata__": ["a"]}), r"__metadata__ must map"),
    # rule 4: the entries
    "entry is a list": (json_file({"a": [1]}, b"\0"), r"tensor 'a' must have exactly .*\[1\]"),
    "entry is null": (json_file({"a": None}), r"tensor 'a' must have exactly"),
    "entry without shape": (
        json_file({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"\0"),
        r"must have exactly .*got \['data_offsets', 'dtype'\]",
    ),
    "entry with a fourth key": (entry_with(extra=1), r"must have exactly .*'extra'"),
    "unknown dtype": (entry_with(dtype="F33"), r"'a' has unknown dtype 'F33'"),
    "dtype in lower case": (entry_with(dtype="u8"), r"unknown dtype 'u8'"),
    "dtype is a number": (entry_with(dtype=1), r"unknown dtype 1"),
    "dtype is a list": (entry_with(dtype=["U8"]), r"unknown dtype \['U8'\]"),
    "shape is a number": (entry_with(shape=4), r"has shape 4;"),
    "shape is null": (entry_with(shape=None), r"has shape None;"),
    "shape is a string": (entry_with(shape="4"), r"has shape '4';"),
    "bool dimension": (
        json_file({"a": {**tensor(0, 1), "shape": [True]}}, b"\0"),
        r"has shape \[True\];",
    ),
    "float dimension": (entry_with(shape=[4.0]), r"has shape \[4\.0\];"),
    "exponent dimension": (
        text_file('{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}'),
        r"has shape \[1\.0\];",
    ),
    "string dimension": (entry_with(shape=["4"]), r"has shape \['4'\];"),
    "negative dimension": (entry_with(shape=[-4]), r"has shape \[-4\];"),
    "two negative dimensions": (entry_with(shape=[-2, -2]), r"has shape \[-2, -2\];"),
    "minus zero": (
        text_file('{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', b""),
        r"has shape \[-0\.0\];",
    ),
    "dimension of 2^63": (entry_with(shape=[2**63]), r"has shape \[9223372036854775808\];"),
    "dimension of 2^64+4": (entry_with(shape=[2**64 + 4]), r"has shape"),
    "product wraps to 4": (entry_with(shape=[2**62, 2**2, 4]), r"overflows 64 bits"),
    "product wraps to 0": (entry_with(shape=[2**32, 2**32], data_offsets=[0, 0]), r"overflows"),
    "product overflows before a zero": (
        entry_with(shape=[2**40, 2**40, 0], data_offsets=[0, 0]),
        r"overflows",
    ),
    "product of many": (entry_with(shape=[2**62] * 5000), r"overflows"),
    # rule 5: the range
    "one offset": (entry_with(data_offsets=[4]), r"data_offsets \[4\];"),
    "three offsets": (entry_with(data_offsets=[0, 4, 4]), r"data_offsets \[0, 4, 4\];"),
    "bool offset": (
        json_file({"a": {**tensor(0, 1), "data_offsets": [False, True]}}, b"\0"),
        r"data_offsets \[False, True\];",
    ),
    "float offset": (entry_with(data_offsets=[0, 4.0]), r"data_offsets"),
    "negative offset": (entry_with(data_offsets=[-4, 0]), r"data_offsets \[-4, 0\];"),
    "offsets as an object": (entry_with(data_offsets={"0": 0}), r"data_offsets"),
    "backwards": (entry_with(data_offsets=[4, 0]), r"in descending order: \[4, 0\]"),
    "too few bytes for the shape": (
        entry_with(shape=[5]),
        r"U8 and shape \[5\], which takes 5 bytes, .* span 4",
    ),
    "too many bytes for the shape": (entry_with(shape=[3]), r"takes 3 bytes, .* span 4"),
    "too few bytes for the dtype": (entry_with(dtype="F32"), r"takes 16 bytes, .* span 4"),
    "a 1000 x 1000 tensor in 4 bytes": (
        entry_with(dtype="F32", shape=[1000, 1000]),
        r"takes 4000000 bytes, .* span 4",
    ),
    "half a byte": (
        json_file({"a": tensor(0, 1, [3], "F4")}, b"\0"),
        r"takes 1\.5 bytes, .* span 1",
    ),
    "beyond the file": (
        json_file({"a": tensor(0, 5)}, bytes(4)),
        r"'a' ends at byte \d+ of a file of \d+ bytes; the download is incomplete",
    ),
    "2^60 bytes in a small file": (
        json_file({"a": tensor(0, 2**60)}, bytes(4)),
        r"the download is incomplete",
    ),
    # rule 6: coverage
    "overlap": (
        json_file({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)),
        r"'a' and tensor 'b' overlap of 2 bytes",
    ),
    "the same range twice": (
        json_file({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
        r"'a' and tensor 'b' overlap of 4 bytes",
    ),
    "a hundred tensors in one range": (
        json_file({f"t{i:02}": tensor(0, 4) for i in range(100)}, bytes(4)),
        r"'t00' and tensor 't01' overlap",
    ),
    "one inside the other": (
        json_file({"b": tensor(1, 2), "a": tensor(0, 4)}, bytes(4)),
        r"'a' and tensor 'b' overlap of 3 bytes",
    ),
    "empty tensor inside another": (
        json_file({"a": tensor(0, 4), "b": tensor(2, 2)}, bytes(4)),
        r"'a' and tensor 'b' overlap of 2 bytes",
    ),
    "hole": (
        json_file({"a": tensor(0, 2), "b": tensor(4, 6)}, bytes(6)),
        r"'a' and tensor 'b' leave a hole of 2 bytes",
    ),
    "hole at the start": (
        json_file({"a": tensor(2, 4)}, bytes(4)),
        r"the header and tensor 'a' leave a hole of 2 bytes",
    ),
    "tail": (json_file({"a": tensor(0, 4)}, bytes(9)), r"5 bytes after tensor 'a' belong to no"),
    "data without tensors": (json_file({}, b"\0"), r"1 bytes after the header belong to no"),
    # rule 8: what Python's json lets through
    "NaN": (text_file('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}'), r"NaN is not"),
    "Infinity": (text_file('{"__metadata__":{"a":Infinity}}'), r"Infinity is not JSON"),
    "minus Infinity": (text_file('{"a":-Infinity}'), r"-Infinity is not JSON"),
    "5,000 digits": (
        text_file('{"a":{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,1]}}'),
        r"integer of 5000 digits",
    ),
    "1e400": (
        text_file('{"a":{"dtype":"U8","shape":[1e400],"data_offsets":[0,1]}}'),
        r"has shape \[inf\];",
    ),
    "nested lists": (
        text_file('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
        r"nested too deeply",
    ),
    "nested objects": (
        text_file('{"a":' * 100_000 + "1" + "}" * 100_000),
        r"nested too deeply",
    ),
    "lone surrogate in a name": (
        text_file('{"a\\ud800":{@}}'),
        r"lone surrogate in string 'a\\ud800'",
    ),
    "lone surrogate in a value": (
        text_file('{"__metadata__":{"a":"\\udc00"}}', b""),
        r"lone surrogate",
    ),
}

OTHER_KINDS: dict[str, tuple[bytes, str]] = {
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 548105171\n",
        r"Git LFS pointer, not weights; run 'git lfs pull'",
    ),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", r"web page, not weights"),
    "web page after blank lines": (b"\n\n  <html>\n<body>login</body></html>", r"web page"),
    "web page with a byte order mark": (b"\xef\xbb\xbf<!doctype html><p>", r"web page"),
    "tiny web page": (b"<html>", r"web page"),
    "XML error": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', r"an XML page"),
    "JSON error": (b'{"error":"Repository not found"}', r"server's error message"),
    "PyTorch zip": (
        b"PK\x03\x04\0\0\x08\x08\0\0" + bytes(50),
        r"zip file.*save_pretrained",
    ),
    "old PyTorch pickle": (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        r"pickle.*convert",
    ),
    "GGUF": (b"GGUF\x03\0\0\0\x94\0\0\0\0\0\0\0", r"this is a GGUF file"),
    "Keras HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), r"HDF5"),
}
