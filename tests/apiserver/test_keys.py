"""APIKeys from apply to delete, against a real API server."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api import keys
from rerank_api.api_key import APIKey
from tests.apiserver.api import RERANK, Api, Object, Refused, eventually
from tests.apiserver.operator_process import AuditLog, Operator


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


def key_path(namespace: str, name: str = "k") -> str:
    return f"{RERANK}/namespaces/{namespace}/apikeys/{name}"


def secret_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def apply_key(api: Api, namespace: str, name: str = "k", **spec: Any) -> Object:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "APIKey",
        "metadata": {"name": name},
        "spec": spec,
    }
    return api.apply(key_path(namespace, name), body)


def with_reason(api: Api, namespace: str, reason: str, name: str = "k", *, seconds: float = 20) -> APIKey:
    def look() -> APIKey | None:
        body = api.get(key_path(namespace, name))
        key = APIKey.parse(body)
        current = key.status.observed_generation == key.metadata.generation
        return key if current and [c.reason for c in key.status.conditions] == [reason] else None

    return eventually(f"the APIKey is {reason}", look, seconds=seconds)


def handed_out(api: Api, namespace: str, secret: str) -> str:
    return base64.b64decode(api.get(secret_path(namespace, secret))["data"]["key"]).decode()


def test_a_key_is_minted_once_and_handed_out(api: Api, namespace: str, running: Operator) -> None:
    apply_key(api, namespace, secret={"name": "search-key"}, description="search team")
    key = with_reason(api, namespace, "Active")
    text = handed_out(api, namespace, "search-key")
    assert keys.key_id(text) == key.status.key_id
    (known,) = key.status.hashes
    assert known.sha256 == keys.digest(text)
    assert known.not_before <= datetime.now(UTC)
    assert key.status.hint is not None
    assert text.startswith(key.status.hint.rstrip("…"))
    assert key.status.secret_name == "search-key"
    secret = api.get(secret_path(namespace, "search-key"))
    assert secret["type"] == "rerank.dev/api-key"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == key.metadata.uid

    apply_key(api, namespace, secret={"name": "search-key"}, description="another team")
    eventually(
        "the edit is seen",
        lambda: api.get(key_path(namespace))["status"]["observedGeneration"] == 2,
    )
    assert handed_out(api, namespace, "search-key") == text
    assert text not in running.log()
    events = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    assert {e["reason"] for e in events} == {"KeyWritten"}
    assert text not in str(events)
    assert text not in str(api.get(key_path(namespace)))


def test_the_secret_has_the_name_of_the_key_by_default(api: Api, namespace: str) -> None:
    apply_key(api, namespace, name="plain")
    key = with_reason(api, namespace, "Active", "plain")
    assert keys.digest(handed_out(api, namespace, "plain")) == key.status.hashes[0].sha256


def test_disabled_and_back(api: Api, namespace: str) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    apply_key(api, namespace, disabled=True)
    with_reason(api, namespace, "Disabled")
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")


def test_expiry_is_told_when_it_comes_and_can_be_moved(api: Api, namespace: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    apply_key(api, namespace, expiresAt=soon.isoformat())
    with_reason(api, namespace, "Active")
    with_reason(api, namespace, "Expired", seconds=10)
    assert datetime.now(UTC) - soon < timedelta(seconds=3)
    apply_key(api, namespace, expiresAt=(soon + timedelta(days=1)).isoformat())
    with_reason(api, namespace, "Active")


@pytest.mark.parametrize(
    "theirs",
    [
        {"type": "Opaque", "data": {"password": "c2VjcmV0"}},
        {"type": "rerank.dev/api-key", "data": {"key": "c2VjcmV0"}},
    ],
)
def test_a_secret_of_somebody_else_is_left_alone(api: Api, namespace: str, theirs: Object) -> None:
    body = {"metadata": {"name": "k"}, **theirs}
    before = api.create(f"/api/v1/namespaces/{namespace}/secrets", body)
    apply_key(api, namespace)
    key = with_reason(api, namespace, "SecretNameTaken")
    assert key.status.hashes == []
    assert key.status.secret_name is None
    assert (
        api.get(secret_path(namespace, "k"))["metadata"]["resourceVersion"]
        == before["metadata"]["resourceVersion"]
    )


def test_two_keys_never_share_a_secret(api: Api, namespace: str) -> None:
    apply_key(api, namespace, "first", secret={"name": "shared"})
    first = with_reason(api, namespace, "Active", "first")
    apply_key(api, namespace, "second", secret={"name": "shared"})
    with_reason(api, namespace, "SecretNameTaken", "second")
    assert keys.digest(handed_out(api, namespace, "shared")) == first.status.hashes[0].sha256
    apply_key(api, namespace, "second", secret={"name": "own"})
    with_reason(api, namespace, "Active", "second")


def test_the_secret_name_is_fixed_once_the_key_was_written(api: Api, namespace: str) -> None:
    apply_key(api, namespace, secret={"name": "first"})
    with_reason(api, namespace, "Active")
    with pytest.raises(Refused, match=r"spec\.secret\.name cannot be changed after the key was written"):
        apply_key(api, namespace, secret={"name": "second"})
    with pytest.raises(Refused, match=r"spec\.secret\.name cannot be changed after the key was written"):
        apply_key(api, namespace)
    apply_key(api, namespace, secret={"name": "first"}, disabled=True)


def test_deleting_the_key_removes_its_secret(api: Api, namespace: str) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    api.delete(key_path(namespace))
    eventually("the Secret is gone", lambda: api.find(secret_path(namespace, "k")) is None, seconds=40)


def test_secrets_are_written_and_never_read(api: Api, namespace: str, audit: AuditLog) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")

    def asked() -> list[Object]:
        return [e for e in audit.requests() if e.get("objectRef", {}).get("resource") == "secrets"]

    eventually("the audit log tells of the Secret", asked)
    assert {e["verb"] for e in asked()} <= {"patch", "create"}
