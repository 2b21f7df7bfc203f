"""Kernels of a model's first text on a page, compiled while its weights are uploaded.

Those of the embedded model are compiled earlier, before Python runs (`web/early-kernels.js`).
"""

from __future__ import annotations

import warnings

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.web_settings import Settings
from gpt2_wgpu.models.kernel_preparation import prepare_kernels
from gpt2_wgpu.models.loading import ModelFiles, stored_weights

FIRST_PROMPT, FIRST_TOKENS = "Once upon", 2  # of the text that warms up


async def prepare_first_text(
    files: ModelFiles, dtype: str | None, device: gw.Device | None = None
) -> None:
    """Ask for the kernels of loading and of the text that warms up, with default settings.

    ``device``: None: the default device.
    """
    assert files.preprocessor is not None  # a model of files has one
    device = device or await gw.webgpu.default_device_async()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # loading issues them
        stored = await stored_weights(files.config, files.weights, dtype, None)
    config, dtype, open_weights = stored
    options = Settings.of({}, {}).sampler.next_options()
    prompt = len(files.preprocessor.encode_prompts(FIRST_PROMPT)[0])
    sizes = prompt, prompt + FIRST_TOKENS
    await prepare_kernels(device, config, open_weights, options, *sizes, dtype)
