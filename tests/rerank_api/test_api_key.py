from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from rerank_api.api_key import APIKey

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SHA = "a" * 64


def key(*, deleted: bool = False, hashed: dict[str, str] | None = None, **spec: Any) -> APIKey:
    entry = {"keyId": "k", "sha256": SHA, "notBefore": "2026-01-01T00:00:00Z"} | (hashed or {})
    metadata = {"name": "search", "namespace": "default"}
    if deleted:
        metadata["deletionTimestamp"] = "2026-05-31T00:00:00Z"
    return APIKey.parse({"metadata": metadata, "spec": spec, "status": {"hashes": [entry]}})


@pytest.mark.parametrize(
    ("resource", "accepted"),
    [
        (key(), True),
        (key(disabled=True), False),
        (key(deleted=True), False),
        (key(expiresAt=NOW.isoformat()), False),
        (key(expiresAt=(NOW + timedelta(seconds=1)).isoformat()), True),
        (key(hashed={"expiresAt": NOW.isoformat()}), False),
        (key(hashed={"notBefore": NOW.isoformat()}), True),
        (key(hashed={"notBefore": (NOW + timedelta(seconds=1)).isoformat()}), False),
    ],
)
def test_a_key_is_accepted_while_every_rule_holds(resource: APIKey, accepted: bool) -> None:
    assert resource.accepts(SHA, NOW) is accepted


def test_an_unknown_digest_is_not_accepted() -> None:
    assert not key().accepts("b" * 64, NOW)


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({}, True),
        ({"models": []}, False),
        ({"models": ["minilm"]}, True),
        ({"models": ["org/name", "other"]}, True),
        ({"models": ["other"]}, False),
    ],
)
def test_absent_models_allow_all_and_empty_allow_none(spec: dict[str, Any], allowed: bool) -> None:
    assert key(**spec).allows(("minilm", "alias", "org/name")) is allowed


def test_the_secret_is_named_after_the_key_unless_told() -> None:
    assert key().secret_name == "search"
    assert key(secret={"name": "other"}).secret_name == "other"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="limits"):
        key(limits={})
