"""A device that a worker opens and compiles for before Python asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chromium import Tab

# `list` has a kernel that makes x to 2x + 1, and one that does not compile; `take` asks for a
# device as Python does, and `run` runs a kernel there on 3.
_BEGUN = """
  const CODE = `@group(0) @binding(0) var<storage, read_write> x: array<u32>;
    @compute @workgroup_size(1) fn main() { x[0] = 2u * x[0] + 1u; }`;
  const OTHER = CODE.replace("+ 1u", "+ 5u");
  const BROKEN = CODE.replace("2u", "2.5");
  const entries = [{ binding: 0, visibility: 4, buffer: { type: "storage" } }];
  const limits = ["maxBufferSize", "maxStorageBufferBindingSize"];
  const features = ["timestamp-query"];
  const list = {
    device: { powerPreference: "high-performance", label: "", features, limits },
    facts: {},
    model: "model",
    modules: [[0], [1]],
    paragraphs: [CODE, BROKEN],
    pipelines: [[0, entries, "main", {}], [1, entries, "main", {}]],
    adapters: [
      { seen: { architecture: "of another adapter" }, measure: {}, test: {}, text: {} },
      { seen: {}, measure: {}, test: { q8: [1] }, text: { q8: [0] } },
    ],
  };
  const packed = new Blob([JSON.stringify(list)]).stream();
  const answer = new Response(packed.pipeThrough(new CompressionStream("gzip")));
  globalThis.fetch = async () => answer;
  let compiled = 0;
  const { createComputePipelineAsync } = GPUDevice.prototype;
  GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
    compiled += 1;
    return createComputePipelineAsync.call(this, descriptor);
  };
  const { compileEarly } = await import(new URL("../web/early-kernels.js", location.href).href);
  compileEarly("model", "q8");
  const early = await gpt2WgpuEarly;
  const backend = gpt2WgpuBackend;
  const take = async ({ power = "high-performance", change = (limits) => limits } = {}) => {
    const adapter = await backend.requestAdapter(power, false);
    const offered = features.filter((name) => adapter.features.has(name));
    const wanted = Object.fromEntries(limits.map((name) => [name, adapter.limits[name]]));
    return backend.requestDevice(adapter, "", offered, JSON.stringify(change(wanted)));
  };
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const run = async (session, code) => {
    const layout = backend.createBindGroupLayout(session, "", [0, 4, "storage"]);
    const layouts = backend.createPipelineLayout(session, "", [layout]);
    const module = backend.createShaderModule(session, "a shader", code);
    const pipeline = backend.createPipeline(session, "a kernel", layouts, module, "main", "{}");
    const x = backend.createBuffer(session, "", 4, STORAGE | COPY_SRC | COPY_DST);
    const to = backend.createBuffer(session, "", 4, MAP_READ | COPY_DST);
    const group = backend.createBindGroup(session, "", layout, [0, x, 0, 4]);
    const data = new Uint8Array(Uint32Array.of(3).buffer);
    backend.writeBuffer(session, x, 0, { getBuffer: () => ({ data, release() {} }) });
    backend.submit(session, [
      "pass", "pipeline", pipeline, "group", 0, group, "dispatch", 1, 1, 1, "end",
      "copy", x, 0, to, 0, 4,
    ]);
    await backend.map(session, to, 1, 0, 4);
    return new Uint32Array(backend.readMapped(to, 0, 4).buffer)[0];
  };
  const thrown = (promise) => promise.then(() => null, ({ name, message }) => [name, message]);
"""


def begun(page: Tab, script: str) -> Any:
    """The value of JavaScript after `_BEGUN`."""
    return page.evaluate(f"async () => {{ {_BEGUN} {script} }}")


def test_what_is_compiled_is_taken_over_once(page: Tab) -> None:
    found = begun(
        page,
        """
      const counts = [compiled, early.left];
      const session = await take();
      const values = [await run(session, CODE)];
      counts.push(compiled, early.left); // the broken one is left
      values.push(await run(session, OTHER), await run(session, CODE));
      counts.push(compiled);
      const again = await take(); // as after a loss
      values.push(await run(again, CODE));
      return [counts, values, session.device === early.device, again.device === early.device];
    """,
    )
    counts, values, first, second = found
    assert values == [7, 11, 7, 7]
    assert counts == [2, 2, 2, 1, 4]
    assert first
    assert not second


@pytest.mark.parametrize(
    "asked",
    [
        'await take({ power: "low-power" })',
        "await take({ change: (limits) => ({ ...limits, maxBufferSize: 1 << 28 }) })",
        "await take({ change: () => ({}) })",
        "(early.device.destroy(), await early.device.lost, await take())",
    ],
    ids=["power", "limit", "no limits", "lost"],
)
def test_another_device_is_opened_as_always(page: Tab, asked: str) -> None:
    same, value, right = begun(
        page,
        f"""
      const session = {asked};
      const same = session.device === early.device;
      await early.device.lost; // it is not kept
      return [same, await run(session, CODE), await run(await take(), CODE)];
    """,
    )
    assert not same
    assert (value, right) == (7, 7)


def test_a_kernel_that_does_not_compile_is_named_as_always(page: Tab) -> None:
    late, early, after = begun(
        page,
        """
      const session = await take();
      const first = await thrown(run(session, BROKEN));
      const after = await run(session, CODE);
      return [await thrown(run(await take(), BROKEN)), first, after];
    """,
    )
    assert early == late
    assert early[0] == "GPUPipelineError"
    assert early[1].startswith("a shader: ")
    assert after == 7
