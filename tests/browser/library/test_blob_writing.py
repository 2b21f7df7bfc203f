"""Writes of blobs to the GPU, with a queue that records its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.library.browsing import Tab

WRITE = """async ([size, kind]) => {
  await import("../web/gpu.js");
  const data = Uint8Array.from({ length: size }, (_, i) => i * 7);
  const blob = new Blob([data]);
  let cancelled = false;
  const plain = () => {
    const reader = blob.stream().getReader();
    return new ReadableStream({ pull: async (to) => {
      const { done, value } = await reader.read();
      if (done) to.close(); else to.enqueue(value);
    } });
  };
  const endless = () => new ReadableStream({
    type: "bytes", pull: (to) => to.enqueue(new Uint8Array(1000)), cancel: () => (cancelled = true),
  });
  const source = {
    whole: blob,
    plain: { size, stream: plain, slice: (...range) => blob.slice(...range) },
    early: { size: size + 100, stream: () => blob.stream() },
    cancelled: { size, stream: endless },
  }[kind];
  const written = new Uint8Array(Math.ceil(size / 4) * 4);
  const session = {
    unwaited: 0,
    check() { if (kind === "cancelled") throw new Error("lost"); },
    inOrder: (work) => work(),
    settled: (begin) => begin(),
    queue: {
      writeBuffer: (_, at, from, start, length) =>
        written.set(new Uint8Array(from, start, length), at),
      onSubmittedWorkDone: async () => {},
    },
  };
  const error = await thrown(() => gpt2WgpuBackend.writeBlob(session, null, source));
  return { error, cancelled, same: data.every((byte, i) => byte === written[i]) };
}"""

MANY = """async (count) => {
  await import("../web/gpu.js");
  globalThis.writes = 0;
  const blob = new Blob([new Uint8Array(1 << 20)]);
  const session = {
    unwaited: 0,
    check() {},
    inOrder: (work) => work(),
    settled: (begin) => begin(),
    queue: { writeBuffer() {}, onSubmittedWorkDone: async () => {} },
  };
  (async () => {
    while (writes < count) {
      await gpt2WgpuBackend.writeBlob(session, null, blob.slice(0, writes % 2 ? 1 << 20 : 1000));
      writes++;
    }
  })();
}"""

WAITS = """async (sizes) => {
  await import("../web/gpu.js");
  const order = [];
  const session = {
    unwaited: 0,
    check() {},
    inOrder: (work) => work(),
    settled: (begin) => begin(),
    queue: {
      writeBuffer: (_, at, from, start, length) => order.push(length),
      onSubmittedWorkDone: async () => void order.push("wait"),
    },
  };
  for (const size of sizes) {
    await gpt2WgpuBackend.writeBlob(session, null, new Blob([new Uint8Array(size)]));
  }
  return order;
}"""


@pytest.fixture
def write(open_tab: Callable[[str], Tab]) -> Callable[[int, str], dict[str, Any]]:
    tab = open_tab("tests/library.html")
    tab.wait_for("() => Boolean(globalThis.thrown)")
    return lambda size, kind: tab.evaluate(WRITE, [size, kind])


@pytest.mark.parametrize("kind", ["whole", "plain"])
@pytest.mark.parametrize("size", [5, (4 << 20) + 4, 9_000_001])
def test_all_bytes_arrive(
    write: Callable[[int, str], dict[str, Any]], kind: str, size: int
) -> None:
    """`plain`: from a browser whose blobs have no byte streams."""
    assert write(size, kind) == {"error": None, "cancelled": False, "same": True}


def test_a_blob_that_ends_early(write: Callable[[int, str], dict[str, Any]]) -> None:
    assert write(5_000_000, "early")["error"] == {
        "name": "OSError",
        "message": "the file ended early",
    }


def test_a_reader_is_left_behind_by_nobody(write: Callable[[int, str], dict[str, Any]]) -> None:
    found = write(5_000_000, "cancelled")
    assert found["error"]["message"] == "lost"
    assert found["cancelled"]


def test_the_gpu_is_waited_for_after_16_mib(open_tab: Callable[[str], Tab]) -> None:
    """Small tensors are written without a wait each; no more than 16 MiB are on their way."""
    tab = open_tab("tests/library.html")
    tab.wait_for("() => Boolean(globalThis.thrown)")
    assert tab.evaluate(WAITS, [1000] * 3) == [1000] * 3
    mib = 1 << 20
    first = [4 * mib] * 4 + ["wait"] + [4 * mib] * 2 + [2 * mib]
    expected = [*first, 8, 4 * mib, 4 * mib, "wait"]  # 6 bytes are padded to words
    assert tab.evaluate(WAITS, [26 * mib, 6, 8 * mib]) == expected


def test_garbage_is_collected_while_a_blob_is_read(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("tests/library.html")
    tab.wait_for("() => Boolean(globalThis.thrown)")
    tab.evaluate(MANY, 1000)
    while (before := tab.evaluate("() => writes")) < 1000:
        tab.collect_garbage()
        tab.wait_for(f"() => writes > {before}")
