"""Token and position embeddings, as layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.initializers import Initializer, check_initializer, initializer_config
from gpt2_wgpu.layers.layer import Layer, Shapes, weight_list
from gpt2_wgpu.layers.masks import attach_mask
from gpt2_wgpu.layers.packed_weights import (
    pack_matrix,
    pad_last_axis,
    padded_axis,
    unpack_matrix,
)
from gpt2_wgpu.nn import Axis, Matrix, embed, linear
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.tensors.ops.operands import full
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device


def token_ids(ids: Any, vocabulary_size: int, device: Device) -> tuple[Tensor, Tensor | None]:
    """Return ids as uint32, and for ids on the GPU which of them are in the vocabulary.

    Those that are not are replaced by 0. InvalidArgumentError for one in a list.
    """
    if isinstance(ids, Tensor):
        if ids.dtype not in ("int32", "uint32"):
            raise InvalidArgumentError(f"token ids must be int32 or uint32, not {ids}")
        as_uint32 = ops.cast(ids, "uint32")  # a negative id becomes a large one
        if ids.dtype == "int32":
            as_uint32 = ops.where(ops.less(ids, 0), _number(vocabulary_size, device), as_uint32)
        known = ops.less(as_uint32, _number(vocabulary_size, device))
        return ops.where(known, as_uint32, _number(0, device)), known
    pending = [ids.tolist() if hasattr(ids, "tolist") else ids]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, bool) or not isinstance(item, int):
            raise InvalidArgumentError(f"token id {shown(item)} is not an integer")
        elif not 0 <= item < vocabulary_size:
            raise InvalidArgumentError(f"token id {item} is outside 0 to {vocabulary_size - 1}")
    return tensor(ids, "uint32", device=device), None


def _number(value: int, device: Device) -> Tensor:
    return full(device, (), value, "uint32")


def no_rows(width: int, device: Device) -> Matrix:
    """Return a table [1, width] of zeros, for the other half of ``embed``."""
    return Matrix(((0, full(device, (1, width), 0.0)),), 1, width, "float32")


def looked_up(ids: Tensor, start: int, wte: Matrix, wpe: Matrix) -> Tensor:
    """Return ``embed`` of ids of any shape [..., T], from position ``start`` on."""
    tokens = ids.shape[-1]
    rows = ids.size // tokens if tokens else 0
    starts = full(ids.device, (rows,), start, "uint32")
    return embed(ids.view((rows, tokens)), starts, wte, wpe).view((*ids.shape, wte.in_features))


class ReversibleEmbedding(Layer):
    """Token embedding that can also project hidden states to logits (KerasHub's signature).

    Args:
        input_dim: number of token ids, V.
        output_dim: width of the embedding, D.
        tie_weights: whether the projection uses the embedding's weights.
        embeddings_initializer: name of Keras, or a function of shape and dtype; see `initializers`.
        mask_zero: whether id 0 is padding: results have the mask of :meth:`compute_mask` attached,
            which `TransformerDecoder` and `LayerNormalization` read and pass on, as in Keras.
        reverse_dtype: must be None or "float32", in which logits are computed.
        logit_soft_cap: logits become cap * tanh(logits / cap).
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: Initializer = "uniform",
        mask_zero: bool = False,
        reverse_dtype: str | None = None,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        for name in _UNSUPPORTED & kwargs.keys():
            if kwargs.pop(name) is not None:
                raise InvalidArgumentError(f"ReversibleEmbedding has no {name}: leave it out")
        super().__init__(**kwargs)
        if reverse_dtype not in (None, "float32"):
            raise InvalidArgumentError(
                f"reverse_dtype must be None or 'float32', not {shown(reverse_dtype)}"
            )
        self.mask_zero = bool(mask_zero)
        self.input_dim = integer("input_dim", input_dim, 1, 1 << 24)
        self.output_dim = integer("output_dim", output_dim, 1, 1 << 16)
        self.tie_weights, self.logit_soft_cap = bool(tie_weights), logit_soft_cap
        self.embeddings_initializer = check_initializer(embeddings_initializer)

    def __call__(self, inputs: Any, reverse: bool = False) -> Tensor:
        """Embed token ids [...], or project hidden states [..., D] with ``reverse``.

        Args:
            inputs: ids in lists or arrays, or an int32 or uint32 tensor; or hidden states.
            reverse: whether to project.

        Returns:
            [..., D]; NaN for an id outside of the vocabulary in a tensor, which only the GPU reads.
            With ``reverse`` logits [..., V].

        Raises:
            InvalidArgumentError: an id in a list is outside of the vocabulary.
            ShapeError: hidden states have another width.
        """
        self.build(())
        with tidy(self.name) as scope:
            wte, head = self._weights
            if reverse:
                x = self._input(inputs)
                if not x.shape or x.shape[-1] != self.output_dim:
                    raise ShapeError(
                        f"hidden states must be [..., {self.output_dim}], not {x.shape}"
                    )
                logits = linear(pad_last_axis(x), head)
                if (cap := self.logit_soft_cap) is not None:
                    logits = ops.mul(ops.tanh(ops.div(logits, cap)), cap)
                return scope.escape(logits)
            ids, known = token_ids(inputs, self.input_dim, self.device)
            flat = ids.view((1, ids.size))
            found = looked_up(flat, 0, wte, no_rows(wte.in_features, self.device))
            found = found.view((*ids.shape, wte.in_features))[..., : self.output_dim]
            if known is not None:
                found = ops.where(ops.expand_dims(known, -1), found, math.nan)
            return scope.escape(attach_mask(found, self.compute_mask(inputs)))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        """Return which ids are not 0, bool of the shape of ``inputs``; None without ``mask_zero``.

        Args:
            inputs: ids in lists or arrays, or an int32 or uint32 tensor.
            mask: without effect, as in Keras.
        """
        if not self.mask_zero:
            return None
        with tidy("compute_mask") as scope:
            ids = inputs
            if not isinstance(ids, Tensor):
                ids, _ = token_ids(ids, self.input_dim, self.device)
            return scope.escape(ops.not_equal(ids, 0))

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        shapes: Shapes = {"embeddings": (self.input_dim, self.output_dim)}
        if not self.tie_weights:
            shapes["reverse_embeddings"] = (self.output_dim, self.input_dim)
        return shapes

    def _initializers(self) -> Mapping[str, Initializer]:
        return dict.fromkeys(("embeddings", "reverse_embeddings"), self.embeddings_initializer)

    def _packed(self, values: dict[str, Tensor]) -> tuple[Matrix, Matrix]:
        axes = Axis.plain(self.input_dim), padded_axis(self.output_dim)
        wte = pack_matrix(values["embeddings"], self.dtype, *axes, transpose=False)
        if self.tie_weights:
            return wte, wte
        return wte, pack_matrix(values["reverse_embeddings"], self.dtype, *axes)

    def _unpacked(self) -> list[Tensor]:
        wte, head = self._weights
        axes = Axis.plain(self.input_dim), padded_axis(self.output_dim)
        table = ops.transpose(unpack_matrix(wte, *axes))
        return [table] if self.tie_weights else [table, unpack_matrix(head, *axes)]

    def _arguments(self) -> dict[str, Any]:
        return {
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "tie_weights": self.tie_weights,
            "embeddings_initializer": initializer_config(self.embeddings_initializer),
            "mask_zero": self.mask_zero,
            "logit_soft_cap": self.logit_soft_cap,
        }


class PositionEmbedding(Layer):
    """Learned position embedding (KerasHub's signature).

    Args:
        sequence_length: number of positions, P.
        initializer: name of Keras, or a function of shape and dtype; see `initializers`.
    """

    def __init__(
        self, sequence_length: int, initializer: Initializer = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sequence_length = integer("sequence_length", sequence_length, 1, 1 << 20)
        self.initializer = check_initializer(initializer)

    def __call__(self, inputs: Any, start_index: int = 0, positions: Any = None) -> Tensor:
        """Return the embeddings of the positions of ``inputs`` [..., T, D], of the same shape.

        Args:
            inputs: tensor or array, of which only the shape is used.
            start_index: position of the first element.
            positions: positions [T] or [B, T] instead.

        Raises:
            ContextLengthError: positions exceed the table.
        """
        with tidy(self.name) as scope:
            x = self._input(inputs)
            *outer, tokens, width = x.shape
            table = self._weights
            zeros = no_rows(table.in_features, self.device)
            if positions is not None:
                places, known = token_ids(positions, self.sequence_length, self.device)
                found = looked_up(places, 0, table, zeros)
                if known is not None:
                    found = ops.where(ops.expand_dims(known, -1), found, math.nan)
            else:
                first = check_positions(start_index, tokens, self.sequence_length)
                nothing = full(self.device, (1, tokens), 0, "uint32")
                found = looked_up(nothing, first, zeros, table)
            found = found.view(found.shape[1:]) if found.shape[0] == 1 and not outer else found
            return scope.escape(ops.broadcast_to(found[..., :width], x.shape))

    @property
    def position_embeddings(self) -> Tensor:
        """Copy of the table [sequence_length, D]; an assignment replaces the layer's."""
        (table,) = self.get_weights()
        return table

    @position_embeddings.setter
    def position_embeddings(self, table: Any) -> None:
        self.set_weights([table])

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        return {"embeddings": (self.sequence_length, input_shape[-1])}

    def _initializers(self) -> Mapping[str, Initializer]:
        return {"embeddings": self.initializer}

    def _packed(self, values: dict[str, Tensor]) -> Matrix:
        rows, width = values["embeddings"].shape
        axes = Axis.plain(rows), padded_axis(width)
        return pack_matrix(values["embeddings"], "float32", *axes, transpose=False)

    def _unpacked(self) -> list[Tensor]:
        rows, width = self._shapes["embeddings"]
        return [ops.transpose(unpack_matrix(self._weights, Axis.plain(rows), padded_axis(width)))]

    def _arguments(self) -> dict[str, Any]:
        return {
            "sequence_length": self.sequence_length,
            "initializer": initializer_config(self.initializer),
        }


class TokenAndPositionEmbedding(Layer):
    """Sum of token and position embedding (KerasHub's signature).

    Args:
        vocabulary_size: number of token ids.
        sequence_length: number of positions.
        embedding_dim: width.
        tie_weights, embeddings_initializer, mask_zero: as in `ReversibleEmbedding`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        sequence_length: int,
        embedding_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: Initializer = "uniform",
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings_initializer = embeddings_initializer
        own: dict[str, Any] = {"dtype": self.dtype, "device": self._device}
        self.token_embedding = ReversibleEmbedding(
            vocabulary_size, embedding_dim, tie_weights, embeddings_initializer, mask_zero,
            name="token_embedding", **own,
        )  # fmt: skip
        self.position_embedding = PositionEmbedding(
            sequence_length, embeddings_initializer, name="position_embedding", **own
        )
        self.vocabulary_size = self.token_embedding.input_dim
        self.sequence_length = self.position_embedding.sequence_length
        self.embedding_dim = self.token_embedding.output_dim

    def __call__(self, inputs: Any, start_index: int = 0, positions: Any = None) -> Tensor:
        """Embed token ids [..., T] at positions from ``start_index`` on, or ``positions``."""
        self.build(())
        with tidy(self.name) as scope:
            mask = self.compute_mask(inputs)
            if positions is not None:
                tokens = self.token_embedding(inputs)
                found = tokens + self.position_embedding(tokens, positions=positions)
                return scope.escape(attach_mask(found, mask))
            ids, known = token_ids(inputs, self.vocabulary_size, self.device)
            if not ids.ndim:
                raise ShapeError("token ids must be [..., T], not one id")
            first = check_positions(start_index, ids.shape[-1], self.sequence_length)
            wte, wpe = self.token_embedding._weights[0], self.position_embedding._weights
            found = looked_up(ids, first, wte, wpe)[..., : self.embedding_dim]
            if known is not None:
                found = ops.where(ops.expand_dims(known, -1), found, math.nan)
            return scope.escape(attach_mask(found, mask))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        """Return which ids are not 0, see `ReversibleEmbedding.compute_mask`."""
        return self.token_embedding.compute_mask(inputs, mask)

    def build(self, input_shape: Any = (), **shapes: Any) -> None:
        """Create the weights, whose shapes do not depend on the input's."""
        self.token_embedding.build(())
        self.position_embedding.build((None, self.embedding_dim))
        self.built = True

    def get_weights(self) -> list[Tensor]:
        """Return the weights of both layers."""
        return self.token_embedding.get_weights() + self.position_embedding.get_weights()

    def set_weights(self, weights: Any) -> None:
        """Replace the weights of both layers, see `Layer.set_weights`."""
        count = len(self.token_embedding.weight_names)
        weights = weight_list(weights)
        self.position_embedding.set_weights(weights[count:])
        self.token_embedding.set_weights(weights[:count])

    @property
    def weight_shapes(self) -> Shapes:
        """Shapes of the weights by their names in Keras."""
        layers = (self.token_embedding, self.position_embedding)
        return {
            f"{layer.name}/{name}": shape
            for layer in layers
            for name, shape in layer.weight_shapes.items()
        }

    def dispose(self) -> None:
        """Free the weights. Idempotent."""
        self.token_embedding.dispose()
        self.position_embedding.dispose()
        self.disposed = True

    def _arguments(self) -> dict[str, Any]:
        return {
            "vocabulary_size": self.vocabulary_size,
            "sequence_length": self.sequence_length,
            "embedding_dim": self.embedding_dim,
            "tie_weights": self.token_embedding.tie_weights,
            "mask_zero": self.token_embedding.mask_zero,
            "embeddings_initializer": initializer_config(self.embeddings_initializer),
        }


def check_positions(start: int, tokens: int, length: int) -> int:
    """Return ``start``; ContextLengthError if ``tokens`` positions from there exceed the table."""
    first = integer("start_index", start, 0, 1 << 20)
    if first + tokens > length:
        raise ContextLengthError(
            f"{tokens} positions from {first} on exceed the {length} of the embedding"
        )
    return first


_UNSUPPORTED = {
    "embeddings_regularizer", "embeddings_constraint", "activity_regularizer",
    "quantization_config",
}  # fmt: skip
