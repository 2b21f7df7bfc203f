"""Model card of an exported model, with measurements and samples."""

from __future__ import annotations

import argparse
import string
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from baselines import byte_ngram, compressors, overlap, token_ngram
from data import END_OF_TEXT, Book, read_books
from evaluate import bits_per_byte
from export import RUN
from plot import plot

PROMPT = "Once upon a time"
SAMPLES = 5
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 40, "max_new_tokens": 200}
TEMPLATE = Path(__file__).with_name("card.md.in")
SMALL_WORDS = {"and", "by", "in", "of", "the"}


@dataclass(frozen=True)
class Figures:
    """Figures of the card: bits per byte of the held-out text."""

    model: float
    gzip: float
    bzip2: float
    byte_5gram: float
    token_5gram: float


def measure(directory: Path, tokenizer: Tokenizer, books: list[Book]) -> Figures:
    """Measure the exported f16 weights (in f32 arithmetic), loaded as a user would."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def loss_of_each(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x).logits
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")

    symbols = tokenizer.get_vocab_size()
    train = [tokenizer.encode(book.train).ids for book in books]
    tails = [tokenizer.encode(book.held_out).ids for book in books]
    size = sum(len(book.held_out.encode("utf-8")) for book in books)
    return Figures(
        bits_per_byte(loss_of_each, tokenizer, books, model.config.n_positions),
        *compressors(books),
        byte_ngram(books, 5),
        token_ngram(train, tails, size, symbols, 5),
    )


def check_tokenizer(directory: Path, tokenizer: Tokenizer, books: list[Book]) -> None:
    """Check that the exported tokenizer gives the ids of the trained one, and restores text."""
    exported = AutoTokenizer.from_pretrained(directory)
    for book in books:
        ids = exported(book.held_out)["input_ids"]
        if ids != tokenizer.encode(book.held_out).ids or exported.decode(ids) != book.held_out:
            raise SystemExit(f"the exported tokenizer differs on {book.name}")
    if exported.convert_tokens_to_ids(END_OF_TEXT) != tokenizer.get_vocab_size() - 1:
        raise SystemExit(f"{END_OF_TEXT} is not the last id")


@torch.no_grad()
def samples(directory: Path) -> list[str]:
    """Return one text for each seed from 0, without selection."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(END_OF_TEXT + PROMPT, return_tensors="pt").input_ids
    texts = []
    for seed in range(SAMPLES):
        torch.manual_seed(seed)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **SAMPLING)
        texts.append(str(tokenizer.decode(out[0], skip_special_tokens=True)).strip())
    return texts


def title(name: str) -> str:
    """Return a book's title from its file name, e.g. `alice-s-adventures-in-wonderland`."""
    words = name.replace("-s-", "'s-").replace("grimms-", "grimms'-").split("-")
    capital = [w if w in SMALL_WORDS and i else w[0].upper() + w[1:] for i, w in enumerate(words)]
    return " ".join(capital)


def quoted(text: str) -> str:
    """Return a text as a Markdown quotation, with special characters escaped."""
    for mark in "\\*_`<[":
        text = text.replace(mark, "\\" + mark)
    return "\n".join(("> " + line).rstrip() for line in text.split("\n"))


def rewrapped(text: str) -> str:
    """Re-wrap plain paragraphs, as the figures have changed the lengths of lines."""
    parts = text.split("\n\n")
    for i, part in enumerate(parts):
        if "```" not in part and "    " not in part and part[0] not in "#>|-!m":
            parts[i] = textwrap.fill(
                part, 99, break_long_words=False, break_on_hyphens=False
            ) + "\n" * part.endswith("\n")
    return "\n\n".join(parts)


def write_card(run: Path, corpus: Path, out: Path, hardware: str, note: str) -> Figures:
    """Write README.md and loss.png into the exported directory `out`."""
    checkpoint: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=False)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    books = read_books(corpus)
    check_tokenizer(out, tokenizer, books)
    figures = measure(out, tokenizer, books)
    plot(run / "log.csv", out / "loss.png")
    shape, args = checkpoint["shape"], checkpoint["args"]
    texts = [f"Seed {seed}:\n\n{quoted(text)}" for seed, text in enumerate(samples(out))]
    train_tokens = sum(len(tokenizer.encode(book.train).ids) for book in books)
    values = {
        **{key: f"{value:.3f}" for key, value in vars(figures).items()},
        **{key: f"{value:,}" for key, value in shape.items()},
        "head_size": str(shape["width"] // shape["heads"]),
        "parameters": f"{sum(t.numel() for t in checkpoint['model'].values()) / 1e6:.1f}",
        "size": f"{(out / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "books": str(len(books)),
        "titles": "\n".join(f"- {title(book.name)}" for book in books),
        "train_megabytes": f"{sum(len(b.train.encode('utf-8')) for b in books) / 1e6:.1f}",
        "train_tokens": f"{train_tokens / 1e6:.1f}",
        "held_out_bytes": f"{sum(len(b.held_out.encode('utf-8')) for b in books):,}",
        "overlap": f"{100 * overlap(books):.0f}",
        "steps": f"{checkpoint['step']:,}",
        "tokens": f"{checkpoint['tokens'] / 1e6:.1f}",
        "passes": f"{checkpoint['tokens'] / train_tokens:.1f}",
        "minutes": f"{checkpoint['elapsed'] / 60:.0f}",
        "hardware": hardware,
        "note": note,
        "seed": str(args["seed"]),
        "batch": f"{args['batch_tokens']:,}",
        "half": str(shape["context"] // 2),
        "long_from": f"{args['long_from']:.0%}".replace("%", " %"),
        "muon_rate": str(args["muon_rate"]),
        "adam_rate": str(args["adam_rate"]),
        "weight_decay": str(args["weight_decay"]),
        "dropout": str(args["dropout"]),
        "prompt": PROMPT,
        "samples": "\n\n".join(texts),
    }
    text = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    (out / "README.md").write_text(rewrapped(text), encoding="utf-8")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the exported model")
    parser.add_argument("--hardware", default="a CPU", help="named in the model card")
    parser.add_argument("--note", default="", help="a remark on the run, for the model card")
    args = parser.parse_args()
    print(write_card(args.run, args.corpus, args.out, args.hardware, args.note))


if __name__ == "__main__":
    main()
