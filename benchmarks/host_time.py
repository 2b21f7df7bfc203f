"""Host time per token: command encoding, wgpu-native, and the rest.

    python benchmarks/host_time.py [--steps 1,16] [-r 40]

Measures a decode step with GPT-2's 12 layers at minimal width: little GPU work, the host work of
124M. Figures are CPU time of the thread, without waiting and other processes; cache misses caused
by those count, so the minimum is printed with the median. ``finish`` and ``submit`` are the work of
wgpu-native and the driver, independent of the encoder. ``generating`` is a whole generation: all of
it, with readback and Python. The last table is the time before the first token of a prompt, for the
first call of a shape, which records prefill and decode step, and for later ones, which replay them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.models import decoding
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.webgpu import time_waiting
from gpt2_wgpu.webgpu.backends.native_bundle import native_bundle
from gpt2_wgpu.webgpu.queue import Batch, encode
from gpt2_wgpu.webgpu.waiting import sync

CONTEXT = 1024
PROMPT = [7 * position % 512 for position in range(33)]
Figures = dict[str, list[float]]  # name → seconds per step, of each run


def steady(steps: int) -> type[Pace]:
    """Return a pace of ``steps`` per submit, independent of their duration."""

    class Steady(Pace):
        def took(self, seconds: float, count: int) -> None:
            self._next = steps

    return Steady


def start(lm: gw.GPT2CausalLM, new_tokens: int) -> Generation:
    """Return a generation that has recorded its step."""
    options = gw.samplers.Random(seed=1).next_options()
    begun = Generation(lm, [[1]], [new_tokens + 1], options, [])
    sync(begun.advance(), "advance")
    return begun


def encoded(gpu: Any, batch: Batch, name: str, figures: Figures) -> None:
    """Encode and submit ``batch``, and wait for its end."""
    encoder = gpu.create_command_encoder()
    compute = encoder.begin_compute_pass()
    times = [time.thread_time()]
    encode(compute, batch)
    times.append(time.thread_time())
    compute.end()
    commands = encoder.finish()
    times.append(time.thread_time())
    gpu.queue.submit([commands])
    times.append(time.thread_time())
    for part, begun, ended in zip((name, "finish", "submit"), times, times[1:], strict=False):
        figures[part].append((ended - begun) / batch.times)
    gpu._poll_wait()


def generated(lm: gw.GPT2CausalLM, steps: int, figures: Figures) -> None:
    """Generate the tokens of a few submits."""
    vars(decoding)["Pace"] = steady(steps)
    running, tokens = start(lm, 8 * steps + 50), 0
    busy = time.thread_time()
    with time_waiting() as waited:
        while not running.done:
            tokens += len(sync(running.advance(), "advance")[0])
    busy = time.thread_time() - busy - waited.processor_seconds
    running.close()
    figures["generating"].append(busy / tokens)


def before_first_token(lm: gw.GPT2CausalLM, name: str, figures: Figures) -> None:
    """Generate the first token of a prompt."""
    options = gw.samplers.Random(seed=1).next_options()
    busy = time.thread_time()
    with time_waiting() as waited:
        running = Generation(lm, [PROMPT], [100], options, [])
        sync(running.advance(), "advance")
    busy = time.thread_time() - busy - waited.processor_seconds
    running.close()
    figures[name].append(busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="1,16", help="steps a submit, one table each")
    parser.add_argument("-r", "--repeats", type=int, default=40)
    args = parser.parse_args()
    backbone = gw.GPT2Backbone(512, 12, 1, 64, 256, max_sequence_length=CONTEXT, seed=1)
    lm = gw.GPT2CausalLM(backbone)
    recorded = start(lm, CONTEXT - 1)
    run = recorded._run
    assert isinstance(run, DecodeRun) and run._recording is not None
    commands = run._recording.commands
    bundle = native_bundle(commands)
    if bundle is None:
        parser.exit(
            1,
            "wgpu is not as backends/native_bundle.py knows it: nothing to compare\n",
        )
    print(f"{backbone.device.info.name}, {len(commands)} dispatches a step; µs of CPU time a step")
    for steps in map(int, args.steps.split(",")):
        figures: Figures = defaultdict(list)
        for _ in range(args.repeats):
            encoded(backbone.device.gpu, Batch(commands, steps), "encode: wgpu-py", figures)
            encoded(backbone.device.gpu, Batch(commands, steps, bundle), "encode: ours", figures)
        for _ in range(max(1, args.repeats // 5)):
            generated(lm, steps, figures)
        print(f"\n| {steps} a submit | best | median |\n|---|---|---|")
        for name, seconds in figures.items():
            best, median = min(seconds), statistics.median(seconds)
            print(f"| {name} | {best * 1e6:.1f} | {median * 1e6:.1f} |")
    recorded.close()
    figures = defaultdict(list)
    for _ in range(max(2, args.repeats // 2)):
        lm.compile("greedy")  # which drops what is recorded
        before_first_token(lm, "first call", figures)
        before_first_token(lm, "later call", figures)
    print(
        f"\n| prompt of {len(PROMPT)}, ms before the first token | best | median |\n|---|---|---|"
    )
    for name, seconds in figures.items():
        print(f"| {name} | {min(seconds) * 1e3:.2f} | {statistics.median(seconds) * 1e3:.2f} |")


if __name__ == "__main__":
    main()
