"""Reproducible random mutations of bytes and JSON values."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

MAX_BYTES = 1 << 16

WORDS = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"\\", b"\0", b"\n", b"\r\n",
    b" ", b"\t", b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e400", b"1" * 70, b"0.5",
    b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80",
    b'"dtype":"F32",', b'"shape":[1],', b'"data_offsets":[0,1]', b'"__metadata__":{}',
    b'"weight_map":{}', b"model.safetensors", b"../", b"/", b"\\\\", b"@", b"hf://", b"https://",
    b"#version: 0.2\n", b"<|endoftext|>", "Ġ".encode(), "Ċ".encode(), b"a b\n", b'"id":', b"~",
]  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 255, 50256, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
    2**64, 10**30, 10**70, -(2**63), 0.0, -0.0, 0.5, 1.5, 1e-320, 1e400, -1e400, float("nan"), "",
    " ", "a", "ab", "\0", "\n", "\ud800", "é", "\u2028", "😀", "x" * 300, "gpt2", "bert", "F32",
    "U8", "BPE", "ByteLevel", "Sequence", "../a.safetensors", "a.safetensors", "<|endoftext|>", [],
    {}, [0], [[]], [0, 0], [0] * 200, ["a", "b"], {"a": 0}, {"": {}}, {"type": "ByteLevel"},
]  # fmt: skip

PREFIXES = ["transformer.", "module.", "_orig_mod.", "model.", "x", ""]
_TWICE = "\u0001"  # the end of a key that is to be written as the key before it


class Mutator:
    """Makes new inputs from known ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def changed(self, data: bytes, others: Sequence[bytes], start: int = 0) -> bytes:
        """``data`` with one to four changes; as JSON, where it is that, or as plain bytes.

        JSON begins at ``start``; the 8 bytes before it are its length (safetensors).
        """
        chance = self.random
        if chance.random() < 0.6 and (tree := self._tree(data, start)) is not None:
            head, body = data[:start], self._json(tree)
            if start:
                length = int.from_bytes(head, "little")
                body += data[start + length :]
                header = len(body) - len(data[start + length :])
                head = header.to_bytes(8, "little")
            data = head + body
            if chance.random() < 0.7:
                return data[:MAX_BYTES]
        for _ in range(chance.choice([1, 1, 2, 4])):
            data = self._bytes(data, others)
        return data[:MAX_BYTES]

    # --- bytes ------------------------------------------------------------------------------------

    def _bytes(self, data: bytes, others: Sequence[bytes]) -> bytes:
        chance = self.random
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice([1, 1, 2, 4, 8, 30, 300]))
        match chance.randrange(8):
            case 0:
                return data[:at] + chance.randbytes(end - at) + data[end:]
            case 1:
                return data[:at] + data[end:]
            case 2:
                return data[:end] + data[at:]
            case 3:
                return data[:at]
            case 4:
                other = chance.choice(others)
                return data[:at] + other[chance.randrange(len(other) + 1) :]
            case 5 if at < len(data):
                return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            case 6:
                return (
                    data[:at] + chance.choice(WORDS) * chance.choice([1, 1, 1, 3, 70]) + data[at:]
                )
        return data[:at] + chance.choice(WORDS) + data[end:]

    # --- JSON -------------------------------------------------------------------------------------

    def _tree(self, data: bytes, start: int) -> Any:
        length = int.from_bytes(data[:start], "little") if start else len(data)
        body = data[start : start + length]
        if body[:1] not in (b"{", b"["):
            return None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None

    def _json(self, tree: Any) -> bytes:
        holders = list(_containers(tree))
        for _ in range(self.random.choice([1, 1, 1, 2, 5])):
            self._change(self.random.choice(holders), holders)
        try:
            text = json.dumps(tree, ensure_ascii=self.random.random() < 0.5)
        except (ValueError, RecursionError):  # a value put into itself
            return b"[" * 100
        return text.replace("\\u0001", "").encode("utf-8", "surrogatepass")

    def _change(self, holder: Any, holders: list[Any]) -> None:
        chance = self.random
        value = chance.choice(VALUES)
        if chance.random() < 0.2:
            value = chance.choice(holders)
        if isinstance(value, list | dict):
            value = value.copy()
        places = list(holder) if isinstance(holder, dict) else range(len(holder))
        action = chance.randrange(4) if places else 3
        if isinstance(holder, dict) and places and chance.random() < 0.2:
            key = chance.choice(places)
            holder[chance.choice(PREFIXES) + key + chance.choice(["", "", "x"])] = holder.pop(key)
        elif action == 0:
            del holder[chance.choice(places)]
        elif action == 3:
            if isinstance(holder, list):
                holder.insert(chance.randrange(len(holder) + 1), value)
            elif places and chance.random() < 0.4:
                holder[chance.choice(places) + _TWICE] = value
            else:
                holder[str(chance.choice(VALUES))] = value
        else:
            holder[chance.choice(places)] = value


def _containers(value: Any) -> list[Any]:
    """The lists and objects of a JSON value, itself first."""
    found = [value]
    for holder in found:
        inner = holder.values() if isinstance(holder, dict) else holder
        found += [item for item in inner if isinstance(item, list | dict)]
    return found
