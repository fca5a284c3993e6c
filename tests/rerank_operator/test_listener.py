"""kopf is kept going: away from our loop, started again when it ends, and told to end with us."""

import asyncio
import threading

import pytest

from rerank_operator import listener


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "Backoffs", lambda: [0.0] * 100)


async def test_it_is_started_again_whatever_ended_it() -> None:
    starts: list[int] = []
    again = threading.Event()

    async def operate(stop: asyncio.Event) -> None:
        starts.append(threading.get_ident())
        # It ends tasks that it did not start, and itself in more ways than one.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        if len(starts) == 1:
            raise ValueError("half a line")
        if len(starts) == 2:
            return
        if len(starts) == 3:
            raise SystemExit(1)
        again.set()
        await stop.wait()

    listening = asyncio.create_task(listener.listen(operate))
    assert await asyncio.to_thread(again.wait, 10)
    assert threading.get_ident() not in starts
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert len(starts) == 4


async def test_it_is_told_to_end_and_waited_for() -> None:
    began, ended = threading.Event(), threading.Event()

    async def operate(stop: asyncio.Event) -> None:
        began.set()
        await stop.wait()
        await asyncio.sleep(0.1)
        ended.set()

    listening = asyncio.create_task(listener.listen(operate))
    assert await asyncio.to_thread(began.wait, 10)
    listening.cancel()
    await asyncio.wait([listening])
    assert ended.is_set()


async def test_one_that_does_not_end_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "STOP_SECONDS", 0.05)
    began, over = threading.Event(), threading.Event()

    async def operate(_: asyncio.Event) -> None:
        began.set()
        over.wait(10)

    listening = asyncio.create_task(listener.listen(operate))
    assert await asyncio.to_thread(began.wait, 10)
    listening.cancel()
    done, _ = await asyncio.wait([listening], timeout=5)
    assert done
    over.set()
