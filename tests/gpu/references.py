"""NumPy references in float64, following the papers rather than the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[float])


def random(*shape, seed=0, scale=1.0):
    """float32 normal values, the same for the same shape and seed."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return np.asarray(values * scale, np.float32)


def sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


# By the names of ops.elementwise.ACTIVATIONS.
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: 0.5 * x * _erfc(-x / np.sqrt(2)),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
}


def activation(kind, x):
    return ACTIVATIONS[kind](np.asarray(x, np.float64))


def softmax(x, axis=-1):
    powers = np.exp(np.asarray(x, np.float64) - np.max(x, axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    shifted = np.asarray(x, np.float64) - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def layer_norm(x, weight, bias, epsilon=1e-5):
    x = np.asarray(x, np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + epsilon) * weight + bias


def top_k(x, k):
    """Values and places, largest first, the first of equals first."""
    order = np.argsort(-np.asarray(x, np.float64), axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(x, order, -1), order


def attention(query, key, value, mask=None, causal=False, scale=None):
    """[B, T, H, D], [B, S, H, D], [B, S, H, E] → [B, T, H, E]; mask broadcasts to [B, H, T, S]."""
    query, key, value = (np.asarray(part, np.float64) for part in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = np.einsum("bthd,bshd->bhts", query, key) * scale
    if mask is not None:
        scores = np.where(np.broadcast_to(mask, scores.shape) != 0, scores, -1e9)
    if causal:
        t, s = scores.shape[-2:]
        scores = np.where(np.tri(t, s, s - t, dtype=bool), scores, -1e38)
    return np.einsum("bhts,bshe->bthe", softmax(scores), value)
