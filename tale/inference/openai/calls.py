"""A queue of calls that one thread adds, and workers on another thread's event loop take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from tale.inference.requests import Request

Call = Sequence[tuple[int, Request]]  # the requests of one call, with their numbers


class CallQueue:
    """Calls, first in, first out.

    No call is handed out while `paused()`, which calls in flight may change. Once all of these have ended and it is
    still paused, or there is one of `errors`, the queue has ended.
    """

    def __init__(self, paused: Callable[[], bool]):
        self.paused = paused
        self.waiting: deque[Call] = deque()
        self.in_flight = 0
        self.closed = False
        self.errors: list[Exception] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.changed = asyncio.Event()

    def add(self, calls: Iterable[Call]) -> None:
        """Add calls; called by the other thread."""
        self.waiting.extend(calls)
        self._tell()

    def close(self) -> None:
        """No further call will be added; called by the other thread."""
        self.closed = True
        self._tell()

    async def next(self) -> Call | None:
        """Wait for the next call; None if there will be no more."""
        self.loop = asyncio.get_running_loop()
        while not self._over():
            if self.waiting and not self.paused():
                self.in_flight += 1
                return self.waiting.popleft()
            await self.changed.wait()
        self._wake()
        return None

    def done(self) -> None:
        """Report that a call has ended."""
        self.in_flight -= 1
        self._wake()

    def _over(self) -> bool:
        return bool(self.errors) or (self.closed and not self.waiting) or (self.paused() and not self.in_flight)

    def _tell(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if self.loop:
                self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
