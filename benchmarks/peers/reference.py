"""What the right tokens are: transformers' own forward pass in f32 on the CPU, without a cache."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPT2LMHeadModel


class Reference:
    """GPT-2 as Hugging Face defines it. ``directory``: config.json and model.safetensors."""

    def __init__(self, directory: Path) -> None:
        self._model = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.inference_mode()
    def continue_greedily(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """``count`` likeliest tokens, and the smallest gap between the two best logits on the way.

        A second pass over the whole text must give the same tokens as the steps with a cache.
        """
        tokens: list[int] = []
        cache, margins = None, []
        new = torch.tensor([ids])
        for _ in range(count):
            out = self._model(new, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            best = out.logits[0, -1].topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
            new = best.indices[None, :1]
        if any(self.regrets(ids, tokens)):
            raise SystemExit("the reference disagrees with itself: with and without its cache")
        return tokens, min(margins)

    @torch.inference_mode()
    def regrets(self, ids: list[int], tokens: list[int]) -> list[float]:
        """By how much each token's logit misses the best one, given all tokens before it."""
        logits = self._model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]  # (n, V)
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        return (logits.max(dim=1).values - chosen).tolist()
