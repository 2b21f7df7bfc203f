"""Memory of loading: one tensor on the host besides the mapped file, no overhead on the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from tests.models import checkpoints

pytestmark = pytest.mark.native("processes")

LARGEST = 50_257 * 768 * 4  # bytes of wte, GPT-2's largest tensor, in f32

PROGRAM = """
import json, re, sys, threading
from pathlib import Path

import gpt2_wgpu as gw

def anonymous():
    \"\"\"Bytes of this process that are no file's: a mapped checkpoint does not count.\"\"\"
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def sample():
    while not loaded.wait(0.002):
        samples.append(anonymous())

device = gw.Device()
loaded, samples = threading.Event(), []
start = anonymous()
sampler = threading.Thread(target=sample)
sampler.start()
lm = gw.GPT2CausalLM.from_preset(sys.argv[1], None, "float32", device)
loaded.set()
sampler.join()
print(json.dumps({
    "above": max(samples) - start,
    "samples": len(samples),
    "held": gw.memory(device).num_bytes_in_gpu,
    "software": device.info.is_software,
}))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with GPT-2 at its true size, in f32."""
    directory: Path = checkpoints.save(checkpoints.make_model(), tmp_path_factory.mktemp("base"))
    return directory


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux reports anonymous memory separately"
)
def test_loading_takes_no_more_than_one_tensor(base: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, base],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["held"] > 4 * 124_000_000
    assert found["samples"] > 50
    # What a software adapter calls GPU memory is memory of this process.
    above = found["above"] - (found["held"] if found["software"] else 0)
    assert above <= LARGEST, f"{above:,} bytes"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_uploads_went_through_is_given_back(small: tuple[object, Path], dtype: str) -> None:
    with gw.Device() as device:
        lm = gw.GPT2CausalLM.from_preset(small[1], None, dtype, device)
        info = gw.memory(device)
        assert info.num_bytes_in_gpu == info.by_kind["weights"] > 0
        assert info.num_bytes_allocated_in_gpu == info.num_bytes_in_gpu
        lm.dispose()
