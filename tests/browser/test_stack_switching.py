"""Blocking calls in the browser: what a coroutine raises, the caller gets, and nobody else."""

from __future__ import annotations

from tests.browser.chromium import Worker

PROGRAM = """
import asyncio, json
from gpt2_wgpu.webgpu.backends.browser.script import Promise
from gpt2_wgpu.webgpu.waiting import sync

async def fail(error):
    await asyncio.sleep(0)
    raise error

class Failing:
    def add_done_callback(self, told): pass
    def __await__(self): return fail(self.error).__await__()

def fails(error):
    promise = Failing()
    promise.error = error
    return Promise(promise).sync_wait()

reported, raised = [], []
loop = asyncio.get_running_loop()
loop.set_exception_handler(lambda loop, context: reported.append(repr(context)))
for error in (StopAsyncIteration(), ValueError("one"), KeyboardInterrupt()):
    for blocking in (lambda: sync(fail(error), "fail()"), lambda: fails(error)):
        try:
            blocking()
        except BaseException as caught:
            raised.append(caught is error)
await asyncio.sleep(0.05)
loop.set_exception_handler(None)
json.dumps([sync(asyncio.sleep(0, 7), "sleep()"), raised, reported])
"""


def test_no_task_ends_in_an_exception(worker: Worker) -> None:
    """Pyodide's event loop reports those that do; JupyterLite shows such a report in red."""
    assert worker.run(PROGRAM) == "[7, [true, true, true, true, true, true], []]"
