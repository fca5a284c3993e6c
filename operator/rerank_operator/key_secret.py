"""The Secret of an APIKey during one look: made, replaced, taken back. Called by the key reconciler.

Secrets are neither read nor watched: what there is to know of one, an apply that is only tried tells.
"""

from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rerank_api import keys, names
from rerank_api.api_key import APIKey
from rerank_api.conditions import Verdict
from rerank_operator import key_lifecycle, resources, status
from rerank_operator.api_error import ApiError
from rerank_operator.builders import secret
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice
from rerank_operator.key_lifecycle import Cause, Written
from rerank_operator.resources import Object

_log = structlog.get_logger()


@dataclass(slots=True)
class KeySecret:
    """What one look does to the Secret of an APIKey, and what came of it."""

    api: Cluster
    key: APIKey
    owner: Object
    """The same APIKey as the API server has it."""
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

    async def remove(self) -> None:
        """Remove the Secret that the status names, if it is still that one."""
        # What the status says may have been overtaken, and then the Secret holds a newer key.
        await self.api.confirm(resources.API_KEY, self.owner)
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

    async def is_lost(self) -> bool:
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
        announced = status.as_written(
            self.key.status.model_copy(update={"hashes": hashes}), only=key_lifecycle.DECIDED
        )
        self.owner = await self.api.apply_status(resources.API_KEY, self.owner, announced)
        return True

    async def _apply(
        self, intent: Object, *, resource_version: str | None = None, dry_run: bool = False
    ) -> Object | None:
        """The metadata of the Secret; None where it is refused, which becomes the look's trouble."""
        try:
            return await self._send(intent, resource_version=resource_version, dry_run=dry_run)
        except ApiError as error:
            self.trouble = refusal(self.key, error)
            if self.trouble is None:
                raise
            return None

    async def _send(self, intent: Object, *, resource_version: str | None, dry_run: bool) -> Object:
        return await self.api.apply_secret(
            intent,
            field_manager=names.secret_field_manager(self.key.metadata.name),
            resource_version=resource_version,
            dry_run=dry_run,
        )

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
        try:
            there = await self._send(intent, resource_version=None, dry_run=True)
        except ApiError as error:
            if not (error.conflict or error.refused):
                raise
            return None
        return there.get("resourceVersion") if there["uid"] == uid else None


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


def refusal(key: APIKey, error: ApiError) -> Verdict | None:
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
