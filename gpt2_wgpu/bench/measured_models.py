"""Models of the benchmark: a checkpoint, or GPT-2's shape with random weights (no download)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models import GPT2Backbone, GPT2CausalLM
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.default_dtype import default_dtype
from gpt2_wgpu.models.loading import open_preset
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu import Device

# Radford et al. 2019, table 2: layers, width. Heads have 64 elements, the context is 1,024.
SIZES = {"124M": (12, 768), "355M": (24, 1024), "774M": (36, 1280), "1558M": (48, 1600)}
HEAD = 64
VOCABULARY = 50_257
# With GPT-2's own 0.02 a random model repeats one token, and equal tokens would prove nothing; with
# 0.1 tokens vary, and the margin between the two best logits is sufficient.
INITIALIZER_RANGE = 0.1
SEED = 1


@dataclass(frozen=True)
class Preset:
    """Model of a preset name, directory or hub id; see ``GPT2CausalLM.from_preset``."""

    name: str

    async def config(self) -> GPT2Config:
        """Read the configuration alone."""
        return (await open_preset(self.name, None)).config

    async def load(
        self, dtype: str | None, device: Device, cache_dtype: str | None = None
    ) -> GPT2CausalLM:
        """Load the model, without a preprocessor."""
        return await GPT2CausalLM.from_preset_async(
            self.name, None, dtype, device, cache_dtype=cache_dtype
        )


@dataclass(frozen=True)
class RandomModel:
    """Random model: ``layers`` blocks of ``width``, a fixed seed, GPT-2's vocabulary."""

    name: str
    layers: int
    width: int

    @classmethod
    def parse(cls, text: str) -> RandomModel:
        """Parse "124M", "355M", "774M", "1558M" or "LAYERSxWIDTH" (width: a multiple of 64).

        Raises:
            InvalidArgumentError: another text.
        """
        size = SIZES.get(text)
        if size is None and re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,4}", text):
            layers, _, width = text.partition("x")
            size = (int(layers), int(width))
        if size is None or size[1] % HEAD:
            raise InvalidArgumentError(
                f"{shown(text)} is not a model size: use {', '.join(SIZES)}, or LAYERSxWIDTH with "
                f"a width that is a multiple of {HEAD}, such as 2x64 (up to 9999x99968)"
            )
        return cls(f"random {text}", *size)

    async def config(self) -> GPT2Config:
        """Return the configuration."""
        return GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.width // HEAD,
        )

    async def load(
        self, dtype: str | None, device: Device, cache_dtype: str | None = None
    ) -> GPT2CausalLM:
        """Create the model, without a preprocessor."""
        config = await self.config()
        backbone = GPT2Backbone(
            config.vocab_size,
            config.n_layer,
            config.n_head,
            config.n_embd,
            4 * config.n_embd,
            dtype=dtype or await default_dtype(device, config),
            cache_dtype=cache_dtype,
            device=device,
            seed=SEED,
            initializer_range=INITIALIZER_RANGE,
        )
        return GPT2CausalLM(backbone)


Model = Preset | RandomModel
