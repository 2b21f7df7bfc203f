"""Event loops of other packages, such as uvloop's."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw


class ForeignLoop(asyncio.SelectorEventLoop):
    """A loop whose hooks belong to this package, which has no ``Event``, as uvloop has none."""

    def _asyncgen_firstiter_hook(self, generator):
        super()._asyncgen_firstiter_hook(generator)  # type: ignore[misc]


@pytest.mark.native("its own event loops")
def test_a_loop_of_another_package(device):
    async def read():
        tensor = gw.tensor([1.0, 2.0])
        values = await asyncio.gather((tensor * 2).data(), (tensor + 1).data())
        tensor.dispose()
        return [list(each) for each in values]

    with asyncio.Runner(loop_factory=ForeignLoop) as runner:
        assert runner.run(read()) == [[2.0, 4.0], [2.0, 3.0]]
