"""From a blob of the browser to the GPU, without passing through Python's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt2_wgpu.gpu.tensor import Tensor, empty

if TYPE_CHECKING:
    from gpt2_wgpu.gpu.device import Device

PIECE = 4 << 20  # bytes in JavaScript's memory at a time; a multiple of 4


async def words_of_blob(device: Device, blob: Any, begin: int, end: int) -> Tensor:
    """Bytes ``begin`` .. ``end`` of a blob (JavaScript's ``Blob``) as words, zeros at the end.

    Raises what reading the blob raises: a file that was picked may have changed since.
    """
    words = empty(device, (-(-(end - begin) // 4),), "uint32")
    whole = end - (end - begin) % 4
    try:
        for at in range(begin, whole, PIECE):
            piece = await blob.slice(at, min(at + PIECE, whole)).arrayBuffer()
            device.queue.upload_piece(words.storage, at - begin, piece)
        if whole < end:
            rest = await blob.slice(whole, end).arrayBuffer()
            device.queue.upload(words.storage, whole - begin, rest.to_bytes())
    except BaseException:
        words.dispose()
        raise
    return words
