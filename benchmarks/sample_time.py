"""Time of `sample`, the kernel that chooses a token, with its readback, by sampler and logits.

    python benchmarks/sample_time.py [-r 80] [-v 50257]

The logits of one row, 50,257 by default: -1.5 ln(rank), much like those of a text, and normal ones
with standard deviations of 3, 2 and 1. Each token is first compared with the choice in Python. The
calls of all cases take turns; the lower quartile of each is printed, in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import gpt2_wgpu as gw
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState, sample
from gpt2_wgpu.nn.sampling import CHUNK
from gpt2_wgpu.samplers.drawing import draw_token

OPTIONS = {
    "greedy": SamplingOptions(temperature=0),
    "top-k 40": SamplingOptions(top_k=40, seed=1),
    "top-k 300": SamplingOptions(top_k=300, seed=1),
    "top-p 0.9": SamplingOptions(top_p=0.9, seed=1),
    "top-p 0.99": SamplingOptions(top_p=0.99, seed=1),
    "min-p 0.05": SamplingOptions(min_p=0.05, seed=1),
    "random": SamplingOptions(seed=1),
}
SIZES = (10, 60, 100, 200, 300, 400, 500)  # tokens that are kept, of the logits of a text

Logits = NDArray[np.float32]


def text_logits(rng: np.random.Generator, vocabulary: int) -> Logits:
    return (-1.5 * np.log(1 + rng.permutation(vocabulary))).astype(np.float32)


def probabilities_of(logits: Logits) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())


def options_of_size(logits: Logits, size: int) -> dict[str, SamplingOptions]:
    """Top-p and min-p that keep ``size`` tokens."""
    falling = np.sort(probabilities_of(logits))[::-1]
    return {
        f"top-p of {size}": SamplingOptions(top_p=float(falling[:size].sum()) - 1e-7, seed=1),
        f"min-p of {size}": SamplingOptions(
            min_p=float(falling[size - 1 : size + 1].mean() / falling[0]), seed=1
        ),
    }


def chunk_maxima(logits: Logits) -> NDArray[np.uint32]:
    """The ranks (shaders/include/rank.wgsl) that a model's head leaves of each chunk."""
    bits = (logits + np.float32(0)).view(np.uint32)
    ranks = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)
    return np.maximum.reduceat(ranks, np.arange(0, len(ranks), CHUNK))


def case(logits: Logits, options: SamplingOptions) -> Callable[[], float]:
    """A call, which returns its seconds; SystemExit if its token is not the one of Python."""
    values, maxima = gw.tensor(logits[None]), chunk_maxima(logits)
    history = History([1], 1)
    state = SamplingState.create(values.device, [history], [2**30], options, [], len(logits))

    def run() -> float:
        storage = state.maxima_and_counts.storage
        values.device.queue.upload(storage, 0, maxima)
        state.token.numpy()
        begun = time.perf_counter()
        sample(values, state)
        state.token.numpy()
        return time.perf_counter() - begun

    run()
    token = int(state.token.numpy()[0, 0])
    expected = draw_token(probabilities_of(logits).tolist(), options, 0, 0)
    if token != expected:
        raise SystemExit(f"{options}: token {token}, not {expected}: nothing is timed")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-r", "--rounds", type=int, default=80)
    parser.add_argument("-v", "--vocabulary", type=int, default=50_257, help="logits")
    args = parser.parse_args()
    rounds, vocabulary = args.rounds, args.vocabulary
    rng = np.random.default_rng(0)
    logits = {"text": text_logits(rng, vocabulary)} | {
        f"SD {deviation}": (rng.standard_normal(vocabulary) * deviation).astype(np.float32)
        for deviation in (3, 2, 1)
    }
    cases = {
        (kind, name): case(values, options)
        for kind, values in logits.items()
        for name, options in OPTIONS.items()
    }
    for size in (size for size in SIZES if size < vocabulary):
        for name, options in options_of_size(logits["text"], size).items():
            cases["text", name] = case(logits["text"], options)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in cases}
    for _ in range(rounds):
        for key, run in cases.items():
            seconds[key].append(run())
    print(gw.default_device().info.name)
    for (kind, name), taken in seconds.items():
        print(f"{kind:5} {name:13} {1e3 * sorted(taken)[rounds // 4]:6.2f} ms")


if __name__ == "__main__":
    main()
