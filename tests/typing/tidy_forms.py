"""Types of ``tidy``: checked by `make lint`, not run.

``assert_type`` fails where a signature is lost (it would be ``Any``), an unused ``type: ignore``
where a wrong call is accepted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

import gpt2_wgpu as gw


@gw.tidy
def scaled(x: gw.Tensor, factor: float = 2.0) -> gw.Tensor:
    return x * factor


@gw.tidy("named")
def named(x: gw.Tensor) -> int:
    return x.size


@gw.tidy()
async def read(x: gw.Tensor) -> list[float]:
    return list(await x.data())


@gw.tidy
async def read_plainly(x: gw.Tensor) -> float:
    return float((await x.data())[0])


@gw.tidy
def pieces() -> Iterator[gw.Tensor]:
    yield gw.tensor([1.0])


@gw.tidy
async def pieces_async(count: int) -> AsyncIterator[gw.Tensor]:
    for _ in range(count):
        yield gw.tensor([1.0])


async def decorated(x: gw.Tensor) -> None:
    assert_type(scaled(x, factor=3.0), gw.Tensor)
    assert_type(named(x), int)
    assert_type(await read(x), list[float])
    assert_type(await read_plainly(x), float)
    assert_type(next(pieces()), gw.Tensor)
    async for piece in pieces_async(2):
        assert_type(piece, gw.Tensor)
    scaled("text")  # type: ignore[arg-type]
    named()  # type: ignore[call-arg]
    await read(1)  # type: ignore[arg-type]
    await read_plainly(y=x)  # type: ignore[call-arg]
    pieces_async()  # type: ignore[call-arg]


async def called(x: gw.Tensor, make: Callable[[], Coroutine[Any, Any, int]]) -> None:
    assert_type(gw.tidy(lambda: x + 1.0), gw.Tensor)
    assert_type(gw.tidy("named", lambda: x.size), int)
    assert_type(await gw.tidy(make), int)
    assert_type(await gw.tidy("named", make), int)
    with gw.tidy() as scope:
        assert_type(scope.escape(x), gw.Tensor)
    async with gw.tidy("named"):
        pass
    gw.tidy(1)  # type: ignore[call-overload]
