"""The life of an APIKey's keys: what is due next, and what its status says. Pure; the reconciler acts on it.

Which keys are accepted stands in `status.hashes`, and nothing but the status remembers what was done: so a
process that dies at any point leaves a state that the next look goes on from.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from rerank_api import keys, names
from rerank_api.api_key import OVERLAP_SECONDS, APIKey, APIKeyStatus, KeyHash
from rerank_api.conditions import Verdict, merge
from rerank_api.keys import MintedKey
from rerank_operator import usage

Cause = Literal["First", "Raised", "Renamed", "Lost"]
"""Why a key is made: there is none, the version was raised, the Secret got another name or vanished."""

# A gateway whose clock is behind ours must take a new key at once. Nobody could have known it earlier.
CLOCK_SKEW: Final = timedelta(minutes=1)
DECIDED: Final = APIKeyStatus.model_fields.keys() - usage.FIELDS
"""The status fields that are decided here. What was used the collector writes, by its own field manager."""
MAX_HASHES: Final = 8  # status.hashes, maxItems
# A raise ends the former keys, nothing else does: so the last place is kept for one.
MAX_UNRAISED: Final = MAX_HASHES - 1
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Written:
    """A key that stands in its Secret: why it was made, the Secret's uid, and when."""

    cause: Cause
    minted: MintedKey
    secret_uid: str
    at: datetime


def due(key: APIKey) -> Cause | None:
    """Why a new key is to be made now. A vanished Secret is not seen here: nothing tells of it by itself."""
    if key.spec.hashes is not None:
        return None
    status = key.status
    version = _delivered(status)
    if version is None:
        return "First"
    if _wanted_version(key) > version:
        return "Raised"
    return "Renamed" if is_renamed(key) else None


def secret_is_over(key: APIKey, now: datetime) -> bool:
    """Whether the Secret with the key is to be removed: its time is up, or the keys are the user's own.

    Without its uid it cannot be told from one that somebody put in its place: then it stays.
    """
    if key.status.secret_name is None or key.status.secret_uid is None:
        return False
    ends = _secret_ends(key, key.status.secret_written_at)
    return key.spec.hashes is not None or (ends is not None and now >= ends)


def is_renamed(key: APIKey) -> bool:
    """Whether the status names a Secret other than the one that the spec wants."""
    return key.status.secret_name not in {None, key.secret_name}


def announced(key: APIKey, cause: Cause, minted: MintedKey, now: datetime) -> list[KeyHash] | None:
    """The hashes with that of a key that is about to be handed out; None when there are too many already.

    The key is accepted before anybody can read it, and the former ones still are. One that an earlier attempt
    announced may have been read, so it counts among the former.
    """
    former = _former(key, now)
    most = MAX_HASHES if cause == "Raised" else MAX_UNRAISED
    return None if len(former) >= most else [*former, _entry(key, minted, now)]


def status_of(
    key: APIKey,
    *,
    now: datetime,
    written: Written | None = None,
    removed: bool = False,
    trouble: Verdict | None = None,
    taken: Collection[str] = (),
) -> APIKeyStatus:
    """The whole status.

    Args:
        key: the resource as read.
        now: the time of the look.
        written: the key that this look handed out.
        removed: this look removed the Secret.
        trouble: what kept it from making a key.
        taken: hashes that an older APIKey lists.
    """
    status = key.status
    if key.spec.hashes is not None:
        status = _brought(key)
    elif written is not None:
        status = _handed_out(key, written)
    elif removed:
        status = status.model_copy(update=_NO_SECRET)
    version = _delivered(status)
    hashes = _with_ends(status.hashes, version, _overlap(key))
    ends = _secret_ends(key, status.secret_written_at) if status.secret_name else None
    status = status.model_copy(update={"version": version, "hashes": hashes, "secret_expires_at": ends})
    generation = key.metadata.generation
    verdicts = [
        _ready(key, hashes, now, taken=taken, trouble=trouble),
        _provisioned(key, status, taken=taken, trouble=trouble),
        _expired(key, hashes, now),
        _revoked(key),
    ]
    conditions = merge(key.status.conditions, verdicts, generation=generation, now=now.replace(microsecond=0))
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def next_change(key: APIKey, status: APIKeyStatus, now: datetime) -> datetime | None:
    """When the status will not be true any more by the mere passing of time."""
    times = [key.spec.expires_at, status.secret_expires_at]
    times += [time for known in status.hashes for time in (known.not_before, known.expires_at)]
    return min((time for time in times if time is not None and time > now), default=None)


# The keys


def _wanted_version(key: APIKey) -> int:
    return key.spec.version or 1


def _delivered(status: APIKeyStatus) -> int | None:
    """The version whose key was handed out; None where none was made.

    A status that tells of a Secret and of no version is that of an operator which knew no versions.
    """
    return status.version or (1 if status.secret_name is not None and status.hashes else None)


def _overlap(key: APIKey) -> timedelta:
    seconds = key.spec.overlap_seconds
    return timedelta(seconds=OVERLAP_SECONDS if seconds is None else seconds)


def _entry(key: APIKey, minted: MintedKey, now: datetime) -> KeyHash:
    return KeyHash(
        key_id=minted.key_id,
        sha256=minted.sha256,
        version=_wanted_version(key),
        not_before=now.replace(microsecond=0) - CLOCK_SKEW,
    )


def _former(key: APIKey, now: datetime) -> list[KeyHash]:
    """The keys that a new one joins. Expired ones were kept for the sake of a clear refusal: no longer.

    Where there is no place left, what the oldest failed attempt announced gives up its own: of a version that
    was never handed out, it would get no end for as long as no further attempt can be made.
    """
    version = _delivered(key.status)
    if version is None:
        return []
    alive = [known for known in key.status.hashes if known.expires_at is None or known.expires_at > now]
    attempt = next((known for known in alive if (known.version or version) > version), None)
    if len(alive) >= MAX_HASHES and attempt is not None:
        alive.remove(attempt)
    return [known.model_copy(update={"version": min(known.version or version, version)}) for known in alive]


def _handed_out(key: APIKey, written: Written) -> APIKeyStatus:
    minted = written.minted
    return key.status.model_copy(
        update={
            "version": _wanted_version(key),
            "key_id": minted.key_id,
            "hint": minted.hint,
            "secret_name": key.secret_name,
            "secret_uid": written.secret_uid,
            "secret_written_at": written.at.replace(microsecond=0),
            "hashes": [*_former(key, written.at), _entry(key, minted, written.at)],
        }
    )


_NO_SECRET: Final = {"secret_name": None, "secret_uid": None}


def _brought(key: APIKey) -> APIKeyStatus:
    since = (key.metadata.creation_timestamp or _EPOCH) - CLOCK_SKEW
    assert key.spec.hashes is not None  # noqa: S101  # narrows
    hashes = [
        KeyHash(
            key_id=keys.brought_id(own.sha256),
            sha256=own.sha256,
            not_before=own.not_before or since,
            expires_at=own.expires_at,
        )
        for own in key.spec.hashes
    ]
    update = {
        **_NO_SECRET,
        "version": None,
        "key_id": hashes[-1].key_id,
        "hint": f"sha256:{hashes[-1].sha256[:8]}…",
        "secret_written_at": None,
        "hashes": hashes,
    }
    return key.status.model_copy(update=update)


def _with_ends(hashes: Iterable[KeyHash], version: int | None, overlap: timedelta) -> list[KeyHash]:
    """Each key ends the overlap after the first key of a later version was handed out."""
    hashes = list(hashes)
    if version is None:
        return hashes
    found = []
    for known in hashes:
        later = [
            other.not_before
            for other in hashes
            if (known.version or version) < (other.version or version) <= version
        ]
        ends = min(later) + CLOCK_SKEW + overlap if later else None
        found.append(known.model_copy(update={"expires_at": ends}))
    return found


def _secret_ends(key: APIKey, written_at: datetime | None) -> datetime | None:
    seconds = key.spec.secret.ttl_seconds if key.spec.secret else None
    return None if seconds is None or written_at is None else written_at + timedelta(seconds=seconds)


# The conditions


def _ready(
    key: APIKey,
    hashes: list[KeyHash],
    now: datetime,
    *,
    taken: Collection[str],
    trouble: Verdict | None,
) -> Verdict:
    def no(reason: str, message: str) -> Verdict:
        return Verdict(type="Ready", status="False", reason=reason, message=message)

    expires_at = key.spec.expires_at
    if not hashes and trouble is not None:
        return no(trouble.reason, trouble.message)
    if key.spec.disabled:
        return no("Disabled", "spec.disabled is true")
    if expires_at is not None and now >= expires_at:
        return no("Expired", f"expired at {_time(expires_at)}; a later spec.expiresAt revives it")
    own = [known for known in hashes if known.sha256 not in taken]
    if not own:
        return no("HashTaken", _taken(key, hashes, taken))
    alive = [known for known in own if known.expires_at is None or now < known.expires_at]
    if not alive:
        return no("Expired", "every entry of spec.hashes has expired; a later expiresAt revives it")
    if all(now < known.not_before for known in alive):
        first = min(known.not_before for known in alive)
        return no("NotYetValid", f"the key works from {_time(first)} on, as spec.hashes says")
    return Verdict(type="Ready", status="True", reason="Active", message=_accepted(alive))


def _accepted(alive: list[KeyHash]) -> str:
    ends = sorted(f"{known.key_id} until {_time(known.expires_at)}" for known in alive if known.expires_at)
    count = "1 key is accepted" if len(alive) == 1 else f"{len(alive)} keys are accepted"
    return f"{count} ({', '.join(ends)})" if ends else count


def _provisioned(
    key: APIKey, status: APIKeyStatus, *, taken: Collection[str], trouble: Verdict | None
) -> Verdict:
    """Where the key is, or why it is not as the spec wants it."""
    if trouble is not None:
        return trouble
    lost = [known for known in status.hashes if known.sha256 in taken]
    if lost:
        return _verdict("False", "HashTaken", _taken(key, status.hashes, taken))
    if key.spec.hashes is not None:
        return _verdict("True", "BroughtAlong", "the keys are those of spec.hashes; no key is made")
    if status.secret_name is None:
        message = "the Secret was removed when its time was up; raise spec.version for a new key"
        return _verdict("True", "SecretRemoved", message)
    until = f" until {_time(status.secret_expires_at)}" if status.secret_expires_at else ""
    return _verdict("True", "SecretWritten", f"{handed_out(status.secret_name)}{until}")


def handed_out(secret: str) -> str:
    """Where a key is to be found, for people."""
    return f'the key stands in Secret "{secret}" under "{names.API_KEY_SECRET_FIELD}"'


def _taken(key: APIKey, hashes: Iterable[KeyHash], taken: Collection[str]) -> str:
    lost = [known.key_id for known in hashes if known.sha256 in taken]
    return (
        f"an older APIKey lists the same key ({', '.join(lost)}), and it counts as that one's alone: remove"
        f" it from either, or delete the older APIKey to have it count as that of {key.metadata.name}"
    )


def _expired(key: APIKey, hashes: list[KeyHash], now: datetime) -> Verdict:
    ends = [time for time in (key.spec.expires_at, _last_end(hashes)) if time is not None]
    if not ends:
        return Verdict(type="Expired", status="False", reason="NoExpiry", message="it never expires")
    end = min(ends)
    if now >= end:
        return Verdict(type="Expired", status="True", reason="Expired", message=f"expired at {_time(end)}")
    return Verdict(type="Expired", status="False", reason="NotYet", message=f"expires at {_time(end)}")


def _last_end(hashes: list[KeyHash]) -> datetime | None:
    ends = [known.expires_at for known in hashes]
    return max((end for end in ends if end), default=None) if all(ends) else None


def _revoked(key: APIKey) -> Verdict:
    if key.spec.disabled:
        return Verdict(type="Revoked", status="True", reason="Disabled", message="spec.disabled is true")
    return Verdict(type="Revoked", status="False", reason="NotDisabled", message="spec.disabled is false")


def _verdict(status: Literal["True", "False"], reason: str, message: str) -> Verdict:
    return Verdict(type="Provisioned", status=status, reason=reason, message=message)


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
