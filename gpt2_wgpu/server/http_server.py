"""Runner of the HTTP API: uvicorn on a socket that is bound before the model loads."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.server.api_errors import SHUTDOWN
from gpt2_wgpu.shown import shown

SIGNALS = signal.SIGINT, signal.SIGTERM
GRACE = 10  # seconds for answers in flight, after Ctrl-C or SIGTERM


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address: connections wait until :func:`run`.

    Raises:
        InvalidArgumentError: the address is unknown or in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InvalidArgumentError(f"--host {shown(host)} is no address: {error}") from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)  # reserves the port: two sockets that are only bound may share it
    except OSError as error:
        bound.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"is unavailable ({error})"
        raise InvalidArgumentError(f"port {port} {why}: choose another with --port") from None
    return bound


def run(app: Any, bound: socket.socket, started: Callable[[], None]) -> None:
    """Serve an ASGI app until Ctrl-C or SIGTERM; answers in flight have `GRACE` seconds to end.

    A second signal ends them at once. Then the app's lifespan ends. A third signal ends the
    process, also one that hangs in a driver.

    Args:
        app: the app.
        bound: from `bind`; closed at the end.
        started: called when requests are accepted.
    """
    asyncio.run(_serve(app, bound, started))


async def _serve(app: Any, bound: socket.socket, started: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app,
        access_log=False,
        date_header=False,  # the app's own: uvicorn's needs a timer
        lifespan="on",
        log_level="error",
        server_header=False,
        ws="none",
    )
    server: Any = uvicorn.Server(config)
    loop, stop, again = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def end(*_: object) -> None:
        # Not force_exit: uvicorn would leave the requests and the lifespan to asyncio.run.
        if server.should_exit:
            for each in SIGNALS:  # no handler, which would wait for the interpreter
                signal.signal(each, signal.SIG_DFL)
            loop.call_soon_threadsafe(again.set)
        server.should_exit = True
        loop.call_soon_threadsafe(stop.set)

    async def main_loop() -> None:
        """Wait for a signal; uvicorn's own loop wakes up ten times a second."""
        started()
        await stop.wait()

    unlimited_shutdown = server.shutdown

    async def shutdown(sockets: Any = None) -> None:
        """Wait for answers and end the lifespan; after a while the answers are cut off."""
        cutting = asyncio.create_task(_cut_off(server.server_state, again))
        try:
            await unlimited_shutdown(sockets=sockets)
        finally:
            cutting.cancel()

    @contextmanager
    def capture_signals() -> Iterator[None]:
        """Handle signals; uvicorn's own handler raises them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, end) for each in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    server.main_loop, server.shutdown = main_loop, shutdown
    server.capture_signals = capture_signals
    await server.serve(sockets=[bound])


async def _cut_off(state: Any, now: asyncio.Event) -> None:
    """End all requests of uvicorn's ``state`` after `GRACE` seconds, or if ``now`` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await now.wait()
    while True:  # a request that was just accepted comes late
        for connection in [*state.connections]:
            if connection.transport.get_write_buffer_size():  # its client does not read
                connection.transport.abort()
        if tasks := [*state.tasks]:
            for task in tasks:
                task.cancel(SHUTDOWN)
            await asyncio.wait(tasks)
        for connection in [*state.connections]:
            connection.transport.abort()
        await asyncio.sleep(0.1)
