"""How many may talk at once, and who is next."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Places:
    """`limit` places and a line before them, first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0
        self.line: deque[tuple[asyncio.Future, Callable[[int], None]]] = deque()

    @asynccontextmanager
    async def place(self, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a place and hold it; `tell` is called with how many are in front, when that changes."""
        if self.taken < self.limit and not self.line:
            self.taken += 1
        else:
            await self._wait(tell)
        try:
            yield
        finally:
            self.taken -= 1
            self._next()

    async def _wait(self, tell: Callable[[int], None]) -> None:
        turn: asyncio.Future = asyncio.get_running_loop().create_future()
        entry = (turn, tell)
        self.line.append(entry)
        tell(len(self.line) - 1)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self.line:
                self.line.remove(entry)
                self._tell_all()
            elif turn.done() and not turn.cancelled():  # the place came as the visitor left
                self.taken -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self.line and self.taken < self.limit:
            turn, _ = self.line.popleft()
            self.taken += 1
            turn.set_result(None)
        self._tell_all()

    def _tell_all(self) -> None:
        for ahead, (_, tell) in enumerate(self.line):
            tell(ahead)
