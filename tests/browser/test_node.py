"""The site's Python in Node: runs without a browser, a worker or stack switching."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from bootstrap import NO_NODE

import gpt2_wgpu as gw
from tests.browser.chromium import software_vulkan
from tests.browser.serving import PAGES, ROOT

PROGRAM = """
import json
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
found["live"] = gw.memory().num_buffers
json.dumps(found)
"""


def test_the_asynchronous_interface_is_all_it_takes(site: Path, device: gw.Device) -> None:
    if shutil.which("node") is None or not (ROOT / "node_modules" / "webgpu").is_dir():
        pytest.fail(NO_NODE)
    run = subprocess.run(
        ["node", PAGES / "node_run.mjs", site, ROOT, PROGRAM],
        env=os.environ | software_vulkan(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        lm.compile(sampler="greedy")
        expected = lm.generate("Once upon a time", max_length=60)
    assert found["switching"] is False
    assert found["whole"] == expected
    assert "".join(found["pieces"]).startswith(expected.removeprefix("Once upon a time"))
    assert found["refusal"].startswith("this browser cannot block (no stack switching)")
    assert found["live"] == 0
