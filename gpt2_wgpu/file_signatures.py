"""Detection of wrong file types by their magic bytes, with a remedy for each."""

from __future__ import annotations

_DOWNLOAD = "download it again"
_CHECK = f"check the address and your access, then {_DOWNLOAD}"
_CONVERT = "convert it with transformers' save_pretrained()"
_OTHER_FORMAT = "download the checkpoint in Hugging Face's format"
_KINDS_OF_START = (  # start of the file in lower case, what it is, what to do
    (b"version https://git-lfs", "a Git LFS pointer", "run 'git lfs pull' in its directory"),
    (b"<!doctype", "a web page", _CHECK),
    (b"<html", "a web page", _CHECK),
    (b"<?xml", "an XML page", _CHECK),
    (b'{"', "JSON text, perhaps a server's error message", _DOWNLOAD),
    (b"pk\x03\x04", "a PyTorch zip file", _CONVERT),
    (b"\x80\x02", "a Python pickle", _CONVERT),
    (b"\x80\x04", "a Python pickle", _CONVERT),
    (b"gguf", "a GGUF file", _OTHER_FORMAT),
    (b"\x89hdf\r\n", "an HDF5 file", _OTHER_FORMAT),
)


def fault(start: bytes | memoryview, wanted: str) -> str | None:
    """Return the actual type of a file and the remedy, as a phrase; None if it is not recognised.

    Args:
        start: the first bytes of the file, at least 8 unless it is shorter; empty for an empty
            file.
        wanted: the expected type: "weights", "merges" or "JSON" (accepts JSON).
    """
    if not len(start):
        return f"the file is empty (0 bytes); {_DOWNLOAD}"
    text = bytes(start[:256]).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, kind, remedy in _KINDS_OF_START:
        # A streaming reader may have 8 bytes only, which are enough for every signature.
        compared = min(len(signature), max(len(text), 2))
        if text[:compared] == signature[:compared] and not kind.startswith(wanted):
            return f"this is {kind}, not {wanted}; {remedy}"
    return None
