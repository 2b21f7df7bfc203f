"""Layers of a backbone, with KerasHub's names, over the backbone's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2_wgpu.errors import BusyError, DisposedTensorError, InvalidArgumentError
from gpt2_wgpu.layers import (
    LayerNormalization,
    PositionEmbedding,
    ReversibleEmbedding,
    TransformerDecoder,
)
from gpt2_wgpu.layers.layer import Layer
from gpt2_wgpu.models.backbone_loading import LoadedBackbone
from gpt2_wgpu.models.given_weights import given_weights
from gpt2_wgpu.models.prediction import predicted
from gpt2_wgpu.models.summary import layer_rows, summary_of
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, dispose, tidy
from gpt2_wgpu.webgpu import sync


class LayeredBackbone(LoadedBackbone):
    """Base class of ``GPT2Backbone``: its layers, as objects.

    They are made when they are asked for and share the weights, so that they hold no memory. After
    a device loss, or when weights are replaced, ask for them again.
    """

    weights_version = 0  # number of times that set_weights has replaced the weights
    _is_setting_weights = False

    @property
    def token_embedding(self) -> ReversibleEmbedding:
        """Token embedding; with ``reverse=True`` the head."""
        weights, config = self.weights, self.config
        return ReversibleEmbedding.of_model(
            (weights.wte, weights.lm_head), self.device, (), name="token_embedding",
            dtype=self.dtype, input_dim=config.vocab_size, output_dim=config.n_embd,
            tie_weights=config.tie_word_embeddings,
        )  # fmt: skip

    @property
    def position_embedding(self) -> PositionEmbedding:
        """Position embedding."""
        return PositionEmbedding.of_model(
            self.weights.wpe, self.device, (None, self.config.n_embd), name="position_embedding",
            sequence_length=self.config.n_positions,
        )  # fmt: skip

    @property
    def transformer_layers(self) -> list[TransformerDecoder]:
        """The transformer blocks."""
        config = self.config
        return [
            TransformerDecoder.of_model(
                block, self.device, (None, None, config.n_embd), name=f"transformer_layer_{i}",
                dtype=self.dtype, intermediate_dim=config.intermediate_dim,
                num_heads=config.n_head, dropout=self.dropout,
                activation=config.activation_function, normalize_first=True,
                layer_norm_epsilon=config.layer_norm_epsilon, scale=self.attention_scale(i),
            )
            for i, block in enumerate(self.weights.blocks)
        ]  # fmt: skip

    @property
    def layer_norm(self) -> LayerNormalization:
        """The final norm."""
        return LayerNormalization.of_model(
            self.weights.ln_f, self.device, (None, self.config.n_embd), name="layer_norm",
            epsilon=self.config.layer_norm_epsilon,
        )  # fmt: skip

    @property
    def layers(self) -> list[Layer]:
        """All layers, in the order in which they compute."""
        embeddings = (self.token_embedding, self.position_embedding)
        return [*embeddings, *self.transformer_layers, self.layer_norm]

    def get_layer(self, name: str) -> Layer:
        """Return the layer of this name; InvalidArgumentError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise InvalidArgumentError(f"no layer is called {shown(name)}: there are {names}")

    def get_weights(self) -> list[Tensor]:
        """Return all weights as float32 tensors, in the shapes and the order of KerasHub."""
        with tidy("get_weights") as scope:
            return scope.escape([value for layer in self.layers for value in layer.get_weights()])

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights by tensors or arrays in the shapes and the order of KerasHub; blocks.

        They are stored in the model's dtype, and kept in host memory, too, from which they are
        loaded again after a device loss. Running generations end with an error.

        Raises:
            InvalidArgumentError: no sequence, or a value is no number; then nothing changes.
            ShapeError: number or shapes differ; then nothing changes.
            BusyError: another call is replacing the weights.
        """
        sync(self.set_weights_async(weights), "set_weights_async(...)")

    async def set_weights_async(self, weights: Sequence[Any]) -> None:
        """Async counterpart of :meth:`set_weights`."""
        self.check_usable()
        if self._is_setting_weights:
            raise BusyError("another call of set_weights is replacing the weights: wait for it")
        before = self._open_weights
        self._is_setting_weights = True
        try:
            given = await given_weights(self.layers, self.config, self.device, weights)
            self._open_weights = given
            new = await self.load(self.device)
        except BaseException:
            self._open_weights = before
            raise
        finally:
            self._is_setting_weights = False
        old, self.weights, self.adapted = self.weights, new, None
        self.weights_version += 1
        dispose(old)

    def check_weights(self, version: int) -> None:
        """Raise DisposedTensorError unless the weights are those of ``version``."""
        if version != self.weights_version:
            raise DisposedTensorError(
                "the model's weights were replaced while it generated: begin again"
            )

    def count_params(self) -> int:
        """Return the number of values of the weights: 124,439,808 of the smallest GPT-2."""
        return self.config.parameter_count()

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print a table of the layers with their numbers of parameters."""
        print_fn(self.described())

    def described(self, preprocessor: Any = None, title: str | None = None) -> str:
        """Return the table that `summary` prints."""
        self.check_usable()
        rows = layer_rows(self.layers)
        total = f"{self.count_params():,} parameters, {self.dtype}, {self.device.info.name}"
        return summary_of(f"Model: {title or self.name}", rows, total, preprocessor)

    def attention_scale(self, layer: int) -> float:
        """Factor of the attention scores of a block."""
        config = self.config
        scale = 1 / math.sqrt(config.head_dim) if config.scale_attn_weights else 1.0
        return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale

    def predict(self, x: Mapping[str, Any], batch_size: int = 32) -> Any:
        """Return the hidden states as a NumPy array, computed in batches; blocks.

        Args:
            x: ``{"token_ids", "padding_mask"}`` [N, T], as for a call.
            batch_size: rows that are computed together.
        """
        return predicted(self, x, batch_size)

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        """Hidden states; see ``GPT2Backbone``."""
        raise NotImplementedError
