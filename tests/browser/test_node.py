"""The site's Python in Node: runs without a browser, a worker or stack switching."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bootstrap import NO_NODE

import gpt2_wgpu as gw
from tests.browser.chromium import software_vulkan
from tests.browser.serving import PAGES, ROOT

# An adapter of the embedded model's first block.
ADAPTER = """
import json, struct
from array import array

def adapter_files(width):
    shapes = {"A": [2, width], "B": [4 * width, 2]}
    header, data = {}, b""
    for letter, shape in shapes.items():
        values = array("f", [(i * 37 % 101 - 50) / 50 for i in range(shape[0] * shape[1])])
        place = [len(data), len(data) + 4 * len(values)]
        name = f"base_model.model.transformer.h.0.mlp.c_fc.lora_{letter}.weight"
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": place}
        data += values.tobytes()
    text = json.dumps(header).encode()
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}).encode()
    weights = struct.pack("<Q", len(text)) + text + data
    return {"adapter_config.json": config, "adapter_model.safetensors": weights}
"""
PROGRAM = """
import json
import js
from pyodide.ffi import to_js
import gpt2_wgpu as gw
from pyodide.ffi import can_run_sync

lm = await gw.GPT2CausalLM.from_preset_async("/models/fairytales", dtype="float16")
lm.compile(sampler="greedy")
prompt = "Once upon a time"
found = {
    "switching": can_run_sync(),
    "whole": await lm.generate_async(prompt, max_length=60),
    "pieces": [piece async for piece in lm.stream(prompt, max_new_tokens=60)],
}
try:
    lm.generate(prompt)
except gw.errors.SyncUnavailableError as error:
    found["refusal"] = str(error)
lm.dispose()
blobs = {
    name: js.Blob.new(to_js([to_js(data)])) for name, data in adapter_files(256).items()
}
lm = await gw.GPT2CausalLM.from_preset_async("/models/fairytales", dtype="float16", adapter=blobs)
lm.compile(sampler="greedy")
found["adapted"] = await lm.generate_async(prompt, max_length=16)
lm.dispose()
found["live"] = gw.memory().num_buffers
json.dumps(found)
"""


def test_the_asynchronous_interface_is_all_it_takes(
    site: Path, device: gw.Device, tmp_path: Path
) -> None:
    if shutil.which("node") is None or not (ROOT / "node_modules" / "webgpu").is_dir():
        pytest.fail(NO_NODE)
    run = subprocess.run(
        ["node", PAGES / "node_run.mjs", site, ROOT, ADAPTER + PROGRAM],
        env=os.environ | software_vulkan(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile(sampler="greedy")
        expected = lm.generate("Once upon a time", max_length=60)
    names: dict[str, Any] = {}
    exec(ADAPTER, names)
    for name, data in names["adapter_files"](256).items():
        (tmp_path / name).write_bytes(data)
    with gw.GPT2CausalLM.from_preset(
        "fairytales", dtype="float16", device=device, adapter=tmp_path
    ) as lm:
        lm.compile(sampler="greedy")
        adapted = lm.generate("Once upon a time", max_length=16)
    assert found["adapted"] == adapted
    assert not expected.startswith(adapted)
    assert found["switching"] is False
    assert found["whole"] == expected
    assert "".join(found["pieces"]).startswith(expected.removeprefix("Once upon a time"))
    assert found["refusal"].startswith("this browser cannot block (no stack switching)")
    assert found["live"] == 0


def test_the_javascript_library_needs_a_browser() -> None:
    if shutil.which("node") is None:
        pytest.fail(NO_NODE)
    code = """
      const { GPT2, check, models } = await import(process.argv[1]);
      const calls = [() => GPT2.load("fairytales"), () => GPT2.load("./m/"), check, models.list];
      for (const call of calls) {
        await call().catch(({ message }) => console.log(message));
      }
    """
    library = (ROOT / "web" / "gpt2.js").as_uri()
    run = subprocess.run(
        ["node", "--input-type=module", "-e", code, library], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    messages = run.stdout.splitlines()
    assert len(messages) == 4
    assert all(message.startswith("this library runs in browsers") for message in messages)
