"""One look at one APIKey: make, hand out and take back its keys, keep its status true. Called by workers."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog
from pydantic import ValidationError

from rerank_api.api_key import APIKey, APIKeyStatus, KeyHash
from rerank_operator import key_lifecycle, resources, status
from rerank_operator.api_error import ApiError
from rerank_operator.claims import Claims, ObjectId, Strength
from rerank_operator.cluster import Cluster
from rerank_operator.events import Recorder, notices
from rerank_operator.key_secret import KeySecret
from rerank_operator.listed import Listed

# Nothing tells when somebody else's Secret is removed: Secrets are neither read nor watched.
SECRET_SECONDS: Final = 30.0
# Nor when ours is. To ask is a request for each key, so it is done with the resync's looks and no oftener.
CHECK_SECONDS: Final = 300.0
# A clock may be set: look again at least this often on the way to a far expiry.
LONGEST_WAIT_SECONDS: Final = 3600.0

_STATUS_FIELDS: Final = status.fields_of(APIKeyStatus, only=key_lifecycle.DECIDED)
_TOLD: Final = frozenset({"Ready", "Provisioned"})
_log = structlog.get_logger()


@dataclass(slots=True)
class KeyReconciler:
    """Mints the keys of an APIKey, hands them out in a Secret, and says which are accepted.

    Attributes:
        api: the API server.
        listed: the resources, for the first look at each.
        recorder: posts events.
        claims: which APIKeys list which hash.
        wake: has another APIKey looked at, by namespace and name.
        clock: the time now, in UTC.
    """

    api: Cluster
    listed: Listed
    recorder: Recorder
    claims: Claims[str]
    wake: Callable[[str, str], None]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _checked: dict[ObjectId, datetime] = field(default_factory=dict)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One look. Returns the seconds until the next one is due, None when an event will ask for it.

        Raises:
            ApiError: the look could not be finished; try again.
        """
        await self.claims.fill()
        live = await self.listed.read(resources.API_KEY, namespace, name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self._forget((namespace, name))
            return None  # the owner reference sees to the Secret
        try:
            key = APIKey.parse(live)
        except ValidationError as error:
            _log.error("cannot read an APIKey", namespace=namespace, name=name, errors=error.error_count())
            return None
        now = self.clock()
        secret = KeySecret(self.api, key, live, now)
        await self._act(secret)
        outcome = partial(
            key_lifecycle.status_of,
            key,
            now=now,
            written=secret.written,
            removed=secret.removed,
            trouble=secret.trouble,
        )
        wanted = outcome()
        taken = await self._taken(key, wanted.hashes)
        if taken:
            wanted = outcome(taken=taken)
        await self._report(secret, wanted)
        change = key_lifecycle.next_change(key, wanted, now)
        waits = [SECRET_SECONDS] if secret.trouble is not None else []
        if change is not None:
            waits.append(min(max((change - now).total_seconds(), 0.05), LONGEST_WAIT_SECONDS))
        return min(waits, default=None)

    async def _act(self, secret: KeySecret) -> None:
        """The one step that is due: a new key, or the end of a Secret."""
        key = secret.key
        cause = key_lifecycle.due(key)
        if cause is None and key_lifecycle.secret_is_over(key, secret.now):
            await secret.remove()
        elif cause is None and self._check_is_due(key, secret.now) and await secret.is_lost():
            cause = "Lost"
        if cause is not None:
            await secret.hand_out(cause)
            self._checked[_id(key)] = secret.now

    def _check_is_due(self, key: APIKey, now: datetime) -> bool:
        """Whether to ask if the Secret is still there. The first time is left to chance: no burst."""
        if key.status.secret_uid is None:
            return False
        if any(c.type == "Provisioned" and c.status == "False" for c in key.status.conditions):
            return True  # whether that is over, only asking tells
        last = self._checked.get(_id(key))
        if last is None:
            early = timedelta(seconds=random.uniform(0, CHECK_SECONDS))  # noqa: S311  # spreads load
            last = self._checked[_id(key)] = now - early
        if now < last + timedelta(seconds=CHECK_SECONDS):
            return False
        self._checked[_id(key)] = now
        return True

    async def _taken(self, key: APIKey, hashes: list[KeyHash]) -> frozenset[str]:
        """Those of the hashes that an older APIKey lists; wakes the APIKeys that this one concerns."""
        strength = _strength(key.metadata.creation_timestamp, _id(key))
        for other in self.claims.note(_id(key), {known.sha256: strength for known in hashes}):
            self.wake(*other)
        lost = self.claims.lost(_id(key))
        for winner in set(lost.values()):
            if await self.api.get(resources.API_KEY, *winner) is None:  # its end went unseen
                self._forget(winner)
        return frozenset(self.claims.lost(_id(key)))

    def _forget(self, owner: ObjectId) -> None:
        self._checked.pop(owner, None)
        for other in self.claims.note(owner, {}):
            self.wake(*other)

    async def _report(self, secret: KeySecret, wanted: APIKeyStatus) -> None:
        written = status.as_written(wanted, only=key_lifecycle.DECIDED)
        if not status.differs(written, secret.owner.get("status", {}), fields=_STATUS_FIELDS):
            return
        try:
            await self.api.apply_status(resources.API_KEY, secret.owner, written)
        except ApiError as error:
            if error.outdated:
                await secret.take_back()
            raise
        old = secret.key.status.conditions
        changed = [c for c in status.changed(old, wanted.conditions) if c.type in _TOLD]
        self.recorder.record(secret.key, secret.notices or notices(old, changed))


def known_hashes(listed: Listed) -> Callable[[], AsyncIterator[tuple[ObjectId, Mapping[str, Strength]]]]:
    """What every APIKey lists, for the claims to start with."""

    async def known() -> AsyncIterator[tuple[ObjectId, Mapping[str, Strength]]]:
        async for item in listed.all(resources.API_KEY):
            metadata = item["metadata"]
            owner = (metadata["namespace"], metadata["name"])
            strength = _strength(datetime.fromisoformat(metadata["creationTimestamp"]), owner)
            hashes = (item.get("status") or {}).get("hashes") or ()
            yield owner, {known["sha256"]: strength for known in hashes}

    return known


def _strength(created: datetime | None, owner: ObjectId) -> Strength:
    """The oldest has the hash, as the gateway decides too."""
    return (created.timestamp() if created else 0.0, owner)


def _id(key: APIKey) -> ObjectId:
    return (key.metadata.namespace, key.metadata.name)
