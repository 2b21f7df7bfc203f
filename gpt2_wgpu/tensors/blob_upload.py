"""Upload of browser blobs to the GPU, without a copy in Python's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt2_wgpu.tensors.tensor import Tensor, empty

if TYPE_CHECKING:
    from gpt2_wgpu.webgpu.device import Device


async def words_of_blob(device: Device, blob: Any, begin: int, end: int) -> Tensor:
    """Upload bytes [``begin``, ``end``) of a ``Blob`` as uint32, zero-padded.

    Raises:
        OSError: the blob cannot be read (e.g. its file has changed).
    """
    words = empty(device, (-(-(end - begin) // 4),), "uint32")
    try:
        await device.queue.upload_blob(words.storage, blob.slice(begin, end))
    except BaseException:
        words.dispose()
        raise
    return words
