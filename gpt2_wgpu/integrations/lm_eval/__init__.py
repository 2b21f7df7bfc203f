"""Model class of EleutherAI's lm-evaluation-harness, under the name ``gpt2-wgpu``.

    pip install 'gpt2-wgpu[lm-eval]'
    python -m gpt2_wgpu.integrations.lm_eval run --model gpt2-wgpu --tasks lambada_openai

Importing this module registers the class. Its results are those of lm-eval's ``hf``: texts are
encoded without a start token, special tokens in them are recognised, and a context that is too
long is cut on the left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    Collator,
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.evaluation import token_logprobs
from gpt2_wgpu.models.packed_ids import new_ids, packed
from gpt2_wgpu.sampling_parameters import SAMPLER_PARAMETERS, TIME_LIMIT_SECONDS
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, sync

SCORED_AT_ONCE = 64  # rows between two steps of the progress bar
Tokenized = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, context, continuation


@register_model("gpt2-wgpu")
class GPT2WGPU(TemplateLM):
    """Model of lm-eval: log-likelihoods and texts of a GPT-2 on the GPU.

    Args:
        pretrained: preset, directory or Hub id, as for ``GPT2CausalLM.from_preset``.
        dtype: weight dtype, as for ``from_preset``; "auto" is its default.
        batch_size: rows at once in ``generate_until``; "auto" is 16. Log-likelihoods are computed
            in batches of 8.
        max_length: limit of the context, at most the model's.
        max_gen_toks: limit of new tokens for tasks that set none.
        peft: directory of a LoRA adapter.
        adapter: GPU, as for ``Device(adapter=...)``; default: the default device.
        device: without effect; lm-eval gives PyTorch's.
        max_batch_size: without effect.
    """

    def __init__(
        self,
        pretrained: str = "fairytales",
        *,
        dtype: str | None = None,
        batch_size: int | str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        peft: str | None = None,
        adapter: int | str | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        given = 16 if batch_size in (None, "auto") else int(batch_size or 0)
        self.batch_size = integer("batch_size", given, 1, 1 << 16)
        self.max_gen_toks = max_gen_toks
        self._own_device = None if adapter is None else Device(adapter=adapter)
        try:
            self.lm = GPT2CausalLM.from_preset(
                pretrained,
                dtype=None if dtype == "auto" else dtype,
                device=self._own_device,
                adapter=peft,
            )
            context = self.lm.backbone.config.n_positions
            chosen = context if max_length is None else max_length
            self.max_length = integer("max_length", chosen, 1, context)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the model's memory and a device of its own. Idempotent."""
        if hasattr(self, "lm"):
            self.lm.dispose()
        if self._own_device is not None:
            self._own_device.close()

    # --- text and ids ---------------------------------------------------------------------------

    @property
    def _text(self) -> Any:
        preprocessor = self.lm.preprocessor
        if preprocessor is None:
            raise InvalidArgumentError("lm-eval gives texts, and this model has no tokenizer files")
        return preprocessor.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer in lm-eval's caches of requests."""
        return f"gpt2-wgpu-{self.lm.backbone.config.vocab_size}"

    @property
    def eot_token_id(self) -> int:
        """Id of the end token."""
        return int(self._text.end_token_id)

    @property
    def prefix_token_id(self) -> int:
        """Id in front of a text without context."""
        return int(self._text.start_token_id)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Encode a text; GPT-2 adds no special tokens."""
        ids: list[int] = self._text.encode(string, allowed_special="all")
        return ids

    # --- log-likelihoods ------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokenized], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Return log p of each continuation, and whether greedy search would give it."""
        rows = [self._fitting(context, new) for _, context, new in requests]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0] + rows[i][1]), reverse=True)
        results: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        progress = _progress(len(rows), disable_tqdm, "Log-likelihoods")
        for first in range(0, len(order), SCORED_AT_ONCE):
            part = order[first : first + SCORED_AT_ONCE]
            contexts, continuations = zip(*(rows[i] for i in part), strict=True)
            scoring = token_logprobs(self.lm, contexts, continuations, 1)
            for i, found in zip(part, sync(scoring, "token_logprobs"), strict=True):
                pairs = zip(rows[i][1], found.top_logprobs, strict=True)
                greedy = all(token in top for token, top in pairs)
                results[i] = sum(found.logprobs), greedy
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], results[i])
            progress.update(len(part))
        progress.close()
        return results

    def _fitting(self, context: list[int], new: list[int]) -> tuple[list[int], list[int]]:
        """Cut a context on the left, so that all of the continuation is predicted."""
        if len(new) > self.max_length:
            raise ContextLengthError(
                f"a continuation has {len(new)} tokens, but the context only {self.max_length}: "
                "choose a model with a longer one"
            )
        return context[-(self.max_length + 1 - len(new)) :], new

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return log p of whole texts, in disjoint windows of the context's length."""
        windows: list[Tokenized] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            rolling = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            found = [(None, *make_disjoint_window(window)) for window in rolling]
            windows += found
            owners += [index] * len(found)
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens(windows, disable_tqdm)
        for index, (logprob, _) in zip(owners, scores, strict=True):
            totals[index] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # --- texts ----------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each context up to a stop text; greedy unless sampling."""
        contexts = [(request.args[0], request.args[1], i) for i, request in enumerate(requests)]
        groups = Collator(
            contexts,
            sort_fn=lambda each: -len(self.tok_encode(each[0])),
            group_by="gen_kwargs",
            group_fn=lambda each: each[1],
        )
        texts: list[str] = []
        progress = _progress(len(requests), disable_tqdm, "Texts")
        for chunk in groups.get_batched(n=self.batch_size):
            given, options, numbers = zip(*chunk, strict=True)
            found = self._continued(given, options[0], numbers)
            for context, text in zip(given, found, strict=True):
                self.cache_hook.add_partial("generate_until", (context, options[0]), text)
            texts += found
            progress.update(len(found))
        progress.close()
        in_order: list[str] = groups.get_original(texts)
        return in_order

    def _continued(
        self, contexts: Iterable[str], options: dict[str, Any], numbers: Sequence[int]
    ) -> list[str]:
        """Continue contexts with equal options; ``numbers`` add to the seed of each row."""
        settings = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        end = self._text.decode([self.eot_token_id])
        until = handle_stop_sequences(settings.pop("until", None), eos=end)
        most = int(settings.pop("max_gen_toks"))
        if most >= self.max_length:
            raise ContextLengthError(
                f"max_gen_toks = {most} leaves no room for a prompt in a context of "
                f"{self.max_length} tokens: set a lower one, here or in the task"
            )
        seed = int(settings.pop("seed", 0))
        sampler = self._sampler(settings)
        prompts = [self.tok_encode(text)[-(self.max_length - most) :] for text in contexts]
        prompts = [prompt or [self.prefix_token_id] for prompt in prompts]
        length = max(map(len, prompts)) + most
        inputs = packed(prompts, [[0] * length for _ in prompts], scalar=False)
        output = self.lm.generate(
            inputs,
            stop_token_ids=[self.eot_token_id],
            max_new_tokens=most,
            stop_texts=[text for text in until if text and text != end],
            sampler=sampler,
            seed=[seed + i for i in numbers],
            time_limit=TIME_LIMIT_SECONDS.high,  # not the checkpoint's
        )
        rows = new_ids(output, inputs, self.lm.backbone.config.vocab_size)
        return [
            postprocess_generated_text(self._text.decode_shown(row), until, None) for row in rows
        ]

    @staticmethod
    def _sampler(settings: dict[str, Any]) -> samplers.Sampler:
        """Return the sampler of lm-eval's generation options."""
        temperature = settings.get("temperature", 1.0) if settings.pop("do_sample") else 0.0
        known = {each.name for each in SAMPLER_PARAMETERS}
        if unknown := sorted(settings.keys() - known):
            raise InvalidArgumentError(
                f"gpt2-wgpu has no generation option {unknown[0]!r}: leave it out; it has "
                f"{', '.join(sorted(known))}"
            )
        return samplers.of_settings(**settings | {"temperature": temperature})


def _progress(total: int, disable: bool, name: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=disable, desc=name)
