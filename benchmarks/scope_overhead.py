"""Overhead of scopes and memory counters in the host time of a decode step.

    python benchmarks/scope_overhead.py [-m fairytales] [-n 200]

Times every call into memory accounting and scopes during generation, and the host's time for the
same tokens: CPU time of the thread, without waiting and other processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.tensors import scopes, tidying
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.waiting import sync


class Stopwatch:
    """Total time in wrapped functions; nested calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0
        self._inside = False

    def wrap(self, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return original(*args, **kwargs)
            self._inside = True
            begun = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds += time.thread_time() - begun
                self.calls += 1

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales")
    parser.add_argument("-n", "--new-tokens", type=int, default=200)
    args = parser.parse_args()
    lm = gw.GPT2CausalLM.from_preset(args.model)
    options = gw.samplers.Random(seed=1).next_options()
    generation = Generation(lm, [[1]], [args.new_tokens + 2], options, [])
    sync(generation.advance(), "advance")  # exclude prefill and recording

    accounting = Stopwatch()
    for name in (
        "allocate",
        "reclaim",
        "register",
        "unregister",
        "drain",
        "destroy_pending",
        "defer",
    ):
        accounting.wrap(BufferPool, name)
    for owner, name in ((scopes.Scope, "adopt"), (scopes.Scope, "close"), (gw.Tensor, "check")):
        accounting.wrap(owner, name)
    for name in ("__enter__", "__exit__"):
        accounting.wrap(tidying.Tidy, name)
    begun, tokens = time.thread_time(), 0
    while not generation.done:
        tokens += len(sync(generation.advance(), "advance")[0])
    host = time.thread_time() - begun
    generation.close()
    share = accounting.seconds / host
    print(
        f"{tokens} tokens on {lm.device.info.name}: {host / tokens * 1e6:.0f} us of host time a "
        f"token, {accounting.seconds / tokens * 1e6:.2f} us of it ({share:.2%}) in "
        f"{accounting.calls / tokens:.2f} calls of scopes and counters"
    )


if __name__ == "__main__":
    main()
