"""Pipelines that a browser compiles beside other work: what waits for them, errors, device loss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Tab, Worker
from tests.webgpu.shaders import DOUBLE

# Pipelines are asked for, and are compiled when `release` is called, or never.
_HOLD = """const held = (() => {
  const original = GPUDevice.prototype.createComputePipelineAsync;
  let release;
  const released = new Promise((resolve) => (release = resolve));
  GPUDevice.prototype.createComputePipelineAsync = async function (descriptor) {
    await released;
    return original.call(this, descriptor);
  };
  return { release };
})()"""

# x becomes 2x + 1.
_SHADER = """@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(1) fn main() { x[0] = 2u * x[0] + 1u; }"""
_OPENED = f"""
  const backend = gpt2WgpuBackend;
  const adapter = await backend.requestAdapter("", false);
  const session = await backend.requestDevice(adapter, "", [], "{{}}");
  const {{ STORAGE, COPY_SRC, COPY_DST, MAP_READ }} = GPUBufferUsage;
  const layout = backend.createBindGroupLayout(session, "", [0, 4, "storage"]);
  const layouts = backend.createPipelineLayout(session, "", [layout]);
  const module = backend.createShaderModule(session, "", `{_SHADER}`);
  const create = (name) => backend.createPipeline(session, "", layouts, module, name, "{{}}");
  const x = backend.createBuffer(session, "", 4, STORAGE | COPY_SRC | COPY_DST);
  const group = backend.createBindGroup(session, "", layout, [0, x, 0, 4]);
  const write = (value) => {{
    const data = new Uint8Array(Uint32Array.of(value).buffer);
    const view = {{ data, release: () => data.fill(0) }}; // its memory is used again
    backend.writeBuffer(session, x, 0, {{ getBuffer: () => view }});
  }};
  const run = (pipeline, to) => backend.submit(session, [
    "pass", "pipeline", pipeline, "group", 0, group, "dispatch", 1, 1, 1, "end",
    "copy", x, 0, to, 0, 4,
  ]);
  const staging = () => backend.createBuffer(session, "", 4, MAP_READ | COPY_DST);
  const read = async (buffer) => {{
    await backend.map(session, buffer, 1, 0, 4);
    return new Uint32Array(backend.readMapped(buffer, 0, 4).buffer)[0];
  }};
  const soon = (promise) => Promise.race([
    promise.then(() => true, () => true),
    new Promise((resolve) => setTimeout(() => resolve(false), 200)),
  ]);
  const thrown = (promise) => promise.then(() => null, ({{ name, message }}) => [name, message]);
"""


def test_work_of_a_queue_keeps_its_order(page: Tab) -> None:
    found = page.evaluate(f"""async () => {{
      {_HOLD};
      {_OPENED}
      const pipeline = create("main");
      const [first, second, third] = [staging(), staging(), staging()];
      write(3);
      run(pipeline, first); // 7
      write(10);
      run(pipeline, second); // 21
      backend.submit(session, ["clear", x, 0, 4, "copy", x, 0, third, 0, 4]);
      backend.destroyObject(session, x); // after what uses it
      const reads = Promise.all([first, second, third].map(read));
      const early = await soon(reads);
      held.release();
      return [early, await reads];
    }}""")
    assert found == [False, [7, 21, 0]]


def test_a_submit_waits_for_its_own_pipelines_alone(page: Tab) -> None:
    found = page.evaluate(f"""async () => {{
      {_OPENED}
      const ready = create("main");
      await ready.ready;
      {_HOLD};
      const compiling = create("main");
      const submit = GPUQueue.prototype.submit;
      let submits = 0;
      GPUQueue.prototype.submit = function (list) {{
        submits += 1;
        submit.call(this, list);
      }};
      const [first, second] = [staging(), staging()];
      write(3);
      run(ready, first);
      const counts = [submits];
      run(compiling, second);
      counts.push(submits);
      held.release();
      const values = [await read(first), await read(second)];
      return [...counts, submits, values];
    }}""")
    assert found == [1, 1, 2, [7, 15]]


def test_work_of_a_pipeline_that_fails_is_left_out(page: Tab) -> None:
    found = page.evaluate(f"""async () => {{
      {_OPENED}
      const [broken, right] = [create("absent"), create("main")];
      const [first, second] = [staging(), staging()];
      write(3);
      run(broken, first);
      run(right, second);
      const errors = [await thrown(read(first))];
      const value = await read(second);
      run(broken, first); // is reported each time
      errors.push(await thrown(backend.done(session)), await thrown(backend.done(session)));
      return [value, ...errors];
    }}""")
    value, first, again, none = found
    assert value == 7
    assert first[0] == "GPUPipelineError"
    assert "absent" in first[1]
    assert again == first
    assert none is None


@pytest.mark.parametrize("compiled", ["never", "later"])
def test_a_device_lost_while_it_compiles(page: Tab, compiled: str) -> None:
    """Every read says so, also if the browser never answers."""
    found = page.evaluate(
        f"""async (compiled) => {{
      {_HOLD};
      {_OPENED}
      const [first, second] = [staging(), staging()];
      run(create("main"), first);
      const described = [session, "", layouts, module, "main", "{{}}"];
      const awaited = thrown(backend.createPipelineAsync(...described));
      const reads = [thrown(read(first)), thrown(backend.done(session)), awaited];
      session.device.destroy();
      if (compiled === "later") held.release();
      const errors = await Promise.all(reads);
      try {{
        run(create("main"), second);
      }} catch ({{ name, message }}) {{
        errors.push([name, message]);
      }}
      return errors;
    }}""",
        compiled,
    )
    assert len(found) == 4
    for name, message in found:
        assert name == "GPUError"
        assert message.startswith("Parent device is lost (destroyed")


@pytest.fixture
def opened(worker: Worker) -> Iterator[Worker]:
    """A worker with a device of its own."""
    worker.run("import gpt2_wgpu as gw\ndevice = await gw.Device.create()\nNone")
    yield worker
    worker.run("device.close()\nNone")


def test_a_shader_that_does_not_compile_is_named(opened: Worker) -> None:
    code = """
from pathlib import Path
from gpt2_wgpu.errors import ShaderError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.webgpu.pipelines import PipelineCache

folder = Path("/tmp/compiling")
(folder / "include").mkdir(parents=True, exist_ok=True)
(folder / "include" / "kind_a.wgsl").write_text("// a")
(folder / "double.wgsl").write_text('//!include "kind_{kind}.wgsl"\\n' + double)
(folder / "broken.wgsl").write_text(
    (folder / "double.wgsl").read_text().replace("workgroup_size(64)", "workgroup_size(MANY)")
    + "override MANY: u32 = 1u;"
)
device.pipelines = PipelineCache(device, folder)
x, result = gw.tensor([1.0, 2.0], device=device), gw.tensor([0.0, 0.0], device=device)

def run(name, many):
    bindings, params = {"x": x, "result": result}, {"count": 2, "scale": 3.0, "shift": 1}
    constants = {"MANY": many} if name == "broken" else None
    dispatch(device, name, (1, 1, 1), bindings, params, variant={"kind": "a"}, constants=constants)

run("broken", 1 << 20)
try:
    await result.data()
    said = None
except ShaderError as error:
    said = str(error)
run("double", 1)
values = list(await result.data())
gw.dispose([x, result])
[said, values]
"""
    said, values = opened.run(code, double=DOUBLE)
    assert said is not None
    start = "shaders/broken.wgsl {'kind': 'a'} {'MANY': 1048576} does not compile on "
    assert said.startswith(start)
    assert values == [4.0, 7.0]


def test_the_self_test_asks_for_all_pipelines_before_it_waits(opened: Worker) -> None:
    code = """
import asyncio
import js
from pyodide.ffi import create_proxy
from gpt2_wgpu.models import remembered, self_test

prototype = js.GPUDevice.prototype
compile_pipeline = prototype.createComputePipelineAsync
released, count = asyncio.Event(), 0

async def hold(this, descriptor):
    global count
    count += 1
    await released.wait()
    return await compile_pipeline.call(this, descriptor)

async def nothing(*_):
    return None

honest = remembered.recall, remembered.remember
remembered.recall = remembered.remember = nothing
passed, self_test._passed = self_test._passed, set()
prototype.createComputePipelineAsync = create_proxy(hold, capture_this=True)
try:
    testing = asyncio.ensure_future(self_test.require_right_results(device, "q8"))
    asked = -1
    while count > asked:
        asked = count
        await asyncio.sleep(0.3)
    waited = not testing.done()
    released.set()
    await testing
finally:
    prototype.createComputePipelineAsync = compile_pipeline
    remembered.recall, remembered.remember = honest
    self_test._passed = passed
[waited, asked, count, gw.memory(device).num_tensors]
"""
    waited, asked, total, left = opened.run(code)
    assert waited
    assert asked == total > 20
    assert left == 0
