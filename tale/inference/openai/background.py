"""An event loop on a thread of its own, which no interpreter has to wait for."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def in_background(main: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], None]) -> Iterator[Future[None]]:
    """Run `main` while the block does, and cancel it with the block; `done` is called at its end, on the thread.

    A block may stay open until the interpreter ends, in a generator that an exception has left behind. So the thread is
    a daemon, and what it runs is cancelled at the exit, while it still can be.
    """
    ended: Future[None] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())

    def run() -> None:
        try:
            ended.set_result(loop.run_until_complete(task))
        except BaseException as error:  # whatever it is, the block is told
            ended.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            done()

    thread = threading.Thread(target=run, name="calls", daemon=True)

    def stop() -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(task.cancel)
        thread.join()

    atexit.register(stop)
    thread.start()
    try:
        yield ended
    finally:
        stop()
        atexit.unregister(stop)
