"""One look at one APIKey: make, hand out and take back its keys, keep its status true. Called by workers."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog
from pydantic import ValidationError

from rerank_api import keys, names
from rerank_api.api_key import APIKey, APIKeyStatus, KeyHash
from rerank_api.conditions import Verdict
from rerank_operator import key_lifecycle, resources, status, usage
from rerank_operator.api_error import ApiError
from rerank_operator.builders import secret
from rerank_operator.claims import Claims, ObjectId, Strength
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice, Recorder, notices
from rerank_operator.key_lifecycle import Cause, Written
from rerank_operator.listed import Listed
from rerank_operator.resources import Object

# Nothing tells when somebody else's Secret is removed: Secrets are neither read nor watched.
SECRET_SECONDS: Final = 30.0
# Nor when ours is. To ask is a request for each key, so it is done with the resync's looks and no oftener.
CHECK_SECONDS: Final = 300.0
# A clock may be set: look again at least this often on the way to a far expiry.
LONGEST_WAIT_SECONDS: Final = 3600.0

# What was used is the collector's to write, under a field manager of its own.
_OURS: Final = APIKeyStatus.model_fields.keys() - usage.FIELDS
_STATUS_FIELDS: Final = status.fields_of(APIKeyStatus, only=_OURS)
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
        look = _Look(self.api, key, live, self.clock())
        await self._act(look)
        outcome = partial(
            key_lifecycle.status_of,
            key,
            now=look.now,
            written=look.written,
            removed=look.removed,
            trouble=look.trouble,
        )
        wanted = outcome()
        taken = await self._taken(key, wanted.hashes)
        if taken:
            wanted = outcome(taken=taken)
        await self._report(look, wanted)
        change = key_lifecycle.next_change(key, wanted, look.now)
        waits = [SECRET_SECONDS] if look.trouble is not None else []
        if change is not None:
            waits.append(min(max((change - look.now).total_seconds(), 0.05), LONGEST_WAIT_SECONDS))
        return min(waits, default=None)

    async def _act(self, look: "_Look") -> None:
        """The one step that is due: a new key, or the end of a Secret."""
        key = look.key
        cause = key_lifecycle.due(key)
        if cause is None and key_lifecycle.secret_is_over(key, look.now):
            await look.remove_secret()
        elif cause is None and self._check_is_due(key, look.now) and await look.secret_is_lost():
            cause = "Lost"
        if cause is not None:
            await look.hand_out(cause)
            self._checked[_id(key)] = look.now

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

    async def _report(self, look: "_Look", wanted: APIKeyStatus) -> None:
        written = status.as_written(wanted, only=_OURS)
        if not status.differs(written, look.live.get("status", {}), fields=_STATUS_FIELDS):
            return
        try:
            await self.api.apply_status(resources.API_KEY, look.live, written)
        except ApiError as error:
            if error.outdated:
                await look.take_back()
            raise
        old = look.key.status.conditions
        changed = [c for c in status.changed(old, wanted.conditions) if c.type in _TOLD]
        self.recorder.record(look.key, look.notices or notices(old, changed))


@dataclass(slots=True)
class _Look:
    """One look under way: what it does to the Secret, and what came of it."""

    api: Cluster
    key: APIKey
    live: Object
    now: datetime
    written: Written | None = None
    removed: bool = False
    trouble: Verdict | None = None
    notices: list[Notice] = field(default_factory=list)
    _made: Object | None = None
    """Metadata of the first Secret, where this look made it."""

    async def hand_out(self, cause: Cause) -> None:
        """A new key in the Secret.

        The first one is written before the status knows of it: one in the status alone would be in nobody's
        hands. A later one is accepted first, beside the former, so that whoever reads it can use it. Cut off
        anywhere, the next look makes another and overwrites its own Secret.
        """
        minted = keys.mint()
        uid = await self._write(cause, minted)
        if uid is None:
            return
        if key_lifecycle.is_renamed(self.key):  # also where the version was raised in the same edit
            await self._remove()
        self.written = Written(cause=cause, minted=minted, secret_uid=uid, at=self.now)
        self.notices.append(_news(self.key, cause))

    async def remove_secret(self) -> None:
        """Remove the Secret that the status names, if it is still that one."""
        # What the status says may have been overtaken, and then the Secret holds a newer key.
        await self.api.confirm(resources.API_KEY, self.live)
        await self._remove()

    async def take_back(self) -> None:
        """Remove the Secret that this look made: the status will not tell of it."""
        if self._made is None:
            return
        try:
            await self.api.delete_secret(
                self.key.metadata.namespace,
                self.key.secret_name,
                uid=self._made["uid"],
                resource_version=self._made["resourceVersion"],
            )
        except ApiError as error:  # the next look takes it over, unless the Secret was renamed
            _log.warning("a Secret was left", namespace=self.key.metadata.namespace, error=str(error))

    async def secret_is_lost(self) -> bool:
        """Whether the Secret is there no more. Asked by a write that is only tried: that reads no Secret."""
        there = await self._apply(secret.api_key_secret(self.key, text=None), dry_run=True)
        return there is not None and there["uid"] != self.key.status.secret_uid

    async def _write(self, cause: Cause, minted: keys.MintedKey) -> str | None:
        """The uid of the Secret that holds the key now; None where it could not be handed out.

        Nothing in a Secret is overwritten but what stood there when the status was the newest: a request may
        arrive late, when another look has handed out another key.
        """
        intent = secret.api_key_secret(self.key, text=minted.text)
        if cause == "First":
            try:
                made = await self._apply(intent, resource_version="")
            except ApiError as error:
                if not error.outdated:
                    raise
                # There is a Secret: of a look that was cut off, or of somebody else.
            else:
                self._made = made
                return str(made["uid"]) if made else None
        there = await self._apply(intent, dry_run=True)
        if there is None or not await self._announce(cause, minted):
            return None
        written = await self._apply(intent, resource_version=there.get("resourceVersion", ""))
        return str(written["uid"]) if written else None

    async def _announce(self, cause: Cause, minted: keys.MintedKey) -> bool:
        hashes = key_lifecycle.announced(self.key, cause, minted, self.now)
        if hashes is None:
            self.trouble = _too_many(cause)
            return False
        announced = status.as_written(self.key.status.model_copy(update={"hashes": hashes}), only=_OURS)
        self.live = await self.api.apply_status(resources.API_KEY, self.live, announced)
        return True

    async def _apply(
        self, intent: Object, *, resource_version: str | None = None, dry_run: bool = False
    ) -> Object | None:
        """The metadata of the Secret; None where it is refused, which becomes the look's trouble."""
        try:
            return await self.api.apply_secret(
                intent,
                field_manager=names.secret_field_manager(self.key.metadata.name),
                resource_version=resource_version,
                dry_run=dry_run,
            )
        except ApiError as error:
            self.trouble = _refusal(self.key, error)
            if self.trouble is None:
                raise
            return None

    async def _remove(self) -> None:
        name, uid = self.key.status.secret_name, self.key.status.secret_uid
        if name is None or uid is None:
            return
        await self.api.delete_secret(
            self.key.metadata.namespace, name, uid=uid, resource_version=await self._version(name, uid)
        )
        self.removed = True
        self.notices.append(Notice("Normal", "SecretRemoved", f'the Secret "{name}" was removed'))

    async def _version(self, name: str, uid: str) -> str | None:
        """The version of a Secret of ours as it is now; None where it is not, or nobody may change it."""
        intent = secret.api_key_secret(self.key, text=None)
        intent = {**intent, "metadata": {**intent["metadata"], "name": name}}
        manager = names.secret_field_manager(self.key.metadata.name)
        try:
            there = await self.api.apply_secret(
                intent, field_manager=manager, resource_version=None, dry_run=True
            )
        except ApiError as error:
            if not (error.conflict or error.refused):
                raise
            return None
        return there.get("resourceVersion") if there["uid"] == uid else None


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


def _news(key: APIKey, cause: Cause) -> Notice:
    where = key_lifecycle.handed_out(key.secret_name)
    if cause == "First":
        return Notice("Normal", "KeyWritten", where)
    if cause == "Raised":
        return Notice("Normal", "KeyReplaced", f"a new key was made for version {key.spec.version}: {where}")
    still = "the former key is accepted until spec.version is raised"
    if cause == "Renamed":
        return Notice("Normal", "KeyWritten", f"a new key was made for the new Secret: {where}; {still}")
    message = (
        f"the Secret was gone, and a key cannot be told from its hash: a new one was made; {where}; {still}"
    )
    return Notice("Warning", "SecretLost", message)


def _too_many(cause: Cause) -> Verdict:
    if cause == "Raised":
        count = key_lifecycle.MAX_HASHES
        way_out = "wait for one to expire, or lower spec.overlapSeconds to end the former ones"
    else:
        count = key_lifecycle.MAX_UNRAISED
        way_out = "raise spec.version, which makes a new one and gives the former ones an end"
    message = f"{count} keys are accepted already: {way_out}"
    return Verdict(type="Provisioned", status="False", reason="TooManyKeys", message=message)


def _refusal(key: APIKey, error: ApiError) -> Verdict | None:
    """Why no Secret could be written, where trying again at once is of no use."""
    if error.outdated or not (error.conflict or error.refused):
        return None
    reason, message = "SecretRefused", f"the Secret was refused: {error.message}"
    if error.conflict or error.status == 422:
        if key.status.secret_uid is not None and not key_lifecycle.is_renamed(key):
            # It was ours, and need not be another one now: somebody else may have claimed or frozen it.
            message += (
                f'; take back what was changed, or remove Secret "{key.secret_name}": a new key is made'
            )
        else:
            reason = "SecretNameTaken"
            message = (
                f'a Secret "{key.secret_name}" exists and is not this APIKey\'s: remove it, or set another'
                " spec.secret.name"
            )
    return Verdict(type="Provisioned", status="False", reason=reason, message=message)
