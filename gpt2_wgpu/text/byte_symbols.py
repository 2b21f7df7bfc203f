"""Byte symbols: GPT-2's printable characters for the 256 bytes.

Vocabulary files are text, so each byte is written as one printable character: printable bytes as
themselves, the other 68 as U+0100, U+0101, ... in order (a space is "Ġ", a newline "Ċ").
"""

from __future__ import annotations

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1),
              *range(ord("®"), ord("ÿ") + 1)]  # fmt: skip
_HIDDEN = [byte for byte in range(256) if byte not in set(_PRINTABLE)]

GPT2_BYTE_ORDER: tuple[int, ...] = (*_PRINTABLE, *_HIDDEN)
"""The bytes of token ids 0, 1, ... 255 in GPT-2's own vocabulary."""

SYMBOL_TO_BYTE: dict[str, int] = {
    **{chr(byte): byte for byte in _PRINTABLE},
    **{chr(0x100 + index): byte for index, byte in enumerate(_HIDDEN)},
}
"""Symbol → byte, in the order of ``GPT2_BYTE_ORDER``."""

BYTE_TO_SYMBOL: dict[int, str] = {byte: symbol for symbol, byte in SYMBOL_TO_BYTE.items()}


def symbols_to_bytes(token: str) -> bytes:
    """Return the bytes of a vocabulary entry.

    An entry with a character outside the alphabet (e.g. a special token that contains a space) is
    encoded as UTF-8, as in Hugging Face's ByteLevel decoder.
    """
    try:
        return bytes([SYMBOL_TO_BYTE[symbol] for symbol in token])
    except KeyError:
        return token.encode("utf-8")
