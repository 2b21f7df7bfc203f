"""``SavedCausalLM``: ``CausalLM`` that can be written to files."""

from __future__ import annotations

import os

from gpt2_wgpu.models.hooked_causal_lm import HookedCausalLM
from gpt2_wgpu.models.keras_config import backbone_object, causal_lm_object
from gpt2_wgpu.models.keras_saving import checked_file, save_keras
from gpt2_wgpu.webgpu import sync


class SavedCausalLM(HookedCausalLM):
    """``HookedCausalLM`` with ``save_to_preset`` and ``save``."""

    name: str

    def save_to_preset(self, preset_dir: str | os.PathLike[str]) -> None:
        """Write model and preprocessor into a directory; blocks (``save_to_preset_async``).

        Format, weights and errors as in ``GPT2Backbone.save_to_preset``.
        """
        sync(self.save_to_preset_async(preset_dir), "save_to_preset_async(...)")

    async def save_to_preset_async(self, preset_dir: str | os.PathLike[str]) -> None:
        """Async counterpart of :meth:`save_to_preset`."""
        await self.backbone.save_to_preset_async(
            preset_dir,
            preprocessor=self.preprocessor,
            generation=self.generation_settings.to_dict(
                self.token_rules, self.generation_defaults, self.generation_limits
            ),
        )

    save_pretrained = save_to_preset

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        *,
        save_format: str | None = None,
    ) -> None:
        """Write a ``.keras`` file, which ``load_model`` reads here and in Keras; blocks.

        It holds model and preprocessor, as in Keras without the sampler, and without the settings
        of ``generation_config.json``. Arguments, weights and errors as in ``GPT2Backbone.save``.
        """
        saving = self.save_async(filepath, overwrite, zipped, save_format=save_format)
        sync(saving, "save_async(...)")

    async def save_async(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        *,
        save_format: str | None = None,
    ) -> None:
        """Async counterpart of :meth:`save`."""
        path = checked_file(filepath, overwrite, zipped, save_format)
        backbone = backbone_object(self.backbone.get_config())
        saved = causal_lm_object(self.name, backbone, self.preprocessor)
        await save_keras(self.backbone.stored(), saved, self.preprocessor, path)
