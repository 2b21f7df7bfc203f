"""Blocking calls in the browser: exceptions of a coroutine reach its caller only."""

from __future__ import annotations

import json

from tests.browser.chromium import Worker

PROGRAM = """
import asyncio, json
from gpt2_wgpu.webgpu.backends.browser.script import Promise
from gpt2_wgpu.webgpu.waiting import sync

async def fail(error):
    await asyncio.sleep(0)
    raise error

class Failing:
    def add_done_callback(self, callback): pass
    def __await__(self): return fail(self.error).__await__()

def fails(error):
    promise = Failing()
    promise.error = error
    return Promise(promise).sync_wait()

reported, raised = [], []
last = asyncio.Event()

def report(loop, context):
    reported.append(repr(context.get("exception")))
    if "the last task" in reported[-1]:
        last.set()

loop = asyncio.get_running_loop()
loop.set_exception_handler(report)
for error in (StopAsyncIteration(), ValueError("one"), KeyboardInterrupt()):
    for blocking in (lambda: sync(fail(error), "fail()"), lambda: fails(error)):
        try:
            blocking()
        except BaseException as caught:
            raised.append(caught is error)
asyncio.ensure_future(fail(ValueError("the last task")))
await asyncio.wait_for(last.wait(), 60)
loop.set_exception_handler(None)
json.dumps([sync(asyncio.sleep(0, 7), "sleep()"), raised, reported])
"""


def test_no_task_ends_in_an_exception(worker: Worker) -> None:
    """Pyodide's event loop reports those that do; JupyterLite shows such a report in red.

    A task that fails after the blocking calls is reported, and no other before it.
    """
    result, raised, reported = json.loads(worker.run(PROGRAM))
    assert result == 7
    assert raised == [True] * 6
    assert reported == ["ValueError('the last task')"]
