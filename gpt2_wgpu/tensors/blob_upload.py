"""From a blob of the browser to the GPU, without passing through Python's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt2_wgpu.tensors.tensor import Tensor, empty

if TYPE_CHECKING:
    from gpt2_wgpu.webgpu.device import Device


async def words_of_blob(device: Device, blob: Any, begin: int, end: int) -> Tensor:
    """Bytes ``begin`` .. ``end`` of a blob (JavaScript's ``Blob``) as words, zeros at the end.

    Raises ``OSError`` when it cannot be read: a file that was picked may have changed since.
    """
    words = empty(device, (-(-(end - begin) // 4),), "uint32")
    try:
        await device.queue.upload_blob(words.storage, blob.slice(begin, end))
    except BaseException:
        words.dispose()
        raise
    return words
