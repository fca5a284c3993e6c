"""What is due in the life of an APIKey's keys, which are accepted until when, and what is said of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api import keys
from rerank_api.api_key import APIKey, APIKeyStatus
from rerank_operator import key_lifecycle
from rerank_operator.key_lifecycle import (
    Cause,
    Written,
    announced,
    due,
    next_change,
    secret_is_over,
    status_of,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CREATED = "2026-11-01T00:00:00Z"
MINE = "a" * 64
DAY = 86_400


def key(status: APIKeyStatus | dict[str, Any] | None = None, **spec: Any) -> APIKey:
    metadata = {"name": "search", "namespace": "team", "uid": "u", "creationTimestamp": CREATED}
    found = APIKey.parse({"metadata": metadata, "spec": spec})
    if isinstance(status, dict):
        status = APIKeyStatus.model_validate(status)
    return found if status is None else found.model_copy(update={"status": status})


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def handed_out(key: APIKey, cause: Cause = "First", now: datetime = NOW) -> APIKeyStatus:
    """The status after a key was made."""
    return status_of(key, now=now, written=Written(cause, keys.mint(), "uid-1", now))


def condition(status: APIKeyStatus, kind: str) -> tuple[str, str]:
    (found,) = [c for c in status.conditions if c.type == kind]
    return found.status, found.reason


def ends(status: APIKeyStatus) -> list[float | None]:
    """When each key ends, in seconds from NOW."""
    times = [known.expires_at for known in status.hashes]
    return [None if time is None else (time - NOW).total_seconds() for time in times]


FIRST = handed_out(key())


@pytest.mark.parametrize(
    ("status", "spec", "cause"),
    [
        (None, {}, "First"),
        (None, {"version": 7}, "First"),
        (FIRST, {}, None),
        (FIRST, {"version": 1}, None),
        (FIRST, {"version": 2}, "Raised"),
        (FIRST, {"secret": {"name": "other"}}, "Renamed"),
        (FIRST, {"version": 2, "secret": {"name": "other"}}, "Raised"),
        (FIRST.model_copy(update={"secret_name": None}), {"secret": {"name": "other"}}, None),
        (FIRST, {"hashes": [{"sha256": MINE}]}, None),
        (None, {"hashes": [{"sha256": MINE}]}, None),
        (status_of(key(hashes=[{"sha256": MINE}]), now=NOW), {}, "First"),
    ],
)
def test_when_a_key_is_made(status: APIKeyStatus | None, spec: dict[str, Any], cause: str | None) -> None:
    assert due(key(status, **spec)) == cause


def test_the_former_key_works_for_the_overlap() -> None:
    raised = key(FIRST, version=2)
    status = handed_out(raised, "Raised")
    assert ends(status) == [DAY, None]
    assert status.version == 2
    assert status.key_id == status.hashes[1].key_id


@pytest.mark.parametrize(("overlap", "seconds"), [(0, 0), (60, 60), (2 * DAY, 2 * DAY)])
def test_the_overlap_may_be_changed_while_it_lasts(overlap: int, seconds: int) -> None:
    status = handed_out(key(FIRST, version=2), "Raised")
    later = status_of(key(status, version=2, overlapSeconds=overlap), now=NOW + timedelta(seconds=5))
    assert ends(later) == [seconds, None]


def test_each_version_ends_after_its_own_successor() -> None:
    status = handed_out(key(FIRST, version=2), "Raised")
    status = handed_out(key(status, version=3), "Raised", NOW + timedelta(seconds=100))
    assert ends(status) == [DAY, DAY + 100, None]


def test_expired_keys_are_dropped_when_the_next_one_is_made() -> None:
    status = handed_out(key(FIRST, version=2), "Raised")
    late = NOW + timedelta(seconds=DAY)
    assert len(status_of(key(status, version=2), now=late).hashes) == 2, "kept for a clear refusal"
    status = handed_out(key(status, version=3), "Raised", late)
    assert len(status.hashes) == 2


def test_a_key_from_before_there_were_versions_stays() -> None:
    before = FIRST.model_copy(
        update={
            "version": None,
            "secret_uid": None,
            "secret_written_at": None,
            "hashes": [FIRST.hashes[0].model_copy(update={"version": None})],
        }
    )
    assert due(key(before)) is None
    status = status_of(key(before), now=NOW)
    assert (status.version, ends(status)) == (1, [None])
    assert ends(handed_out(key(before, version=2, overlapSeconds=60), "Raised")) == [60, None]


@pytest.mark.parametrize("cause", ["Renamed", "Lost"])
def test_nobody_is_locked_out_where_no_version_was_raised(cause: Cause) -> None:
    assert ends(handed_out(key(FIRST), cause)) == [None, None]


def test_a_key_is_accepted_before_it_can_be_read_and_the_former_still() -> None:
    raised = key(FIRST, version=2)
    hashes = announced(raised, "Raised", keys.mint(), NOW)
    assert hashes is not None
    between = status_of(
        key(FIRST.model_copy(update={"hashes": hashes}), version=2), now=NOW + timedelta(seconds=1)
    )
    assert ends(between) == [None, None]
    assert due(key(between, version=2)) == "Raised", "nobody has it yet"


def test_a_key_that_may_have_been_read_before_a_crash_counts_among_the_former() -> None:
    raised = key(FIRST, version=2)
    hashes = announced(raised, "Raised", keys.mint(), NOW)
    crashed = key(FIRST.model_copy(update={"hashes": hashes}), version=2)
    assert ends(handed_out(crashed, "Raised")) == [DAY, DAY, None]


def many(cause: Cause = "Lost") -> APIKeyStatus:
    """The status of a key whose Secret vanished as often as it may."""
    status = FIRST
    while announced(key(status), cause, keys.mint(), NOW) is not None:
        status = handed_out(key(status), cause)
    return status


@pytest.mark.parametrize("cause", ["Renamed", "Lost"])
def test_the_last_place_is_kept_for_a_raise_which_ends_the_others(cause: Cause) -> None:
    status = many(cause)
    assert len(status.hashes) == key_lifecycle.MAX_UNRAISED
    raised = key(status, version=2)
    hashes = announced(raised, "Raised", keys.mint(), NOW)
    assert hashes is not None
    assert len(hashes) == key_lifecycle.MAX_HASHES
    status = handed_out(raised, "Raised")
    assert ends(status) == [DAY] * key_lifecycle.MAX_UNRAISED + [None]
    assert announced(key(status, version=3), "Raised", keys.mint(), NOW) is None
    assert announced(key(status, version=3), "Raised", keys.mint(), NOW + timedelta(days=1)) is not None


def test_raises_that_were_cut_off_do_not_take_the_last_place_for_ever() -> None:
    status = many()
    for _ in range(3):
        hashes = announced(key(status, version=2), "Raised", keys.mint(), NOW)
        assert hashes is not None
        assert len(hashes) == key_lifecycle.MAX_HASHES
        status = status.model_copy(update={"hashes": hashes})
    assert ends(handed_out(key(status, version=2), "Raised")) == [DAY] * key_lifecycle.MAX_UNRAISED + [None]


@pytest.mark.parametrize(
    ("spec", "seconds", "over"),
    [
        ({}, 10**9, False),
        ({"secret": {"ttlSeconds": 600}}, 599, False),
        ({"secret": {"ttlSeconds": 600}}, 600, True),
        ({"hashes": [{"sha256": MINE}]}, 0, True),
    ],
)
def test_when_the_secret_goes(spec: dict[str, Any], seconds: float, over: bool) -> None:
    assert secret_is_over(key(FIRST, **spec), NOW + timedelta(seconds=seconds)) == over


def test_a_secret_that_cannot_be_told_from_another_one_stays() -> None:
    unknown = FIRST.model_copy(update={"secret_uid": None})
    assert not secret_is_over(key(unknown, secret={"ttlSeconds": 600}), NOW + timedelta(seconds=600))


def test_the_time_of_a_secret_stands_in_the_status_and_goes_with_it() -> None:
    shown = {"secret": {"ttlSeconds": 600}}
    status = handed_out(key(**shown))
    assert status.secret_expires_at == NOW + timedelta(seconds=600)
    assert condition(status, "Provisioned") == ("True", "SecretWritten")
    gone = status_of(key(status, **shown), now=NOW + timedelta(seconds=600), removed=True)
    assert (gone.secret_name, gone.secret_uid, gone.secret_expires_at) == (None, None, None)
    assert condition(gone, "Provisioned") == ("True", "SecretRemoved")
    assert condition(gone, "Ready") == ("True", "Active")
    assert not secret_is_over(key(gone, **shown), NOW + timedelta(seconds=700))


def test_keys_of_one_s_own() -> None:
    own = [
        {"sha256": MINE, "expiresAt": at(60)},
        {"sha256": "b" * 64, "notBefore": at(30)},
    ]
    status = status_of(key(FIRST, hashes=own), now=NOW, removed=True)
    assert [known.key_id for known in status.hashes] == ["a" * 12, "b" * 12]
    assert status.hashes[0].not_before <= datetime.fromisoformat(CREATED)
    assert ends(status) == [60, None]
    assert status.version is None
    assert status.secret_name is None
    assert condition(status, "Provisioned") == ("True", "BroughtAlong")


BROUGHT = {"hashes": [{"sha256": MINE, "notBefore": at(10), "expiresAt": at(20)}]}


@pytest.mark.parametrize(
    ("status", "spec", "seconds", "reasons"),
    [
        (FIRST, {}, 0, ("Active", "NoExpiry", "NotDisabled")),
        (FIRST, {"models": []}, 0, ("Active", "NoExpiry", "NotDisabled")),
        (FIRST, {"disabled": True}, 0, ("Disabled", "NoExpiry", "Disabled")),
        (FIRST, {"disabled": True, "expiresAt": at(-1)}, 0, ("Disabled", "Expired", "Disabled")),
        (FIRST, {"expiresAt": at(1)}, 0, ("Active", "NotYet", "NotDisabled")),
        (FIRST, {"expiresAt": at(1)}, 1, ("Expired", "Expired", "NotDisabled")),
        (FIRST, {"expiresAt": at(-1)}, 0, ("Expired", "Expired", "NotDisabled")),
        (None, BROUGHT, 0, ("NotYetValid", "NotYet", "NotDisabled")),
        (None, BROUGHT, 10, ("Active", "NotYet", "NotDisabled")),
        (None, BROUGHT, 20, ("Expired", "Expired", "NotDisabled")),
    ],
)
def test_whether_a_key_is_accepted(
    status: APIKeyStatus | None, spec: dict[str, Any], seconds: float, reasons: tuple[str, str, str]
) -> None:
    ready, expired, revoked = reasons
    found = status_of(key(status, **spec), now=NOW + timedelta(seconds=seconds))
    assert condition(found, "Ready") == ("True" if ready == "Active" else "False", ready)
    assert condition(found, "Expired") == (str(expired == "Expired"), expired)
    assert condition(found, "Revoked") == (str(revoked == "Disabled"), revoked)


@pytest.mark.parametrize(
    ("status", "spec", "seconds"),
    [
        (FIRST, {}, None),
        (FIRST, {"expiresAt": at(30)}, 30),
        (FIRST, {"expiresAt": at(-5)}, None),
        (FIRST, {"expiresAt": at(30), "disabled": True}, 30),
        (FIRST, {"expiresAt": at(30), "secret": {"ttlSeconds": 20}}, 20),
        (None, BROUGHT, 10),
        (handed_out(key(FIRST, version=2), "Raised"), {"version": 2}, DAY),
    ],
)
def test_when_time_alone_changes_it(
    status: APIKeyStatus | None, spec: dict[str, Any], seconds: float | None
) -> None:
    of = key(status, **spec)
    found = next_change(of, status_of(of, now=NOW), NOW)
    assert (found and (found - NOW).total_seconds()) == seconds


def test_a_key_that_an_older_one_has() -> None:
    of = key(hashes=[{"sha256": MINE}, {"sha256": "b" * 64}])
    one = status_of(of, now=NOW, taken={MINE})
    assert condition(one, "Ready") == ("True", "Active")
    assert condition(one, "Provisioned") == ("False", "HashTaken")
    both = status_of(of, now=NOW, taken={MINE, "b" * 64})
    assert condition(both, "Ready") == ("False", "HashTaken")
    assert len(both.hashes) == 2, "they count as soon as the older one lets go"
