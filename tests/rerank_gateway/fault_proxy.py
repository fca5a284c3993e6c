"""A network between two programs that can fail: what is sent through it is passed on, held up, or lost."""

import asyncio
from types import TracebackType
from typing import Literal, Self

Fault = Literal[
    "none",
    "refuse",  # connections are reset at once, open ones are cut
    "half_open",  # everything is swallowed, in both directions, and nothing closed
    "reset",  # open connections are cut, new ones are fine
]


class FaultProxy:
    """Listens on `port` from `async with` on and passes to `target`. `delay`: seconds before each piece."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.accepted = 0
        self._target = target
        self._fault: Fault = "none"
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, fault: Fault) -> None:
        """What happens from now on. Swallowed connections never come back to life."""
        if fault in ("refuse", "reset"):
            self._cut()
        self._fault = fault

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        back: asyncio.StreamWriter | None = None
        try:
            if self._fault != "refuse":
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(back)
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for ours in (writer, back):
                if ours is not None:
                    self._writers.discard(ours)
                    ours.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        while data := await reader.read(65536):
            await asyncio.sleep(self.delay)
            lost = lost or self._fault == "half_open"
            if not lost:
                writer.write(data)
                await writer.drain()
        if not lost:
            raise ConnectionResetError
