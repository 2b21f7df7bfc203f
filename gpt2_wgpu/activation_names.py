"""Names of activation functions."""

from __future__ import annotations

from collections.abc import Mapping

#: Hugging Face's activation names (``ACT2FN``) → formula.
#: ``gelu_tanh`` is 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), ``gelu_erf`` x Phi(x),
#: ``quick_gelu`` x sigmoid(1.702 x), ``silu`` x sigmoid(x).
ACTIVATION_KINDS: Mapping[str, str] = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
