"""A browser that reports finished GPU work only when something is submitted, as Firefox does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Tab
from tests.browser.relay import SCRIPT

# Firefox also looks every 100 ms, which would hide a missing submit.
_LATE = """() => {
  const ready = [];
  const late = (prototype, name) => {
    const original = prototype[name];
    prototype[name] = function (...rest) {
      return new Promise((resolve, reject) => {
        original.apply(this, rest).then((value) => ready.push(() => resolve(value)), reject);
      });
    };
  };
  late(GPUBuffer.prototype, "mapAsync");
  late(GPUQueue.prototype, "onSubmittedWorkDone");
  const submit = GPUQueue.prototype.submit;
  globalThis.submits = 0;
  GPUQueue.prototype.submit = function (list) {
    submits += 1;
    submit.call(this, list);
    for (const settle of ready.splice(0)) settle();
  };
}"""
_COUNTED = """() => {
  const submit = GPUQueue.prototype.submit;
  globalThis.submits = 0;
  GPUQueue.prototype.submit = function (list) {
    submits += 1;
    submit.call(this, list);
  };
}"""
# Of the user agent, the backend reads only whether it is Firefox's.
_NAMED = """(agent) => {
  Object.defineProperty(navigator, "userAgent", { value: agent, configurable: true });
}"""
_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
_WAITS = """async (times) => {
  const backend = gpt2WgpuBackend;
  const adapter = await backend.requestAdapter("", false);
  const session = await backend.requestDevice(adapter, "", [], "{}");
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  const buffer = backend.createBuffer(session, "", 16, usage);
  const patience = new Promise((resolve) => setTimeout(() => resolve(null), 20_000));
  let settled = 0;
  for (let time = 0; time < times; time++) {
    const both = [backend.map(session, buffer, 1, 0, 16), backend.done(session)];
    if ((await Promise.race([Promise.all(both), patience])) === null) break;
    buffer.unmap();
    settled += 1;
  }
  const used = submits;
  await new Promise((resolve) => setTimeout(resolve, 50));
  const idle = submits - used;
  backend.destroy(session);
  return { settled, used, idle };
}"""


@pytest.fixture
def page(chromium: str, address: str) -> Iterator[Tab]:
    tab = Tab(chromium, f"{address}tests/empty.html")
    yield tab
    tab.close()
    assert not tab.complaints


def test_empty_submits_settle_what_waits_in_firefox(page: Tab) -> None:
    page.evaluate(_NAMED, _FIREFOX)
    page.evaluate(f"{SCRIPT.read_text()}; null")
    page.evaluate(_LATE)
    found = page.evaluate(_WAITS, 10)
    assert found["settled"] == 10
    assert found["used"] >= 10
    assert found["idle"] <= 1  # nothing waits: nothing is submitted


def test_nothing_is_submitted_for_waits_in_other_browsers(page: Tab) -> None:
    page.evaluate(f"{SCRIPT.read_text()}; null")
    page.evaluate(_COUNTED)
    found = page.evaluate(_WAITS, 3)
    assert found == {"settled": 3, "used": 0, "idle": 0}
