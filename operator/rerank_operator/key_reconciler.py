"""One look at one APIKey: mint it once, keep its status true. Called by the workers of `main`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from pydantic import ValidationError

from rerank_api import keys, names
from rerank_api.api_key import APIKey, APIKeyStatus, KeyHash
from rerank_api.conditions import Verdict, merge
from rerank_operator import cluster, status, usage
from rerank_operator.builders import secret
from rerank_operator.events import Notice, Recorder, notices

# Nothing tells when somebody else's Secret is removed: Secrets are neither read nor watched.
SECRET_SECONDS: Final = 30.0
# A clock may be set: look again at least this often on the way to a far expiry.
LONGEST_WAIT_SECONDS: Final = 3600.0
# A gateway whose clock is behind ours must take a new key at once. Nobody could have known it earlier.
CLOCK_SKEW: Final = timedelta(minutes=1)

# What was used is the collector's to write, under a field manager of its own.
_OURS: Final = APIKeyStatus.model_fields.keys() - usage.FIELDS
_STATUS_FIELDS: Final = status.fields_of(APIKeyStatus, only=_OURS)
_log = structlog.get_logger()


@dataclass(slots=True)
class KeyReconciler:
    """Mints the key of an APIKey, hands it out in a Secret, and says whether it is accepted."""

    api: cluster.Cluster
    recorder: Recorder

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One look. Returns the seconds until the next one is due, None when an event will ask for it.

        Raises:
            cluster.ApiError: the look could not be finished; try again.
        """
        live = await self.api.get(cluster.API_KEY, namespace, name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return None
        try:
            key = APIKey.parse(live)
        except ValidationError as error:
            _log.error("cannot read an APIKey", namespace=namespace, name=name, errors=error.error_count())
            return None
        now = datetime.now(UTC)
        minted, refusal = (None, None) if key.status.hashes else await self._mint(key, now)
        verdict = refusal or accepted(key, now)
        wanted = _status(key, minted, verdict, now)
        written = status.as_written(wanted, only=_OURS)
        if status.differs(written, live.get("status", {}), fields=_STATUS_FIELDS):
            await self.api.apply_status(cluster.API_KEY, live, written)
            old = key.status.conditions
            told = notices(old, status.changed(old, wanted.conditions))
            written_once = [Notice("Normal", "KeyWritten", _handed_out(key))]
            await self.recorder.record(key, written_once if minted else told)
        return SECRET_SECONDS if refusal else _until_expiry(key, now)

    async def _mint(self, key: APIKey, now: datetime) -> tuple[APIKeyStatus | None, Verdict | None]:
        """A new key, written to its Secret, as the status that records it; or why there is none.

        The Secret comes first: a key in the status alone would be accepted and in nobody's hands. Cut off
        between the two, the next look mints again and overwrites its own Secret.
        """
        minted = keys.mint()
        manager = names.secret_field_manager(key.metadata.name)
        try:
            await self.api.apply_secret(secret.api_key_secret(key, text=minted.text), field_manager=manager)
        except cluster.ApiError as error:
            refusal = _refusal(key, error)
            if refusal is None:
                raise
            return None, refusal
        known = KeyHash(
            key_id=minted.key_id, sha256=minted.sha256, not_before=now.replace(microsecond=0) - CLOCK_SKEW
        )
        return APIKeyStatus(
            key_id=minted.key_id, hint=minted.hint, secret_name=key.secret_name, hashes=[known]
        ), None


def accepted(key: APIKey, now: datetime) -> Verdict:
    """Whether the key is accepted at `now`. Pure."""
    if key.spec.disabled:
        return Verdict(type="Ready", status="False", reason="Disabled", message="spec.disabled is true")
    if key.spec.expires_at is not None and now >= key.spec.expires_at:
        message = f"expired at {key.spec.expires_at.isoformat()}; a later spec.expiresAt revives it"
        return Verdict(type="Ready", status="False", reason="Expired", message=message)
    return Verdict(type="Ready", status="True", reason="Active", message=_handed_out(key))


def _handed_out(key: APIKey) -> str:
    return f'the key stands in Secret "{key.secret_name}" under "{names.API_KEY_SECRET_FIELD}"'


def _refusal(key: APIKey, error: cluster.ApiError) -> Verdict | None:
    """Why no Secret could be written, where trying again at once is of no use."""
    if error.conflict or error.status == 422:
        reason = "SecretNameTaken"
        message = (
            f'a Secret "{key.secret_name}" exists and is not this APIKey\'s: remove it, or set another'
            " spec.secret.name"
        )
    elif error.refused:
        reason, message = "SecretRefused", f"the Secret was refused: {error.message}"
    else:
        return None
    return Verdict(type="Ready", status="False", reason=reason, message=message)


def _status(key: APIKey, minted: APIKeyStatus | None, verdict: Verdict, now: datetime) -> APIKeyStatus:
    generation = key.metadata.generation
    conditions = merge(
        key.status.conditions, [verdict], generation=generation, now=now.replace(microsecond=0)
    )
    return (minted or key.status).model_copy(
        update={"observed_generation": generation, "conditions": conditions}
    )


def _until_expiry(key: APIKey, now: datetime) -> float | None:
    if key.spec.expires_at is None or key.spec.disabled or now >= key.spec.expires_at:
        return None
    left = (key.spec.expires_at - now).total_seconds()
    return min(max(left, 0.05), LONGEST_WAIT_SECONDS)
