"""The catalog in operation: entries reach the models that use them, and the built-in ones their cluster."""

from pathlib import Path
from typing import Any

import yaml

from tests.apiserver.api import RERANK, Api, Refused, catalog_entry, eventually
from tests.apiserver.models import child_path, condition, model_path, settled
from tests.apiserver.operator_process import AuditLog, Operator

ROOT = Path(__file__).parents[2]
ENTRIES = f"{RERANK}/catalogmodels"


def uses(api: Api, namespace: str, name: str, **spec: Any) -> None:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {"model": {"catalog": name}, **spec},
    }
    api.apply(model_path(namespace), body)


def repo_of(api: Api, namespace: str) -> str | None:
    """The repository that the pods of the model are to download."""
    found = api.find(child_path(namespace, "deployments"))
    if found is None:
        return None
    args: list[str] = found["spec"]["template"]["spec"]["initContainers"][0]["args"]
    return next(arg.removeprefix("--repo=") for arg in args if arg.startswith("--repo="))


def test_a_change_of_an_entry_reaches_its_users(api: Api, namespace: str, running: Operator) -> None:
    name = f"{namespace}-entry"
    api.apply(
        f"{ENTRIES}/{name}", catalog_entry(name, defaults={"resources": {"gpu": {"count": 0}, "cpu": "100m"}})
    )
    uses(api, namespace, name, resources={"memory": "1Gi"})
    eventually("the entry is used", lambda: repo_of(api, namespace) == "demo/word-overlap")
    body = settled(api, namespace, lambda b: b.get("status", {}).get("effective"))
    assert body["spec"] == {"model": {"catalog": name}, "resources": {"memory": "1Gi"}} | {
        key: body["spec"][key] for key in ("replicas", "scheduling", "rollout")
    }, "what the entry says is not written into the spec"
    assert body["status"]["effective"]["resources"] == {
        "gpu": {"count": 0, "resourceName": "nvidia.com/gpu", "products": []},
        "cpu": "100m",
        "memory": "1Gi",
    }
    assert body["status"]["model"] == {"catalog": name, "repo": "demo/word-overlap"}

    api.apply(f"{ENTRIES}/{name}", catalog_entry(name, repo="demo/constant"))
    eventually("the change reached the model", lambda: repo_of(api, namespace) == "demo/constant")

    api.delete(f"{ENTRIES}/{name}")
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "CatalogModelNotFound")
    assert repo_of(api, namespace) == "demo/constant", "what runs runs on"
    assert body["status"]["model"]["repo"] == "demo/constant"


def test_a_model_waits_for_its_catalog_entry(api: Api, namespace: str, running: Operator) -> None:
    name = f"{namespace}-late"
    api.apply(f"{ENTRIES}/{name}r", catalog_entry(f"{name}r"))
    uses(api, namespace, name)
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "CatalogModelNotFound")
    assert body["status"]["phase"] == "Failed"
    assert f"did you mean {name}r" in body["status"]["message"]
    assert "kubectl get catalogmodels" in body["status"]["message"]
    api.apply(f"{ENTRIES}/{name}", catalog_entry(name))
    eventually("the model goes on", lambda: repo_of(api, namespace) == "demo/word-overlap")


def test_code_of_a_repository_needs_an_administrator(api: Api, namespace: str, running: Operator) -> None:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {
            "model": {"huggingFace": {"repo": "org/own-code", "revision": "c" * 40}},
            "engine": {"trustRemoteCode": True},
        },
    }
    api.apply(model_path(namespace), body)
    found = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "RemoteCodeNotAllowed")
    assert f"org/own-code@{'c' * 40} to policy.remoteCode" in found["status"]["message"]
    assert api.find(child_path(namespace, "deployments")) is None


def test_the_built_in_entries_are_made_and_kept(api: Api, built_in: Operator, audit: AuditLog) -> None:
    api.apply(f"{ENTRIES}/built-in-b", catalog_entry("built-in-b", license="theirs"))
    built_in.start()
    made = eventually("the entry is made", lambda: api.find(f"{ENTRIES}/built-in-a"))
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "rerank-operator"}
    assert made["spec"]["license"] == "MIT"
    assert api.get(f"{ENTRIES}/built-in-b")["spec"]["license"] == "theirs", "it is somebody else's"

    api.merge(f"{ENTRIES}/built-in-a", {"spec": {"license": "edited"}})
    built_in.stop()
    built_in.start()
    eventually("it is as built in", lambda: api.get(f"{ENTRIES}/built-in-a")["spec"]["license"] == "MIT")

    built_in.stop()
    since = audit.size()
    built_in.start()

    def listed() -> bool:
        return any(
            event["verb"] == "list" and event["requestURI"].startswith(f"{ENTRIES}?limit=")
            for event in audit.requests(since=since)
        )

    eventually("the catalog was compared", listed)
    built_in.stop()
    writes = audit.writes(since=since)
    assert [write for write in writes if "catalogmodels" in write] == []


def test_an_operator_of_one_namespace_sees_the_catalog(
    api: Api, namespace: str, operator: Operator, tmp_path: Path
) -> None:
    """Entries belong to no namespace: their changes reach it all the same."""
    if operator.process is not None:
        operator.stop()
    confined = Operator(api, tmp_path / "confined", operator.token, {"RERANK_WATCH_NAMESPACES": namespace})
    confined.start()
    try:
        name = f"{namespace}-confined"
        api.apply(f"{ENTRIES}/{name}", catalog_entry(name))
        uses(api, namespace, name)
        eventually("the entry is used", lambda: repo_of(api, namespace) == "demo/word-overlap")
        api.apply(f"{ENTRIES}/{name}", catalog_entry(name, repo="demo/constant"))
        eventually("the change reached the model", lambda: repo_of(api, namespace) == "demo/constant")
    finally:
        confined.stop()


def test_every_entry_of_the_chart_is_taken(api: Api) -> None:
    """By the real API server, with its cost limits and CEL rules."""
    for file in sorted((ROOT / "charts" / "rerank-operator" / "files" / "catalog").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        try:
            api.request("POST", ENTRIES, body, dryRun="All", fieldValidation="Strict")
        except Refused as refused:
            assert refused.status == 409, refused  # noqa: PT017  # another test has applied it
