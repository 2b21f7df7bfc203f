"""Peak memory of the page's process while loading a model of GPT-2's size."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.text.tokenizer_files import gpt2_merges, vocabulary_of_merges
from tests.browser.library.browsing import Browser
from tests.browser.library.host import Host

MEGABYTE = 1 << 20
ALLOWED = 200 * MEGABYTE  # above the page with its Python


@pytest.fixture
def gpt2_124m() -> dict[str, bytes]:
    """A checkpoint of the size of GPT-2 124M, with random weights."""
    config = GPT2Config()
    some = np.random.default_rng(0).standard_normal(1 << 20, np.float32) * np.float32(0.02)
    weights = {name: np.resize(some, shape) for name, shape in config.expected_tensors().items()}
    merges = gpt2_merges()
    return {
        "config.json": json.dumps({"model_type": "gpt2", **asdict(config)}).encode(),
        "model.safetensors": save(weights),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]).encode(),
        "vocab.json": json.dumps(vocabulary_of_merges(merges, "<|endoftext|>")).encode(),
    }


def own_memory(process: int) -> int:
    """Bytes of a process that are its own: the heaps of JavaScript and WebAssembly, and more.

    What it shares with other processes is on its way to them: files, the network, the GPU.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) << 10


def test_loading_124m_takes_little_memory(
    browser: Browser, host: Host, gpt2_124m: dict[str, bytes]
) -> None:
    source = host.add("big-model", gpt2_124m)
    known = set(browser.renderers())
    tab = browser.open(f"{host.page}tests/library.html")
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    tab.evaluate("async () => (await GPT2.load('fairytales')).dispose()")
    processes = [process for process in browser.renderers() if process not in known]
    before = {process: own_memory(process) for process in processes}
    tab.evaluate(
        """(source) => {
          globalThis.loaded = null;
          GPT2.load(source).then(({ info }) => (loaded = info), (e) => (loaded = e.message));
        }""",
        source,
    )
    peak, loaded, asked = 0, None, 0.0
    while loaded is None:
        peak = max(peak, *(own_memory(process) - before[process] for process in processes))
        time.sleep(0.02)
        if time.monotonic() - asked > 1:
            loaded, asked = tab.evaluate("() => loaded"), time.monotonic()
    tab.close()
    assert isinstance(loaded, dict), loaded
    assert loaded["parameters"] == 124_439_808
    assert peak > 20 * MEGABYTE  # the right processes were looked at
    assert peak <= ALLOWED, f"{peak / MEGABYTE:.0f} MB"
