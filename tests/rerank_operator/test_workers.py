"""What becomes of a look: done, again later, again at once, or with growing patience."""

import asyncio

import pytest

from rerank_operator import lease, workers
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.handlers import API_KEY, MODEL, Key
from rerank_operator.health import Metrics
from rerank_operator.queue import KeyedQueue
from rerank_operator.resync import Resync

KEY: Key = (MODEL, "team", "minilm")
Asked = str | tuple[str, float] | tuple[str, float, float]


class Queue(KeyedQueue[Key]):
    """Remembers what was asked of it instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []

    def add_after(self, key: Key, seconds: float) -> None:
        self.asked.append(("later", round(seconds, 1)))

    def retry(self, key: Key, *, first: float = 0.5, longest: float = 120) -> float:
        self.asked.append(("retry", first, longest))
        return 1.0

    def forget(self, key: Key) -> None:
        self.asked.append("forget")


async def test_where_many_wait_keys_go_before_models() -> None:
    queue = workers.new_queue(set())
    for kind in (MODEL, API_KEY, MODEL, API_KEY):
        queue.add((kind, "team", f"number-{len(queue)}"))
    assert [(await queue.take())[0] for _ in range(4)] == [API_KEY, API_KEY, MODEL, MODEL]


async def test_thousands_of_keys_keep_no_other_namespace_waiting() -> None:
    queue = workers.new_queue(set())
    for number in range(1000):
        queue.add((API_KEY, "crowded", f"number-{number}"))
    queue.add((MODEL, "team", "minilm"))
    assert (MODEL, "team", "minilm") in [await queue.take() for _ in range(2)]


@pytest.mark.parametrize(
    ("outcome", "result", "asked"),
    [
        (None, "ok", ["forget"]),
        (2.0, "ok", ["forget", ("later", 2.0)]),
        (ApiError(409, "Conflict", ""), "conflict", [("retry", 0.2, 10)]),
        (ApiError(0, "Unreachable", ""), "error", [("retry", 0.5, 10)]),
        (ApiError(404, "Unreadable", ""), "error", [("retry", 0.5, 10)]),
        (ApiError(429, "TooManyRequests", ""), "error", [("retry", 0.5, 10)]),
        (ApiError(500, "InternalError", ""), "error", [("retry", 0.5, 10)]),
        (ApiError(403, "Forbidden", ""), "error", [("retry", 0.5, 120)]),
        (ApiError(403, "Forbidden", "", causes=frozenset({"NamespaceTerminating"})), "ending", []),
        (NotLeaderError(), "not-leader", [("later", lease.RETRY_SECONDS)]),
        (RuntimeError("a fault of ours"), "error", [("retry", 0.5, 120)]),
    ],
)
async def test_what_becomes_of_a_look(
    outcome: float | Exception | None, result: str, asked: list[Asked]
) -> None:
    async def look(namespace: str, name: str) -> float | None:
        assert (namespace, name) == KEY[1:]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    queue = Queue()
    assert await workers._look(queue, KEY, look) == result
    assert queue.asked == asked


async def test_a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_DEADLINE_SECONDS", 0.01)

    async def look(namespace: str, name: str) -> float | None:
        await asyncio.Event().wait()
        return None

    queue = Queue()
    assert await workers._look(queue, KEY, look) == "error"
    assert queue.asked == [("retry", 0.5, 120)]


async def test_a_worker_goes_on_after_a_failure() -> None:
    queue: KeyedQueue[Key] = KeyedQueue()
    looked: list[str] = []
    done = asyncio.Event()

    async def look(namespace: str, name: str) -> float | None:
        looked.append(name)
        if name == "broken":
            raise RuntimeError("a fault of ours")
        done.set()
        return None

    resync = Resync(api=None, queue=queue, namespaces=())  # type: ignore[arg-type]
    worker = asyncio.create_task(workers.work(queue, {MODEL: look}, Metrics(), resync))
    queue.add((MODEL, "team", "broken"))
    queue.add((MODEL, "team", "sound"))
    await asyncio.wait_for(done.wait(), 2)
    assert looked == ["broken", "sound"]
    assert resync.looked == {(MODEL, "team", "broken"), (MODEL, "team", "sound")}
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
