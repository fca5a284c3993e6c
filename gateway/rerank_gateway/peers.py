"""The other gateways: who they are, and what they have consumed.

Each gateway reads the others' counters (`consumption.py`) over their internal port: every tenth of a second
or so while it serves keys with limits, every second while it does not, and at once when a request needs to
know.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from rerank_gateway import consumption
from rerank_gateway.backend import BackendAnswer, InvalidAnswerError, UnreachableError
from rerank_gateway.consumption import Consumption, MalformedError
from rerank_gateway.metrics import Metrics
from rerank_gateway.records import Address, Peer
from rerank_gateway.shares import View

PATH: Final = "/consumption"
# No decision rests on older knowledge.
VIEW_SECONDS: Final = 0.25

_ACTIVE_SECONDS: Final = 2.0
_ACTIVE_PAUSE_SECONDS: Final = 0.125
_IDLE_PAUSE_SECONDS: Final = 1.0
_LEAST_PAUSE_SECONDS: Final = 0.01
_DEADLINE_SECONDS: Final = 0.25
_KEYS_ASKED_AT_ONCE: Final = 50
_SYNC_POLL_SECONDS: Final = 0.05
_PRUNE_SECONDS: Final = 10.0

_log = structlog.get_logger("rerank_gateway.peers")


class Client(Protocol):
    """What reads from another gateway (`http_client.HttpClient`)."""

    async def get(self, address: Address, target: str) -> BackendAnswer:
        """Get `target`.

        Raises:
            UnreachableError: no answer.
            InvalidAnswerError: what came is not HTTP.
        """

    def forget(self, address: Address) -> None:
        """Nothing listens there any more."""


@dataclass(slots=True)
class _Remote:
    """A listed address. `heard` None: not asked yet; False: it did not answer when it was asked last."""

    address: Address
    serving: bool
    heard: bool | None = None
    replica: str = ""
    since: int = 0
    of: str = ""
    asked_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Peers:
    """Keeps `consumption` up to date with that of the other gateways.

    Args:
        listed: the addresses of the gateways, this one's among them.
        consumption: of this replica.
        client: reads from the others.
        metrics: counts how that went.
    """

    def __init__(
        self,
        listed: Callable[[], tuple[Peer, ...]],
        consumption: Consumption,
        client: Client,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._listed = listed
        self._consumption = consumption
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._remotes: dict[Address, _Remote] = {}
        self._own: set[Address] = set()
        self._wanted = asyncio.Event()
        self._next = asyncio.Event()
        self._active_until = 0.0
        self._asking: dict[str, None] = {}  # in the order in which they came
        self._asked: set[str] = set()
        self._began = 0
        self._view = 0
        self._view_at = 0.0

    # For admission

    @property
    def alone(self) -> bool:
        """Whether there is nobody to ask."""
        return not self._remotes

    @property
    def replicas(self) -> int:
        """How many share the limits: this one and those that answer."""
        return 1 + len({remote.replica for remote in self._remotes.values() if remote.heard})

    def silent(self) -> list[str]:
        """Those that serve and do not answer, each by the name that it was last known by, or none."""
        return [
            remote.replica for remote in self._remotes.values() if remote.serving and remote.heard is False
        ]

    @property
    def following(self) -> int:
        """The number of the view that is made of answers yet to be asked for."""
        return self._began + 1

    def view(self) -> View | None:
        """What is known now; None when that is too old. Marks this gateway as active."""
        now = asyncio.get_running_loop().time()
        self._active_until = now + _ACTIVE_SECONDS
        expires = self._view_at + VIEW_SECONDS
        return View(self._view, expires) if now <= expires else None

    async def exchange(self, key: str | None = None) -> None:
        """Return when everybody that answers has been asked after this call, and has been told to ask in turn
        before they spend more of `key`, if one is given.
        """
        if key is not None:
            self._asking.setdefault(key)
        while not self.alone:
            following = self._next
            self._wanted.set()
            await following.wait()
            if key is None or key in self._asked:
                break

    # For the gateway

    def unasked(self) -> list[str]:
        """What keeps a new gateway from knowing what was consumed before it came; empty once it has asked."""
        return [] if self._view else ["the other gateways"]

    async def run(self, synced: Callable[[], bool]) -> None:
        """Ask until cancelled; for the first time as soon as it is known whom."""
        loop = asyncio.get_running_loop()
        pruned_at = loop.time()
        try:
            while True:
                started = loop.time()
                self._wanted.clear()
                following, self._next = self._next, asyncio.Event()
                if self._view or synced():
                    await self._round(started)
                following.set()
                if started - pruned_at > _PRUNE_SECONDS:
                    pruned_at = started
                    self._consumption.prune(self._clock())
                await self._pause(started)
        finally:
            for remote in self._remotes.values():
                if remote.task is not None:
                    remote.task.cancel()

    async def _pause(self, started: float) -> None:
        seconds = _ACTIVE_PAUSE_SECONDS if started < self._active_until else _IDLE_PAUSE_SECONDS
        if not self._view:
            seconds = _SYNC_POLL_SECONDS
        seconds *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads gateways
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            return
        await asyncio.sleep(started + _LEAST_PAUSE_SECONDS - asyncio.get_running_loop().time())

    async def _round(self, started: float) -> None:
        self._began += 1
        self._asked = set(itertools.islice(self._asking, _KEYS_ASKED_AT_ONCE))
        for key in self._asked:
            del self._asking[key]
        self._follow_listing()
        for remote in self._remotes.values():
            resting = remote.heard is False and started - remote.asked_at < _IDLE_PAUSE_SECONDS
            if not resting and (remote.task is None or remote.task.done()):
                remote.asked_at = started
                remote.task = asyncio.create_task(self._ask(remote))
        # Who was silent the last time is asked again, and not waited for.
        awaited = [remote.task for remote in self._remotes.values() if remote.heard is not False]
        tasks = [task for task in awaited if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        self._view = self._began
        self._view_at = started

    def _follow_listing(self) -> None:
        listed = {peer.address: peer.serving for peer in self._listed()}
        self._own &= listed.keys()
        for address in self._remotes.keys() - listed.keys():
            remote = self._remotes.pop(address)
            self._consumption.forget_present(remote.replica)
            self._client.forget(address)
            if remote.task is not None:
                remote.task.cancel()
        for address, serving in listed.items():
            if address in self._own:
                continue
            remote = self._remotes.setdefault(address, _Remote(address, serving))
            remote.serving = serving

    async def _ask(self, remote: _Remote) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                answer = await self._get(remote)
            told = consumption.parse(answer.body) if answer.status == 200 else None
        except (UnreachableError, InvalidAnswerError, TimeoutError) as error:
            self._failed(remote, "silent", type(error).__name__)
        except MalformedError as error:
            self._failed(remote, "malformed", str(error))
        else:
            if told is None:
                self._failed(remote, "malformed", f"HTTP {answer.status}")
            else:
                self._heard(remote, told)

    async def _get(self, remote: _Remote) -> BackendAnswer:
        target = f"{PATH}?process={remote.of}&since={remote.since}&asking={','.join(self._asked)}"
        try:
            return await self._client.get(remote.address, target)
        except UnreachableError as error:
            if not error.stale:
                raise
            return await self._client.get(remote.address, target)  # that connection had only been idle

    def _heard(self, remote: _Remote, told: consumption.Answer) -> None:
        if told.replica == self._consumption.replica:
            self._own.add(remote.address)
            del self._remotes[remote.address]
            return
        if told.replica != remote.replica:
            self._consumption.forget_present(remote.replica)  # another process at that address
        self._metrics.peer_answers.labels("heard").inc()
        self._consumption.merge(told, self._clock())
        remote.heard, remote.replica = True, told.replica
        remote.since, remote.of = told.sequence, told.replica

    def _failed(self, remote: _Remote, outcome: str, reason: str) -> None:
        self._metrics.peer_answers.labels(outcome).inc()
        if remote.heard is not False:
            _log.info("peer_failed", peer=remote.address.host, outcome=outcome, reason=reason)
        remote.heard = False
        remote.since, remote.of = 0, ""  # what it says next is to be the whole of it
        self._consumption.forget_present(remote.replica)
