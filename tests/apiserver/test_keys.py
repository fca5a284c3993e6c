"""APIKeys from apply to delete, against a real API server."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api import keys
from rerank_api.api_key import APIKey
from rerank_operator.claims import Claims
from rerank_operator.cluster import Cluster
from rerank_operator.events import Recorder
from rerank_operator.key_reconciler import CHECK_SECONDS, KeyReconciler, known_hashes
from rerank_operator.listed import Listed
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


def with_reason(api: Api, namespace: str, reason: str, name: str = "k", *, seconds: float = 60) -> APIKey:
    def look() -> APIKey | None:
        body = api.get(key_path(namespace, name))
        key = APIKey.parse(body)
        current = key.status.observed_generation == key.metadata.generation
        return key if current and reason in {c.reason for c in key.status.conditions[:2]} else None

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
    eventually("it is told", lambda: events(api, namespace) == {"KeyWritten"})
    assert text not in str(api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
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
    soon = datetime.now(UTC) + timedelta(seconds=5)
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


def test_a_quota_on_secrets_is_told_until_it_is_lifted(api: Api, namespace: str) -> None:
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.create(quotas, {"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "0"}}})
    eventually("the quota counts", lambda: api.get(f"{quotas}/q").get("status", {}).get("hard"))
    apply_key(api, namespace)
    key = with_reason(api, namespace, "SecretRefused")
    assert "exceeded quota: q" in key.status.conditions[0].message
    assert key.status.hashes == []
    api.delete(f"{quotas}/q")
    apply_key(api, namespace, description="looked at again at once")
    with_reason(api, namespace, "Active")


def test_two_keys_never_share_a_secret(api: Api, namespace: str) -> None:
    apply_key(api, namespace, "first", secret={"name": "shared"})
    first = with_reason(api, namespace, "Active", "first")
    apply_key(api, namespace, "second", secret={"name": "shared"})
    with_reason(api, namespace, "SecretNameTaken", "second")
    assert keys.digest(handed_out(api, namespace, "shared")) == first.status.hashes[0].sha256
    apply_key(api, namespace, "second", secret={"name": "own"})
    with_reason(api, namespace, "Active", "second")


def test_another_secret_name_moves_on_with_a_new_key(api: Api, namespace: str) -> None:
    apply_key(api, namespace, secret={"name": "first"})
    with_reason(api, namespace, "Active")
    former = handed_out(api, namespace, "first")
    apply_key(api, namespace, secret={"name": "second"})
    eventually("the old Secret is gone", lambda: api.find(secret_path(namespace, "first")) is None)
    with_reason(api, namespace, "SecretWritten")
    accepted = [known.sha256 for known in APIKey.parse(api.get(key_path(namespace))).status.hashes]
    assert accepted == [keys.digest(former), keys.digest(handed_out(api, namespace, "second"))]


def test_a_raised_version_replaces_the_key_and_the_former_works_for_the_overlap(
    api: Api, namespace: str
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    former = handed_out(api, namespace, "k")
    apply_key(api, namespace, version=2, overlapSeconds=5)

    def replaced() -> APIKey | None:
        key = APIKey.parse(api.get(key_path(namespace)))
        return key if key.status.version == 2 else None

    old, new = eventually("the new key is there", replaced).status.hashes
    text = handed_out(api, namespace, "k")
    assert (old.sha256, new.sha256) == (keys.digest(former), keys.digest(text))
    assert new.expires_at is None
    assert old.expires_at is not None
    assert timedelta(0) < old.expires_at - datetime.now(UTC) <= timedelta(seconds=6)

    def only_one() -> bool:
        ready = api.get(key_path(namespace))["status"]["conditions"][0]
        return bool(ready["message"].startswith("1 key is accepted"))

    eventually("the overlap is told to be over", only_one, seconds=10)
    assert datetime.now(UTC) >= old.expires_at
    eventually("both are told", lambda: {"KeyWritten", "KeyReplaced"} <= events(api, namespace))
    assert former not in str(api.get(key_path(namespace)))


def test_a_version_never_goes_back(api: Api, namespace: str) -> None:
    apply_key(api, namespace, version=2)
    lower: list[dict[str, Any]] = [{"version": 1}, {}]
    for spec in lower:
        with pytest.raises(Refused, match=r"spec\.version can only be raised: a key that was replaced"):
            apply_key(api, namespace, **spec)


def test_a_secret_with_a_time_goes_and_the_key_works_on(api: Api, namespace: str, running: Operator) -> None:
    apply_key(api, namespace, secret={"ttlSeconds": 10})
    key = with_reason(api, namespace, "SecretWritten")
    assert key.status.secret_expires_at is not None
    running.stop()
    running.start()  # the time stands in the status
    eventually("the Secret is gone", lambda: api.find(secret_path(namespace, "k")) is None, seconds=15)
    assert datetime.now(UTC) >= key.status.secret_expires_at
    gone = with_reason(api, namespace, "SecretRemoved")
    assert gone.status.hashes == key.status.hashes
    assert gone.status.secret_name is None
    eventually("it is told", lambda: "SecretRemoved" in events(api, namespace))


def test_a_secret_that_was_deleted_is_noticed_without_reading_any(
    api: Api, namespace: str, running: Operator, audit: AuditLog
) -> None:
    """As it is done with each resync; a restart asks within five minutes, so the check itself is called."""
    apply_key(api, namespace)
    before = with_reason(api, namespace, "SecretWritten")
    running.stop()
    api.delete(secret_path(namespace, "k"))
    look_at_lost(running, namespace)
    key = with_reason(api, namespace, "SecretWritten")
    assert keys.digest(handed_out(api, namespace, "k")) == key.status.hashes[-1].sha256
    assert before.status.hashes[0] in key.status.hashes
    assert "SecretLost" in events(api, namespace)
    size = audit.size()
    look_at_lost(running, namespace)
    assert audit.writes(since=size) == [], "it is there: nothing to do"


def look_at_lost(operator: Operator, namespace: str) -> None:
    """One look of a reconciler to which the check is due, with the operator's own rights."""

    async def look() -> None:
        connection = await Cluster.connect(in_cluster=False)
        try:
            recorder = Recorder(api=connection, instance="test")
            listed = Listed(connection, (namespace,))
            reconciler = KeyReconciler(
                api=connection,
                listed=listed,
                recorder=recorder,
                claims=Claims(known_hashes(listed)),
                wake=lambda *_: None,
            )
            reconciler._checked[namespace, "k"] = datetime.now(UTC) - timedelta(seconds=CHECK_SECONDS)
            await reconciler.reconcile(namespace, "k")
            await recorder.post()
        finally:
            await connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(operator._kubeconfig())
        )
        asyncio.run(look())


def test_keys_of_one_s_own(api: Api, namespace: str) -> None:
    own = keys.digest("a key of my own, with enough of chance in it")
    soon = datetime.now(UTC) + timedelta(seconds=4)
    apply_key(api, namespace, hashes=[{"sha256": own, "expiresAt": soon.isoformat()}])
    key = with_reason(api, namespace, "BroughtAlong")
    assert [known.sha256 for known in key.status.hashes] == [own]
    assert api.find(secret_path(namespace, "k")) is None
    with_reason(api, namespace, "Expired", seconds=10)
    apply_key(api, namespace, hashes=[{"sha256": own}])
    with_reason(api, namespace, "Active")
    apply_key(api, namespace)
    key = with_reason(api, namespace, "SecretWritten")
    assert [known.sha256 for known in key.status.hashes] == [keys.digest(handed_out(api, namespace, "k"))]


def test_a_hash_that_two_list_is_the_older_one_s(api: Api, namespace: str) -> None:
    own = [{"sha256": keys.digest(namespace)}]
    apply_key(api, namespace, "older", hashes=own)
    with_reason(api, namespace, "Active", "older")
    eventually("a second has passed", lambda: age(api, namespace, "older") > 1)
    apply_key(api, namespace, "newer", hashes=own)
    with_reason(api, namespace, "HashTaken", "newer")
    api.delete(key_path(namespace, "older"))
    with_reason(api, namespace, "Active", "newer")


def age(api: Api, namespace: str, name: str) -> float:
    created = datetime.fromisoformat(api.get(key_path(namespace, name))["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - created).total_seconds()


def events(api: Api, namespace: str) -> set[str]:
    return {e["reason"] for e in api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")}


def test_a_namespace_goes_with_all_that_was_made_in_it(api: Api) -> None:
    api.create("/api/v1/namespaces", {"metadata": {"name": "keys-going"}})
    apply_key(api, "keys-going", secret={"ttlSeconds": 3600})
    with_reason(api, "keys-going", "SecretWritten")
    api.delete("/api/v1/namespaces/keys-going")
    eventually("the namespace is gone", lambda: api.find("/api/v1/namespaces/keys-going") is None, seconds=60)


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
    assert {e["verb"] for e in asked()} <= {"patch", "create", "delete"}
