"""The two models of the comparison, and their files for each engine, created once in the cache.

``124M`` has the shape of GPT-2 small and seeded random weights with an initializer_range of 0.1:
with the default of 0.02 a random GPT-2 repeats one token, and equal tokens would prove nothing.
``fairytales`` is the embedded model. The prompt is text with the required number of ids, so that
engines that take text and engines that take ids get the same input.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.engines import Engine

SEED = 3
MARGIN = 0.005  # logits; a smaller margin may be decided by rounding
_EMBEDDED = Path(__file__).parents[2] / "models" / "fairytales"
_TEXT = (
    "Once upon a time there was a miller who had a mill by the river and a daughter who was "
    "cleverer than the king. One day the king came riding by and asked for water, and the girl "
    "gave him a cup with a straw in it, so that he had to drink slowly. The king laughed and said "
    "that he had never met anyone who thought of such a thing. Then he gave her three tasks: to "
    "carry water in a sieve, to weave a cloak of nettles, and to tell him a story without an end. "
    "She stopped the holes with moss, she wove the cloak by the light of the moon, and in the "
    "evening she sat down before the fire and began to speak of a bird that carried away a "
    "mountain, one grain of sand at a time. "
)
_STARTS = ("", "The old woman said: ", "In a far country, ", "It is told that ", "Long ago, ")


@dataclass(frozen=True)
class Work:
    """Input of every engine, and the expected output."""

    model: str
    directory: Path  # config.json, model.safetensors, tokenizer; made: model.onnx, model.gguf
    prompts: list[str]  # of each row, without the start token, which is ids[row][0]
    ids: list[list[int]]  # all rows have the same length
    expected: list[list[int]]
    smallest_margin: float

    def rows(self, tokens: list[int]) -> list[list[int]]:
        """Return the tokens of each row, from those of the first step, the second, and so on."""
        return [tokens[row :: len(self.ids)] for row in range(len(self.ids))]

    def words(self) -> list[str]:
        """Return the vocabulary by id, for engines that take tokens as text."""
        ids = json.loads((self.directory / "vocab.json").read_text())
        return sorted(ids, key=ids.__getitem__)


def prepare(name: str, cache: Path, prompt_tokens: int, new_tokens: int, batch: int) -> Work:
    """Create the model, the prompts and the expected tokens, or load them from the cache.

    Raises ``SystemExit`` if fewer than ``batch`` prompts have a sufficient margin.
    """
    directory = cache / "models" / name
    if not (directory / "complete").is_file():
        _make_model(name, directory)
    kept = directory / f"work-{prompt_tokens}-{new_tokens}-{batch}.json"
    if not kept.is_file():
        work = _find_work(name, directory, prompt_tokens, new_tokens, batch)
        kept.write_text(json.dumps({**asdict(work), "directory": ""}))
    return Work(**{**json.loads(kept.read_text()), "directory": directory})


def _make_model(name: str, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if name == "fairytales":
        shutil.copytree(_EMBEDDED, directory)
    elif name == "124M":
        directory.mkdir(parents=True)
        _random_124m(directory)
    else:
        raise SystemExit(f"--model is fairytales or 124M, not {name!r}")
    from benchmarks.peers.gguf_file import write_gguf
    from benchmarks.peers.onnx_graph import write_onnx
    from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer

    for fused in (True, False):
        write_onnx(directory, fused)
    tokenizer = GPT2Tokenizer.from_directory(directory)
    prompts = GPT2CausalLMPreprocessor(tokenizer).encode_prompts(_candidates(2 * len(_TEXT)))
    write_gguf(directory, {token for ids in prompts for token in ids})
    (directory / "complete").touch()


def _random_124m(directory: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from gpt2_wgpu.text import GPT2Tokenizer

    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(GPT2Config(initializer_range=0.1))
    with torch.no_grad():  # default biases are zero, which would hide an engine that ignores them
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0.0, 0.1)
    model.save_pretrained(directory)
    GPT2Tokenizer().save_assets(directory)
    (directory / "vocabulary.json").rename(directory / "vocab.json")  # Hugging Face's name


def _candidates(length: int) -> list[str]:
    """Return texts of at least ``length`` characters: each start, then the text from each word."""
    words = _TEXT.split()
    turned = [" ".join(words[n:] + words[:n]) + " " for n in range(1, len(words))]
    return [
        start + text * (length // len(text) + 1)
        for start, text in [*((start, _TEXT) for start in _STARTS), *(("", t) for t in turned)]
    ]


def _find_work(name: str, directory: Path, prompt_tokens: int, new_tokens: int, batch: int) -> Work:
    """Return the first ``batch`` prompts with a sufficient margin at every token."""
    from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_directory(directory)
    preprocessor = GPT2CausalLMPreprocessor(tokenizer)
    from benchmarks.peers.reference import Reference  # PyTorch

    reference = Reference(directory)
    seen: list[float] = []
    rows: list[tuple[str, list[int], list[int], float]] = []
    for candidate in _candidates(8 * prompt_tokens):
        (long,) = preprocessor.encode_prompts([candidate])
        ids = long[:prompt_tokens]
        prompt = tokenizer.decode(ids[1:])
        if preprocessor.encode_prompts([prompt]) != [ids] or len(ids) < prompt_tokens:
            continue  # cut within a word: its tokens would be merged differently
        tokens, margin = reference.continue_greedily(ids, new_tokens)
        seen.append(margin)
        if margin > MARGIN and tokenizer.end_token_id not in tokens:
            rows.append((prompt, ids, tokens, margin))
        if len(rows) == batch:
            prompts, all_ids, expected, margins = map(list, zip(*rows, strict=True))
            return Work(name, directory, prompts, all_ids, expected, min(margins))
    raise SystemExit(
        f"{name}: with {prompt_tokens} prompt tokens and {new_tokens} new ones {len(rows)} of "
        f"{len(seen)} prompts keep the two best logits {MARGIN} apart, {batch} are needed: use "
        "fewer -n"
    )


def first_other_token(work: Work, tokens: list[int]) -> tuple[int, int] | None:
    """Return row and place of the earliest token that differs from the expected one, if any."""
    rows = enumerate(zip(work.rows(tokens), work.expected, strict=True))
    differing = [
        (place, row)
        for row, (found, expected) in rows
        for place, (token, right) in enumerate(zip(found, expected, strict=False))
        if token != right
    ]
    return min(differing)[::-1] if differing else None


def checker(work: Work) -> Callable[[Engine, list[int]], bool | str]:
    """Return a check of an engine's tokens, which returns True or the reason of a failure."""

    def check(engine: Engine, tokens: list[int]) -> bool | str:
        found = work.rows(tokens)
        differs = first_other_token(work, tokens)
        if differs is None:
            return True
        row, place = differs
        reason = (
            f"row {row + 1}: token {place + 1} is {found[row][place]} instead of "
            f"{work.expected[row][place]}"
        )
        if not engine.tolerance:
            return reason
        from benchmarks.peers.reference import Reference  # PyTorch

        reference = Reference(work.directory)
        worst = max(
            max(reference.regrets(ids, row)) for ids, row in zip(work.ids, found, strict=True)
        )
        if worst <= engine.tolerance:
            return True
        allowed = f"at most {engine.tolerance} allowed"
        return f"{reason}; a chosen logit is {worst:.3f} below the best, {allowed}"

    return check
