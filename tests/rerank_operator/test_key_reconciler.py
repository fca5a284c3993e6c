"""An APIKey's one condition, and which refusals of its Secret are final."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api.api_key import APIKey
from rerank_operator.cluster import ApiError
from rerank_operator.key_reconciler import LONGEST_WAIT_SECONDS, _refusal, _until_expiry, accepted

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def key(**spec: Any) -> APIKey:
    return APIKey.parse({"metadata": {"name": "search", "namespace": "team", "uid": "u"}, "spec": spec})


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("spec", "status", "reason"),
    [
        ({}, "True", "Active"),
        ({"models": []}, "True", "Active"),
        ({"disabled": True}, "False", "Disabled"),
        ({"disabled": True, "expiresAt": at(-1)}, "False", "Disabled"),
        ({"expiresAt": at(1)}, "True", "Active"),
        ({"expiresAt": at(0)}, "False", "Expired"),
        ({"expiresAt": at(-1)}, "False", "Expired"),
    ],
)
def test_whether_a_key_is_accepted(spec: dict[str, Any], status: str, reason: str) -> None:
    verdict = accepted(key(**spec), NOW)
    assert (verdict.type, verdict.status, verdict.reason) == ("Ready", status, reason)


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, None),
        ({"expiresAt": at(30)}, 30),
        ({"expiresAt": at(10**7)}, LONGEST_WAIT_SECONDS),
        ({"expiresAt": at(-5)}, None),
        ({"expiresAt": at(30), "disabled": True}, None),
    ],
)
def test_when_to_look_again(spec: dict[str, Any], seconds: float | None) -> None:
    assert _until_expiry(key(**spec), NOW) == seconds


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ApiError(409, "Conflict", "conflict with kubectl"), "SecretNameTaken"),
        (ApiError(422, "Invalid", "type: field is immutable"), "SecretNameTaken"),
        (ApiError(403, "Forbidden", "exceeded quota"), "SecretRefused"),
        (ApiError(403, "Forbidden", "", causes=frozenset({"NamespaceTerminating"})), None),
        (ApiError(500, "InternalError", ""), None),
        (ApiError(0, "Unreachable", ""), None),
    ],
)
def test_which_refusals_are_told(error: ApiError, reason: str | None) -> None:
    verdict = _refusal(key(secret={"name": "search-key"}), error)
    assert (verdict.reason if verdict else None) == reason
    assert verdict is None or verdict.status == "False"
