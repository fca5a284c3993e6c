"""The operator is restarted, killed, missing, or not alone: the end state is the same."""

import base64
import copy
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rerank_api import keys
from tests.apiserver.api import RERANK, Api, Object, eventually
from tests.apiserver.kubelet import node
from tests.apiserver.operator_process import ROOT, AuditLog, Operator

MODELS = 10
KEYS = 10
WRITES_OF_TWO = 6  # at least: a Secret, a status and an event for each of two keys
LEASE = "/apis/coordination.k8s.io/v1/namespaces/rerank-system/leases/rerank-operator"


def model(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"huggingFace": {"repo": "demo/word-overlap"}},
            "resources": {"gpu": {"count": 0}},
            **spec,
        },
    }


def key(name: str) -> Object:
    return {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": name}, "spec": {}}


def models_path(namespace: str, name: str = "") -> str:
    return f"{RERANK}/namespaces/{namespace}/modeldeployments{f'/{name}' if name else ''}"


def keys_path(namespace: str, name: str = "") -> str:
    return f"{RERANK}/namespaces/{namespace}/apikeys{f'/{name}' if name else ''}"


def children(api: Api, namespace: str) -> dict[str, dict[str, Object]]:
    """What the operator made, by kind and name."""
    managed = {"labelSelector": "app.kubernetes.io/managed-by=rerank-operator"}
    return {
        plural: {
            item["metadata"]["name"]: item
            for item in api.items(f"{root}/namespaces/{namespace}/{plural}", **managed)
        }
        for root, plural in (
            ("/apis/apps/v1", "deployments"),
            ("/api/v1", "services"),
            ("/api/v1", "configmaps"),
            ("/api/v1", "secrets"),
        )
    }


def intent(body: Object) -> Object:
    """The part of an object that does not depend on when and how often it was written."""
    metadata = body["metadata"]
    return {
        "labels": metadata["labels"],
        "annotations": {
            k: v for k, v in metadata.get("annotations", {}).items() if k.startswith("rerank.dev/")
        },
        "owner": [o["name"] for o in metadata["ownerReferences"]],
        "spec": body.get("spec"),
        "type": body.get("type"),
    }


def observed(api: Api, path: str) -> bool:
    """Every resource of the collection has a status of its newest generation."""
    items = api.items(path)
    return all(
        item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"] for item in items
    )


def all_settled(api: Api, namespace: str) -> Callable[[], bool]:
    return lambda: observed(api, models_path(namespace)) and observed(api, keys_path(namespace))


@pytest.fixture
def stopped(operator: Operator) -> Iterator[Operator]:
    """The operator, not running. The test starts it and leaves it as it likes."""
    if operator.process is not None:
        operator.stop()
    yield operator
    if operator.process is not None:
        operator.stop()


def test_ten_restarts_write_nothing(api: Api, namespace: str, stopped: Operator, audit: AuditLog) -> None:
    stopped.start()
    for number in range(3):
        api.apply(models_path(namespace, f"m{number}"), model(f"m{number}", replicas=number))
        api.apply(keys_path(namespace, f"k{number}"), key(f"k{number}"))
    # Quantities that the API server writes in another way than the spec must not look like a difference.
    odd = {"gpu": {"count": 0}, "cpu": "1000m", "memory": "1024Mi"}
    api.apply(models_path(namespace, "odd"), model("odd", resources=odd))
    eventually("all is settled", all_settled(api, namespace))
    quiet(audit)
    stopped.stop()
    versions = {p: [i["metadata"]["resourceVersion"] for i in api.items(p)] for p in watched(namespace)}
    since = audit.size()
    for _ in range(10):
        stopped.start()
        eventually(
            "all resources were looked at", lambda: stopped.metric("rerank_operator_reconciles_total") >= 7
        )
        assert stopped.metric("rerank_operator_writes_total") == 0
        stopped.stop()
    assert audit.writes(since=since) == []
    assert versions == {
        p: [i["metadata"]["resourceVersion"] for i in api.items(p)] for p in watched(namespace)
    }


def watched(namespace: str) -> list[str]:
    return [
        models_path(namespace),
        keys_path(namespace),
        f"/api/v1/namespaces/{namespace}/services",
        f"/api/v1/namespaces/{namespace}/configmaps",
        f"/api/v1/namespaces/{namespace}/secrets",
    ]


def quiet(audit: AuditLog) -> None:
    """Return when nothing was written for two seconds."""
    mark, since = len(audit.writes()), time.monotonic()

    def still() -> bool:
        nonlocal mark, since
        count = len(audit.writes())
        if count != mark:
            mark, since = count, time.monotonic()
        return time.monotonic() - since > 2

    eventually("the operator has nothing more to write", still, seconds=30)


def test_killed_at_random_moments_it_ends_in_the_same_state(
    api: Api, namespace: str, stopped: Operator, audit: AuditLog
) -> None:
    """SIGKILL at work during 20 applies; the reference is what an operator makes that is left in peace."""
    chance = random.Random(7)
    reference = f"{namespace}-reference"
    api.create("/api/v1/namespaces", {"metadata": {"name": reference}})
    resources = [(models_path, model(f"m{n}")) for n in range(MODELS)]
    resources += [(keys_path, key(f"k{n}")) for n in range(KEYS)]
    chance.shuffle(resources)

    for first, second in zip(resources[::2], resources[1::2], strict=True):
        for path, body in (first, second):
            api.apply(path(namespace, body["metadata"]["name"]), body)
        since, enough = audit.size(), chance.randint(1, WRITES_OF_TWO - 1)
        stopped.start()
        eventually("it is in the middle of its writes", at_work(audit, since, enough))
        stopped.kill()
        # A killed leader leaves its Lease behind. Waiting for it to run out is another test's subject.
        api.delete(LEASE)
    stopped.start()
    for path, body in resources:
        api.apply(path(reference, body["metadata"]["name"]), body)
    eventually("the killed one's are settled", all_settled(api, namespace), seconds=60)
    eventually("the reference is settled", all_settled(api, reference), seconds=60)

    found, wanted = children(api, namespace), children(api, reference)
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in wanted.items()}
    for kind, by_name in wanted.items():
        for name, body in by_name.items():
            assert comparable(found[kind][name]) == comparable(body), (kind, name)
    for item in api.items(keys_path(namespace)):
        (known,) = item["status"]["hashes"]
        secret = found["secrets"][item["metadata"]["name"]]
        assert digest_of(secret) == known["sha256"], "the Secret holds the key that is accepted"
    api.delete(f"/api/v1/namespaces/{reference}")


def at_work(audit: AuditLog, since: int, enough: int) -> Callable[[], bool]:
    return lambda: len(audit.writes(since=since)) >= enough


def comparable(body: Object) -> Object:
    """What two namespaces have in common: not owner uids, the backend token and what is made of them."""
    part = copy.deepcopy(intent(body))
    part["annotations"] = sorted(part["annotations"])
    if body.get("kind") == "Deployment" or "template" in (part["spec"] or {}):
        template = part["spec"]["template"]
        del template["metadata"]["annotations"]["rerank.dev/template"]
        (serve,) = template["spec"]["containers"]
        serve["env"] = [variable["name"] for variable in serve["env"]]
    return part


def digest_of(secret: Object) -> str:
    return keys.digest(base64.b64decode(secret["data"]["key"]).decode())


def test_deleting_while_the_operator_is_down_leaves_nothing(
    api: Api, namespace: str, stopped: Operator
) -> None:
    stopped.start()
    api.apply(models_path(namespace, "m"), model("m"))
    api.apply(keys_path(namespace, "k"), key("k"))
    eventually("all is settled", all_settled(api, namespace))
    assert all(children(api, namespace).values())
    stopped.stop()
    api.delete(models_path(namespace, "m"))
    api.delete(keys_path(namespace, "k"))
    eventually("nothing is left", lambda: not any(children(api, namespace).values()), seconds=60)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    eventually("no pod is left", lambda: not api.items(pods), seconds=60)


def test_what_changed_while_it_was_down_is_put_right(api: Api, namespace: str, stopped: Operator) -> None:
    stopped.start()
    api.apply(models_path(namespace, "m"), model("m"))
    eventually("all is settled", all_settled(api, namespace))
    stopped.stop()
    api.delete(f"/api/v1/namespaces/{namespace}/services/rerank-m")
    api.apply(models_path(namespace, "m"), model("m", replicas=3))
    stopped.start()
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/rerank-m"
    eventually("the new spec is applied", lambda: api.get(deployment)["spec"]["replicas"] == 3)
    eventually("the Service is back", lambda: children(api, namespace)["services"])


def test_a_second_operator_waits_for_the_lease(
    api: Api, namespace: str, stopped: Operator, tmp_path: Path
) -> None:
    """The first hands over when it stops; the second takes over at once."""
    stopped.start()
    second = Operator(api, tmp_path / "second", stopped.token).start(ready=False)
    try:
        eventually("the second waits", lambda: "waiting for the lease" in second.log())
        assert second.metric("rerank_operator_leading") == 0
        stopped.stop()
        eventually("the second leads", second.leads, seconds=10)
        api.apply(models_path(namespace, "m"), model("m"))
        eventually("the second works", lambda: children(api, namespace)["deployments"])
    finally:
        second.stop()


def test_a_leader_that_slept_changes_nothing(
    api: Api, namespace: str, stopped: Operator, audit: AuditLog, tmp_path: Path
) -> None:
    """Stopped for longer than the Lease lives: the second takes over, the woken one just ends."""
    stopped.start()
    second = Operator(api, tmp_path / "second", stopped.token).start(ready=False)
    try:
        eventually("the second waits", lambda: "waiting for the lease" in second.log())
        stopped.send(signal.SIGSTOP)
        eventually("the second leads", second.leads, seconds=25)
        api.apply(models_path(namespace, "m"), model("m"))
        eventually("the second works", all_settled(api, namespace))
        quiet(audit)
        since = audit.size()
        stopped.send(signal.SIGCONT)
        assert stopped.process is not None
        assert stopped.process.wait(timeout=20) == 1
        stopped.process = None
        assert audit.writes(since=since) == []
        assert second.leads()
    finally:
        second.stop()


def test_one_namespace_alone_can_be_watched(
    api: Api, namespace: str, stopped: Operator, audit: AuditLog, tmp_path: Path
) -> None:
    """And then a Role in it is enough, and one for the catalog: nothing else is asked for outside of it."""
    since = audit.size()
    other = f"{namespace}-other"
    api.create("/api/v1/namespaces", {"metadata": {"name": other}})
    environment = {"RERANK_WATCH_NAMESPACES": namespace}
    confined = Operator(api, tmp_path / "confined", stopped.token, environment).start()
    try:
        for place in (other, namespace):
            api.apply(models_path(place, "m"), model("m"))
            api.apply(keys_path(place, "k"), key("k"))
        eventually("its own namespace is settled", all_settled(api, namespace))
        api.delete(f"/api/v1/namespaces/{namespace}/services/rerank-m")
        eventually("children are watched", lambda: children(api, namespace)["services"])
        assert not any(children(api, other).values())
        asked = {
            e["objectRef"].get("namespace", e["objectRef"]["resource"])
            for e in audit.requests(since=since)
            if "objectRef" in e
        }
        assert asked == {namespace, "rerank-system", "catalogmodels"}, "the catalog has no namespace"
    finally:
        confined.stop()
    api.delete(f"/api/v1/namespaces/{other}")


def test_the_backend_token_is_made_once(api: Api, stopped: Operator, tmp_path: Path) -> None:
    """Without the file the operator makes the Secret; the next one waits until the Secret is mounted."""
    secret = "/api/v1/namespaces/rerank-system/secrets/test-token"
    environment = {
        "RERANK_BACKEND_TOKEN_FILE": str(tmp_path / "absent"),
        "RERANK_BACKEND_TOKEN_SECRET": "test-token",
    }
    first = Operator(api, tmp_path / "first", stopped.token, environment).start()
    made = eventually("the Secret is made", lambda: api.find(secret))
    first.stop()
    second = Operator(api, tmp_path / "second", stopped.token, environment).start()
    try:
        eventually("it waits", lambda: "waiting for the backend token to be mounted" in second.log())
        assert api.get(secret)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        (tmp_path / "absent").write_text("5a" * 32)
        eventually("it goes on", lambda: "Initial authentication" in second.log())
    finally:
        second.stop()


def asked_for(audit: AuditLog, verb: str, resource: str) -> bool:
    return any(
        event["verb"] == verb and event.get("objectRef", {}).get("resource") == resource
        for event in audit.requests()
    )


def test_every_right_is_used_and_none_is_missing(
    api: Api, namespace: str, built_in: Operator, audit: AuditLog
) -> None:
    """The RBAC of the plain install against what this test makes the operator ask for."""
    built_in.start()
    listed = model("listed", model={"catalog": "built-in-a"}, replicas=0)
    api.apply(models_path(namespace, "listed"), listed)
    small = {"gpu": {"count": 0}, "cpu": "100m", "memory": "1Gi"}
    for replicas in (2, 1):  # the second time there is a PodDisruptionBudget to delete
        api.apply(models_path(namespace, "m"), model("m", resources=small, replicas=replicas))
        eventually("its replicas are told", all_settled(api, namespace))
    for name in ("first", "second"):  # the Secret moves, so the old one is deleted
        path = keys_path(namespace, "k")
        api.apply(path, {**key("k"), "spec": {"secret": {"name": name}}})
        told = {"secretName": name}.items()
        eventually("the key is handed out", lambda: told <= api.get(path).get("status", {}).items())  # noqa: B023
    # A replica that finds no node is explained with the nodes that there are.
    eventually("it asks for nodes", lambda: asked_for(audit, "list", "nodes"))
    with node(api, "n-rights"):
        # Nobody prepares the replica there, so the operator looks for an Event that says why.
        eventually("it asks for events", lambda: asked_for(audit, "list", "events"), seconds=60)
    eventually("all is settled", all_settled(api, namespace))
    quiet(audit)
    requests = audit.requests()
    # By its decision, not by code 403: a namespace that is being deleted takes nothing new, whoever asks.
    decision = "authorization.k8s.io/decision"
    assert [e["requestURI"] for e in requests if e["annotations"][decision] != "allow"] == []
    used = set()
    for event in requests:
        reference = event.get("objectRef")
        if reference is None or "resource" not in reference:
            continue
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        used.add((reference.get("apiGroup", ""), resource, event["verb"]))
        if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
            used.add((reference.get("apiGroup", ""), resource, "create"))
    granted = set()
    for body in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()):
        if body["kind"] in {"ClusterRole", "Role"} and body["metadata"]["name"].startswith("rerank-operator"):
            for rule in body["rules"]:
                granted |= {
                    (g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]
                }
    assert granted - used == set(), "granted and never used"
