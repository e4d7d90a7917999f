"""Calls that one thread adds, and workers on another thread's event loop take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from tale.inference.requests import Request

Call = Sequence[tuple[int, Request]]  # requests that share it, by their numbers


class Calls:
    """Calls in the order in which they were added.

    None is given out while `paused()`, which the calls in flight may change: where they have all ended and it still is,
    or one of `errors` is there, no further call is given out.
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
        """Add calls, from the other thread."""
        self.waiting.extend(calls)
        self._tell()

    def close(self) -> None:
        """No further call comes, from the other thread."""
        self.closed = True
        self._tell()

    async def next(self) -> Call | None:
        """The next call, once there is one; None where there will be none."""
        self.loop = asyncio.get_running_loop()
        while not self._over():
            if self.waiting and not self.paused():
                self.in_flight += 1
                return self.waiting.popleft()
            await self.changed.wait()
        self._wake()
        return None

    def done(self) -> None:
        """A call has ended."""
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
