"""An event loop on a daemon thread."""

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
    """Run `main` on another thread during the block, and cancel it at the block's end; the thread then calls `done`.

    A block may stay open until the interpreter exits, in a generator that an exception left suspended. So the thread is
    a daemon, and an atexit hook cancels `main`.
    """
    ended: Future[None] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())

    def run() -> None:
        try:
            ended.set_result(loop.run_until_complete(task))
        except BaseException as error:  # the block gets any exception
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
