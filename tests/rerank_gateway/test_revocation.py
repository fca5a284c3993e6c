"""Whatever happens to keys and to the watch: nobody sees a revoked key accepted after the bound."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from rerank_api import keys
from rerank_gateway import reflector
from rerank_gateway.api_server import ApiServer
from rerank_gateway.auth import Authenticator
from rerank_gateway.errors import ApiError
from rerank_gateway.reflector import RESOURCES, Cluster
from rerank_gateway.state import State
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_api_server import STATUSES, FakeApiServer, Fault
from tests.rerank_gateway.fault_proxy import FaultProxy
from tests.rerank_gateway.fuzzing import fuzz
from tests.rerank_gateway.harness import until

pytestmark = pytest.mark.slow

BOUND: Final = 900.0
SLACK: Final = 60.0  # the clock below runs on, a busy machine may stall the test
KEYS: Final = [keys.mint() for _ in range(3)]
WATCH_FAULTS: Final[list[Fault]] = [*STATUSES, "gone_in_stream", "cut_json", "truncated"]
RNG: Final = random.Random(1)


class Clock:
    """Seconds that pass when told to, besides those that pass anyway."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead


class World:
    """The truth at the API server, and what a gateway behind a bad network makes of it."""

    def __init__(self, api: FakeApiServer, proxy: FaultProxy, clock: Clock) -> None:
        self.api = api
        self._proxy = proxy
        self._clock = clock
        self._revoked_at: dict[int, float] = dict.fromkeys(range(len(KEYS)), 0.0)
        state = State()
        self.cluster = Cluster(ApiServer(proxy.url), (), state)
        self._auth = Authenticator(state, self.cluster, BOUND)

    def step(self, what: str, number: int) -> None:
        """One thing happens."""
        key = objects.api_key(KEYS[number], name=f"key-{number}")
        exists = ("APIKey", f"key-{number}") in self.api.objects
        if what == "delete":
            if exists:
                self.api.delete(key)
                self._revoked_at.setdefault(number, self._clock.monotonic())
        elif what == "grant":
            self.api.put(key)
            self._revoked_at.pop(number, None)
        elif what == "disable":
            self.api.put({**key, "spec": {"disabled": True}})
            self._revoked_at.setdefault(number, self._clock.monotonic())
        elif what == "expire":
            now = datetime.fromtimestamp(self._clock.time(), UTC).isoformat()
            self.api.put({**key, "spec": {"expiresAt": now}})
            self._revoked_at.setdefault(number, self._clock.monotonic())
        elif what == "break watches":
            self.api.watch_faults.append(RNG.choice(WATCH_FAULTS))
        elif what == "pass time":
            self._clock.ahead += (10, 400, 1000)[number]
        else:
            self._proxy.fail(what)  # type: ignore[arg-type] # one of its faults

    def accepted(self, number: int) -> bool:
        try:
            self._auth.authenticate(KEYS[number].text, self._clock.time())
        except ApiError:
            return False
        return True

    def observe(self) -> None:
        """What must hold at any time."""
        for number, revoked_at in self._revoked_at.items():
            if self._clock.monotonic() > revoked_at + BOUND + SLACK:
                assert not self.accepted(number)

    def heal(self) -> None:
        self.api.watch_faults.clear()
        self._proxy.fail("reset")
        self._proxy.fail("none")

    def agrees(self) -> bool:
        """Whether the gateway accepts what it should, and nothing else."""
        return all(self.accepted(number) != (number in self._revoked_at) for number in range(len(KEYS)))


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(reflector, "time", SimpleNamespace(monotonic=clock.monotonic))
        patch.setattr(reflector, "RESOURCES", RESOURCES[:1])
        patch.setattr(reflector, "_BACKOFF_SECONDS", (0.001, 0.002))
        # A watch that was being opened while the clock jumped is old from its first moment.
        patch.setattr(reflector, "WATCH_SECONDS", 2)
        async with FakeApiServer() as api, FaultProxy(api.port) as proxy:
            made = World(api, proxy, clock)
            task = asyncio.create_task(made.cluster.run())
            try:
                await until(lambda: not made.cluster.unsynced())
                yield made
            finally:
                task.cancel()
                await asyncio.wait([task])


REVOCATIONS = ["delete", "disable", "expire"]
NETWORK = ["refuse", "half_open", "reset", "none", "break watches"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "grant", *REVOCATIONS, *NETWORK, *["pass time"] * 4]),
        st.integers(0, 2),
        st.sampled_from([0, 0.001, 0.02]),
    ),
    min_size=5,
    max_size=30,
)


# Not shrunk: whatever fails waits for seconds each time.
@fuzz(
    60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps)
async def test_a_revoked_key_is_accepted_no_longer_than_the_bound(taken: list[Any]) -> None:
    async with world() as made:
        for number in range(len(KEYS)):
            made.step("grant", number)
        await until(made.agrees)
        for what, number, pause in taken:
            made.step(what, number)
            await asyncio.sleep(pause)
            made.observe()
        made.heal()
        await until(made.agrees)


async def test_the_bound_ends_every_key_and_the_api_servers_return_brings_them_back() -> None:
    """One such sequence told."""
    async with world() as made:
        made.step("grant", 0)
        made.step("grant", 1)
        await until(lambda: made.accepted(0) and made.accepted(1))
        made.step("refuse", 0)
        made.step("delete", 0)
        made._clock.ahead += BOUND / 2
        await asyncio.sleep(0.05)
        assert made.accepted(0)
        assert made.accepted(1)
        made._clock.ahead += BOUND / 2
        await asyncio.sleep(0.05)
        assert not made.accepted(0)
        assert not made.accepted(1)
        made.heal()
        await until(lambda: made.accepted(1))
        assert not made.accepted(0)


async def test_no_connection_is_used_twice() -> None:
    async with FakeApiServer() as api, FaultProxy(api.port) as proxy:
        api.watch_faults.extend(["end"] * 6)
        cluster = Cluster(ApiServer(proxy.url), (), State())
        task = asyncio.create_task(cluster.run())
        await until(lambda: len(api.watches()) >= 9)
        assert proxy.accepted >= len(api.requests)
        task.cancel()
        await asyncio.wait([task])
