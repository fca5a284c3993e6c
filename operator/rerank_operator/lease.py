"""Leadership by a Lease, with client-go's figures: 15 s to live, 10 s to renew, 2 s between renewals.

Only the leader runs kopf and the workers. A Lease alone does not stop a leader that slept (SIGSTOP, a paused
machine): so `held` asks the clock before each write, and losing the Lease ends the process at once.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from rerank_operator import resources
from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.resources import Object

DURATION_SECONDS: Final = 15
RENEW_DEADLINE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0
HAND_BACK_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.1

_log = structlog.get_logger()


@dataclass(slots=True)
class LeaderLease:
    """The Lease, as one process sees it. `identity` must differ for each start of a process."""

    api: Cluster
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float] = time.monotonic
    _renewed: float | None = None
    _claimed: bool = False
    _seen: tuple[object, float] = field(default=(None, 0.0))

    def seconds_left(self) -> float:
        """For how long this process may write, if it does not renew the Lease: well under its duration."""
        return 0.0 if self._renewed is None else self._renewed + RENEW_DEADLINE_SECONDS - self.clock()

    def held(self) -> bool:
        """Whether this process may write now."""
        return self.seconds_left() > 0

    async def acquire(self) -> None:
        """Return when this process is the leader."""
        waiting = False
        while not await self._attempt():
            if not waiting:
                _log.info("waiting for the lease", lease=self.name, holder=self._holder())
                waiting = True
            await asyncio.sleep(RETRY_SECONDS)
        _log.info("leading", lease=self.name, identity=self.identity)

    async def keep(self) -> None:
        """Renew until the Lease is lost; then return."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self._attempt()
            if not self.held():
                return

    async def release(self) -> None:
        """Hand the Lease back, so that the next leader need not wait for it to run out."""
        if not self._claimed:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._hand_back()
        except (ApiError, TimeoutError) as error:
            _log.info("the lease was not handed back", error=str(error) or type(error).__name__)

    async def _hand_back(self) -> None:
        """What was asked and cut off may be carried out all the same, even amid this: then try again."""
        while True:
            lease = await self.api.get(resources.LEASE, self.namespace, self.name)
            if lease is None or lease.get("spec", {}).get("holderIdentity") != self.identity:
                return
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                await self.api.replace_lease({**lease, "spec": spec}, deadline=HAND_BACK_SECONDS)
            except ApiError as error:
                if not error.conflict:
                    raise
            else:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _attempt(self) -> bool:
        """Take or renew the Lease once. The time that counts is when the request left."""
        started = self.clock()
        try:
            # Not in a task of its own: kopf, when it stops, cancels every task that is younger than itself.
            async with asyncio.timeout(RENEW_DEADLINE_SECONDS / 2):
                taken = await self._take()
        except TimeoutError:
            taken = False
        except ApiError as error:
            if not error.conflict:
                _log.warning("the lease could not be renewed", error=str(error))
            taken = False
        if taken:
            self._renewed = started
        return taken

    async def _take(self) -> bool:
        lease = await self.api.get(resources.LEASE, self.namespace, self.name)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if lease is None:
            self._claimed = True
            await self.api.create_lease(self._new(now))
            return True
        spec = lease.get("spec", {})
        mine = spec.get("holderIdentity") == self.identity
        if not mine and not self._is_free(lease):
            return False
        spec = {
            **spec,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": now,
        }
        if not mine:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        self._claimed = True
        await self.api.replace_lease({**lease, "spec": spec}, deadline=RENEW_DEADLINE_SECONDS / 2)
        return True

    def _is_free(self, lease: Object) -> bool:
        """Nobody holds it, or the holder has not renewed it for its whole duration, by our clock alone."""
        spec = lease.get("spec", {})
        if not spec.get("holderIdentity"):
            return True
        record = (spec.get("holderIdentity"), spec.get("renewTime"), lease["metadata"]["resourceVersion"])
        if self._seen[0] != record:
            self._seen = (record, self.clock())
        return self.clock() - self._seen[1] >= float(spec.get("leaseDurationSeconds", DURATION_SECONDS))

    def _holder(self) -> str:
        return str(self._seen[0][0]) if isinstance(self._seen[0], tuple) else ""

    def _new(self, now: str) -> Object:
        return {
            "apiVersion": resources.LEASE.api_version,
            "kind": resources.LEASE.kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
