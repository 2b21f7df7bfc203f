"""Reference tokens: transformers' forward pass in f32 on the CPU, without a cache."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPT2LMHeadModel


class Reference:
    """GPT-2 of transformers. ``directory``: config.json and model.safetensors."""

    def __init__(self, directory: Path) -> None:
        self._model = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.inference_mode()
    def continue_greedily(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """Return ``count`` greedy tokens, and the smallest gap between the two best logits.

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
        """Return the gap between each token's logit and the best one, given all tokens before."""
        logits = self._model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]  # (n, V)
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        return (logits.max(dim=1).values - chosen).tolist()
