"""Methods of ``GPT2CausalLM`` that evaluate given tokens: evaluation.py and scoring.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpt2_wgpu.models import evaluation, scoring
from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.evaluation import Divergence
from gpt2_wgpu.models.generation_details import check_details
from gpt2_wgpu.models.gpt2_backbone import Intercept
from gpt2_wgpu.models.recovery import with_recovery
from gpt2_wgpu.models.streamed_causal_lm import StreamedCausalLM
from gpt2_wgpu.models.token_details import token_details
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.validation import instance, optional_function
from gpt2_wgpu.webgpu import sync

Texts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


class EvaluatedCausalLM(StreamedCausalLM):
    """``StreamedCausalLM`` with scores, log-probabilities, perplexity, divergence and weights."""

    name: str

    @named("lm.score")
    def score(
        self,
        token_ids: Any,
        padding_mask: Any = None,
        scoring_mode: str = "logits",
        layer_intercept_fn: Intercept | None = None,
        target_ids: Any = None,
    ) -> Tensor:
        """Score token ids in one forward pass, without a cache.

        Args:
            token_ids: [B, T].
            padding_mask: [B, T], False for positions that are not attended to; default: all True.
            scoring_mode: "logits" or "loss".
            layer_intercept_fn: ``(x, i) -> x``, called with the hidden states [B, T, D] after the
                embedding (i = -1) and after each block (i = 0, 1, ...), which it may replace.
                Tensors that are used afterwards need ``gw.keep``.
            target_ids: [B, T], for the loss: the id to predict after each position.

        Returns:
            A tensor: logits [B, T, V], or the cross-entropy [B, T] of ``target_ids`` in nats.

        Raises:
            InvalidArgumentError: an unknown mode, a loss without targets, or invalid ids.
            ContextLengthError: T exceeds the context.
        """
        optional_function("layer_intercept_fn", layer_intercept_fn)
        arguments = (token_ids, padding_mask, scoring_mode, layer_intercept_fn, target_ids)
        return with_recovery(self.backbone, lambda: scoring.score(self.backbone, *arguments))

    @named("lm.logprobs")
    def logprobs(
        self,
        texts: Texts,
        stride: int | None = None,
        *,
        return_details: bool = False,
        top_logprobs: int = 0,
    ) -> Any:
        """Log-probabilities of the tokens of texts; blocks (``logprobs_async``).

        Args:
            texts: a text or texts, encoded like prompts; or ids, one row or several.
            stride: as in :meth:`perplexity`, for rows longer than the context.
            return_details: return ``TokenDetails`` (``token_id``, ``text``, ``logprob``, ``rank``,
                ``entropy``, ``top_logprobs``) in place of numbers.
            top_logprobs: number of the most likely ids in the details, at most 20.

        Returns:
            log p of each token except a row's first, given those before it, in nats: a list for
            one text or row, else a list for each. ``perplexity`` is exp of minus their mean.

        Raises:
            InvalidArgumentError, NumericalError: as in :meth:`perplexity`. The former also for
                ``top_logprobs`` out of range, or without ``return_details``.
        """
        waiting = self.logprobs_async(
            texts, stride, return_details=return_details, top_logprobs=top_logprobs
        )
        return sync(waiting, "logprobs_async(...)")

    @named("lm.logprobs")
    async def logprobs_async(
        self,
        texts: Texts,
        stride: int | None = None,
        *,
        return_details: bool = False,
        top_logprobs: int = 0,
    ) -> Any:
        """Async counterpart of :meth:`logprobs`."""
        instance("return_details", return_details, bool)
        check_details(return_details, top_logprobs, self)
        if not return_details:
            return await evaluation.logprobs(self, texts, stride)
        one, rows, found = await evaluation.predictions(self, texts, stride, top_logprobs)
        tokenizer = None if self.preprocessor is None else self.preprocessor.tokenizer
        pairs = zip(rows, found, strict=True)
        details = [token_details(tokenizer, ids, of_row) for ids, of_row in pairs]
        return details[0] if one else details

    @named("lm.perplexity")
    def perplexity(self, texts: Texts, stride: int | None = None) -> float:
        """Perplexity, exp of the mean -log p of the tokens; blocks (``perplexity_async``).

        Args:
            texts: a text or texts, encoded like prompts; rows of ids without a preprocessor.
            stride: step of the windows (models/evaluation.py), from 1 to the context; default:
                half the context.

        Raises:
            InvalidArgumentError: the stride is out of range, or there is no token to predict.
            NumericalError: logits are not finite.
        """
        return sync(self.perplexity_async(texts, stride), "perplexity_async(...)")

    @named("lm.perplexity")
    async def perplexity_async(self, texts: Texts, stride: int | None = None) -> float:
        """Async counterpart of :meth:`perplexity`."""
        return await evaluation.perplexity(self, texts, stride)

    def divergence(
        self, texts: Texts, reference: EvaluatedCausalLM, stride: int | None = None
    ) -> Divergence:
        """Divergence of the predictions from a reference model; blocks (``divergence_async``).

        Unlike perplexity it is meaningful for untrained models, too.

        Args:
            texts: as in :meth:`perplexity`.
            reference: e.g. the same model in float32; on the same device, with the same number of
                tokens.
            stride: as in :meth:`perplexity`.

        Returns:
            The mean Kullback-Leibler divergence KL(reference || self) per token in nats, and the
            fraction of tokens with the same most likely prediction. Errors: :meth:`perplexity`.
        """
        return sync(self.divergence_async(texts, reference, stride), "divergence_async(...)")

    async def divergence_async(
        self, texts: Texts, reference: EvaluatedCausalLM, stride: int | None = None
    ) -> Divergence:
        """Async counterpart of :meth:`divergence`."""
        instance("reference", reference, EvaluatedCausalLM)
        return await evaluation.divergence(self, reference, texts, stride)

    def get_weights(self) -> list[Tensor]:
        """Return all weights, as ``GPT2Backbone.get_weights``."""
        return self.backbone.get_weights()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights, as ``GPT2Backbone.set_weights``; blocks."""
        sync(self.set_weights_async(weights), "set_weights_async(...)")

    async def set_weights_async(self, weights: Sequence[Any]) -> None:
        """Async counterpart of :meth:`set_weights`."""
        await self.backbone.set_weights_async(weights)

    def count_params(self) -> int:
        """Return the number of values of the weights."""
        return self.backbone.count_params()

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print a table of the tokenizer and the layers with their numbers of parameters."""
        print_fn(self.backbone.described(self.preprocessor, self.name))
