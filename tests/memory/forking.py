"""Program that uses the GPU and forks: each child does one thing and reports the result.

Prints a JSON object: name of the child -> [exit status or None if it hung, what it said].
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import pickle
import sys
import threading
import time
import warnings
from contextlib import contextmanager

import gpt2_wgpu as gw
from gpt2_wgpu.webgpu import Readback, Recording
from tests.memory import tiny

SECONDS = 20  # until a child is taken to hang
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking with threads


def child(work):
    """Fork → (exit status, what ``work`` returned or raised, as text). The child ends by itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            said = str(work())
        except Exception as error:
            said, status = f"{type(error).__name__}: {error}", 3
        os.write(writer, said.encode())
        os.close(writer)
        sys.exit(status)  # with all finalisers, unlike a child of multiprocessing
    os.close(writer)
    begun = time.monotonic()
    while time.monotonic() - begun < SECONDS:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with os.fdopen(reader) as output:
                return os.waitstatus_to_exitcode(status), output.read()
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None, "hung"


def before_any_use():
    """Nothing of wgpu was used by the parent: the child is free to."""

    def work():
        with gw.Device():
            return gw.tidy(lambda: (gw.tensor([1.0]) + 1).tolist())

    return {"a child that is forked before the first use": child(work)}


def with_adapters_listed():
    gw.adapters()
    return {"opening where the parent has listed adapters": child(gw.Device)}


def with_a_device():
    with gw.Device() as device:
        return dict(uses_of(device))


def uses_of(device):
    lm = tiny.model(device)
    expected = tiny.text_of(lm)
    x = gw.tensor([1.0, 2.0])
    pending = x + x
    with Recording(device) as recording, gw.tidy() as scope:
        y = scope.escape(x + x)
    readback = Readback(device, [(x.storage, 0, 8)])
    stream = lm.stream("ab", max_new_tokens=6, stop_token_ids=None)
    next(stream)  # its next submit is in flight
    started = Readback(device, [(x.storage, 0, 8)])
    started.begin()
    uses = {
        "an operation": lambda: x + x,
        "a read": x.tolist,
        "an asynchronous read": lambda: asyncio.run(x.data()),
        "a read that was begun before": lambda: asyncio.run(started.finish()),
        "a read through a buffer that was there before": lambda: asyncio.run(readback.read()),
        "a new tensor": lambda: gw.tensor([1.0]),
        "a replay": lambda: (recording.replay(), y.tolist()),
        "a stream that goes on": lambda: next(stream),
        "a text": lambda: tiny.text_of(lm),
        "a model on the device": lambda: tiny.backbone(device),
        "a model loaded anew": tiny.backbone,
        "a device": gw.Device,
        "the default device": gw.default_device,
        "adapters()": gw.adapters,
        "a profile": lambda: gw.profile(lambda: x + x),
        "a new kernel": lambda: gw.ops.softmax(x),
    }
    for name, work in uses.items():
        yield f"use: {name}", child(work)
    ends = {
        "nothing": lambda: "ok",
        "a flush": lambda: device.queue.flush() or "ok",  # what was pending is the parent's
        "memory()": lambda: gw.memory(device) and gw.leaks(device) and "ok",
        "dispose": lambda: (gw.dispose([x, y, pending]), lm.dispose(), stream.close()) and "ok",
        "close": lambda: (recording.close(), readback.close(), device.close()) and "ok",
        "trim": lambda: (gw.trim(device), gw.trim()) and "ok",
        "garbage": lambda: dropped() or "ok",
    }

    def dropped():
        nonlocal x, y, pending, lm, stream, recording, readback, started
        x = y = pending = lm = stream = recording = readback = started = None  # type: ignore[assignment]
        uses.clear()
        gc.collect()
        gw.memory(device)

    for name, work in ends.items():
        yield f"end: {name}", child(work)
    yield "the lock is held by another thread", with_lock_held(device, x)
    yield "from another thread", in_thread(lambda: child(x.tolist))
    yield "a child of a child", child(lambda: child(x.tolist))
    yield "multiprocessing", by_multiprocessing(lm)
    assert tiny.text_of(lm) == expected  # the parent goes on as before
    yield "the parent", (0, str(pending.tolist()))
    stream.close()
    for each in (recording, readback, started):
        each.close()
    gw.dispose([x, y, pending])
    lm.dispose()


@contextmanager
def held(lock):
    taken, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    yield
    done.set()
    thread.join()


def with_lock_held(device, x):
    from gpt2_wgpu.webgpu import defaults as module

    with held(device.memory.lock), held(module._opening):
        return child(lambda: (x.dispose(), gw.memory(device), gw.default_device()))


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def by_multiprocessing(lm):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def work():
        try:
            answers.put(str(tiny.text_of(lm)))
        except Exception as error:
            answers.put(pickle.dumps(error))

    process = context.Process(target=work, daemon=True)
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        return None, "hung"
    answer = answers.get()
    return process.exitcode, answer if isinstance(answer, str) else repr(pickle.loads(answer))


if __name__ == "__main__":
    found = before_any_use() | with_adapters_listed() | with_a_device()
    print(json.dumps(found))
