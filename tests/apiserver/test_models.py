"""ModelDeployments from apply to delete, against a real API server, controller manager and scheduler."""

from collections.abc import Callable, Iterator

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.kubelet import DONE, RUNNING, Runtime, failed, node, offer, ready_report
from tests.apiserver.models import COMMIT, apply_model, child_path, condition, model_path, settled
from tests.apiserver.operator_process import Operator


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


@pytest.fixture
def runtimes(api: Api, namespace: str) -> Iterator[Callable[[str], Runtime]]:
    """Makes the runtime of a pod; their status ports close with the test."""
    made: list[Runtime] = []

    def make(pod: str) -> Runtime:
        made.append(Runtime(api, namespace, pod))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


def pods(api: Api, namespace: str, count: int) -> list[str]:
    """The names of the model's pods once there are `count` that stay."""

    def look() -> list[str] | None:
        found = api.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector="rerank.dev/model=m")
        names = sorted(p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"])
        return names if len(names) == count else None

    return eventually(f"{count} pods", look)


def bound(api: Api, namespace: str, pod: str) -> None:
    eventually(
        f"{pod} is bound",
        lambda: api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["spec"].get("nodeName"),
    )


def test_from_apply_to_ready(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime], running: Operator
) -> None:
    """Each step of a replica's start shows in phase and conditions, and the commit is pinned."""
    with node(api, "n-start"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        runtime = runtimes(name)

        download = {"bytes": 50, "totalBytes": 100, "etaSeconds": 7}
        source = {"repo": "demo/word-overlap", "revision": COMMIT}
        runtime.serve({"phase": "Downloading", "source": source, "download": download})
        runtime.set(fetch=RUNNING)
        body = settled(api, namespace, lambda b: b["status"].get("download"))
        assert body["status"]["phase"] == "Downloading"
        assert body["status"]["download"] == download
        assert body["status"]["message"] == "downloading demo/word-overlap: 50 % of 100 bytes, about 7 s left"
        assert condition(body, "Scheduled")["status"] == "True"
        assert condition(body, "Downloaded")["reason"] == "Downloading"

        def pinned() -> Object | None:
            data: Object = api.get(child_path(namespace, "configmaps")).get("data", {})
            return data or None

        assert list(eventually("the commit is pinned", pinned).values()) == [COMMIT]

        runtime.serve({"phase": "Starting", "source": source})
        runtime.set(fetch=DONE, serve=RUNNING)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Starting")
        assert condition(body, "Downloaded")["status"] == "True"
        assert condition(body, "Downloaded")["message"] == f"demo/word-overlap at {COMMIT}"
        assert "download" not in body["status"]

        runtime.serve({"phase": "Verifying", "source": source})
        settled(api, namespace, lambda b: b["status"]["phase"] == "Verifying")

        runtime.serve(ready_report(COMMIT))
        runtime.set(fetch=DONE, serve=RUNNING, ready=True)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Ready")
        assert body["status"]["ready"] == "1/1"
        assert body["status"]["replicas"] == body["status"]["readyReplicas"] == 1
        assert body["status"]["selector"] == "rerank.dev/model=m"
        assert body["status"]["model"] == {
            "repo": "demo/word-overlap",
            "revision": COMMIT,
            "family": "bert",
            "architecture": "BertForSequenceClassification",
            "parameters": 4385281,
            "weightsBytes": 17541124,
            "contextLength": 512,
            "scoring": {"method": "CrossEncoder", "range": "[0,1]", "verified": True},
        }
        for kind in ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready"):
            assert condition(body, kind)["status"] == "True", kind
            assert condition(body, kind)["observedGeneration"] == body["metadata"]["generation"]

        def told() -> set[str]:
            events = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
            return {e["reason"] for e in events if e["regarding"]["kind"] == "ModelDeployment"}

        milestones = {"Scheduled", "Downloading", "Downloaded", "ScoringVerified", "Ready"}
        eventually("the milestones are told", lambda: told() == milestones)


def end(api: Api, namespace: str, pod: str) -> None:
    """Remove a pod that is being deleted, as its kubelet does when the containers have ended."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    eventually(f"{pod} is being deleted", lambda: "deletionTimestamp" in api.get(path)["metadata"])
    api.request("DELETE", path, {"gracePeriodSeconds": 0})


def serving(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime], *, replicas: int = 1
) -> tuple[list[str], list[Runtime]]:
    """A model of `replicas` that is Ready."""
    apply_model(api, namespace, replicas=replicas)
    names = pods(api, namespace, replicas)
    made = [runtimes(name) for name in names]
    for name, runtime in zip(names, made, strict=True):
        bound(api, namespace, name)
        runtime.serve(ready_report(COMMIT))
        runtime.set(fetch=DONE, serve=RUNNING, ready=True)
    settled(api, namespace, lambda b: b["status"]["phase"] == "Ready")
    return names, made


def test_a_reason_stays_between_two_attempts(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime]
) -> None:
    """Ended, waiting to be started again, started again: the same cause, until the spec is corrected."""
    with node(api, "n-cause"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        runtime = runtimes(name)
        ending = failed("RepositoryNotFound", "the hub knows no repository demo/word-overlap")
        attempts: list[Object] = [
            {"state": {"terminated": ending}},
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ending}},
            {**RUNNING, "lastState": {"terminated": ending}, "restartCount": 1},
        ]
        generation = 0
        for attempt in attempts:
            runtime.set(fetch=attempt)
            body = settled(api, namespace, lambda b: b["status"]["phase"] == "Failed")
            for kind in ("Downloaded", "Progressing", "Ready"):
                assert condition(body, kind)["reason"] == "RepositoryNotFound"
            assert body["status"]["message"] == "the hub knows no repository demo/word-overlap"
            generation = body["metadata"]["generation"]

        apply_model(api, namespace, model={"huggingFace": {"repo": "demo/other"}})
        body = settled(
            api,
            namespace,
            lambda b: b["status"]["observedGeneration"] > generation and b["status"]["phase"] == "Pending",
        )
        assert condition(body, "Ready")["reason"] == "Waiting"


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (
            {"reason": "CreateContainerConfigError", "message": 'secret "hf" not found'},
            ("TokenSecretNotFound", 'there is no Secret "hf" in this namespace'),
        ),
        (
            {"reason": "CreateContainerConfigError", "message": "couldn't find key token in Secret x/hf"},
            ("TokenSecretKeyNotFound", 'the Secret "hf" has no key "token"'),
        ),
        (
            {"reason": "ImagePullBackOff", "message": "Back-off pulling image"},
            ("ImagePullFailed", "the image rerank-runtime:test-cpu cannot be pulled"),
        ),
    ],
)
def test_what_the_kubelet_complains_of_is_lifted(
    api: Api,
    namespace: str,
    runtimes: Callable[[str], Runtime],
    waiting: Object,
    expected: tuple[str, str],
) -> None:
    reason, message = expected
    with node(api, f"n-{reason.lower()}"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        runtimes(name).set(fetch={"state": {"waiting": waiting}})
        body = settled(api, namespace, lambda b: condition(b, "Downloaded").get("reason") == reason)
        assert message in body["status"]["message"]
        assert body["status"]["phase"] == "Failed"


def test_a_wrong_order_keeps_the_model_from_ready(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime]
) -> None:
    with node(api, "n-inverted"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        verdict = {"verified": False, "reason": "ScoresInverted", "message": "the bear beat the panda"}
        runtimes(name).serve({"phase": "Failed", "verification": verdict}).set(fetch=DONE, serve=RUNNING)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Failed")
        assert condition(body, "ScoringVerified")["status"] == "False"
        assert condition(body, "ScoringVerified")["reason"] == "ScoresInverted"
        assert body["status"]["message"] == "the bear beat the panda"
        events = eventually(
            "the problem is told",
            lambda: api.items(
                f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", fieldSelector="reason=ScoresInverted"
            ),
        )
        assert [event["type"] for event in events] == ["Warning"]


def test_gpu_pending_quotes_the_scheduler_until_capacity_appears(api: Api, namespace: str) -> None:
    with node(api, "n-gpu") as name:
        apply_model(api, namespace, resources={"gpu": {"count": 1}, "cpu": "1", "memory": "1Gi"})
        body = settled(api, namespace, lambda b: condition(b, "Scheduled").get("reason") == "NoMatchingGpu")
        assert "Insufficient nvidia.com/gpu" in condition(body, "Scheduled")["message"]
        assert body["status"]["phase"] == "Pending"
        offer(api, name, {"cpu": "64", "memory": "512Gi", "pods": "500", "nvidia.com/gpu": "1"})
        settled(api, namespace, lambda b: condition(b, "Scheduled").get("status") == "True")


def test_a_missing_claim_is_named(api: Api, namespace: str) -> None:
    with node(api, "n-claim"):
        apply_model(api, namespace, model={"persistentVolumeClaim": {"claimName": "weights"}})
        body = settled(
            api,
            namespace,
            lambda b: condition(b, "Scheduled").get("reason") == "PersistentVolumeClaimNotFound",
        )
        assert 'no PersistentVolumeClaim "weights"' in body["status"]["message"]


def test_a_cluster_without_image_volumes_says_so_and_makes_no_replica(api: Api, namespace: str) -> None:
    """Kubernetes 1.34 has them behind a feature gate, and takes them out of a pod without a word."""
    apply_model(api, namespace, model={"image": {"reference": f"models/bge@sha256:{'0' * 64}"}})
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "ImageVolumesUnsupported")
    assert "feature gate ImageVolume" in body["status"]["message"]
    assert body["status"]["phase"] == "Failed"
    assert api.find(child_path(namespace, "deployments")) is None
    apply_model(api, namespace)
    settled(api, namespace, lambda b: condition(b, "Ready").get("reason") != "ImageVolumesUnsupported")
    assert api.find(child_path(namespace, "deployments")) is not None


def test_scale_up_to_zero_and_back(api: Api, namespace: str, runtimes: Callable[[str], Runtime]) -> None:
    """Through the scale subresource, as kubectl scale and autoscalers do."""

    def scale(replicas: int) -> None:
        api.merge(f"{model_path(namespace)}/scale", {"spec": {"replicas": replicas}})

    with node(api, "n-scale"):
        names, _ = serving(api, namespace, runtimes)
        scale(2)
        new = next(name for name in pods(api, namespace, 2) if name not in names)
        body = settled(api, namespace, lambda b: b["status"]["ready"] == "1/2")
        assert body["status"]["phase"] == "Degraded"
        assert condition(body, "Ready")["status"] == "False"
        bound(api, namespace, new)
        runtimes(new).serve(ready_report(COMMIT)).set(fetch=DONE, serve=RUNNING, ready=True)
        settled(api, namespace, lambda b: b["status"]["phase"] == "Ready" and b["status"]["ready"] == "2/2")
        assert api.get(f"{model_path(namespace)}/scale")["status"] == {
            "replicas": 2,
            "selector": "rerank.dev/model=m",
        }
        scale(0)
        for pod in [*names, new]:
            end(api, namespace, pod)
        body = settled(
            api, namespace, lambda b: b["status"]["phase"] == "Idle" and not b["status"]["replicas"]
        )
        assert condition(body, "Ready")["reason"] == "ScaledToZero"
        assert "kubectl scale md m --replicas=1" in body["status"]["message"]
        assert body["status"]["model"]["revision"] == COMMIT
        scale(1)
        pods(api, namespace, 1)


@pytest.mark.parametrize(
    "kind", ["deployments", "services", "configmaps", "poddisruptionbudgets", "networkpolicies"]
)
def test_a_deleted_child_comes_back(api: Api, namespace: str, running: Operator, kind: str) -> None:
    apply_model(api, namespace, replicas=2)
    child = child_path(namespace, kind)
    eventually("all are there", lambda: api.find(child_path(namespace, "deployments")))  # the last one
    before = api.get(child)
    # Some are not watched: any later look restores them; here the Service's event asks for one.
    api.delete(child)
    if kind not in {"deployments", "services"}:
        api.merge(child_path(namespace, "services"), {"metadata": {"annotations": {"x": "y"}}})
    after = eventually("the child is back", lambda: api.find(child))
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after.get("spec", {}).get("selector") == before.get("spec", {}).get("selector")


@pytest.mark.parametrize(
    ("kind", "edit", "restored"),
    [
        ("deployments", {"spec": {"replicas": 5}}, lambda b: b["spec"]["replicas"] == 1),
        (
            "deployments",
            {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
            lambda b: b["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 150,
        ),
        (
            "services",
            {"spec": {"selector": {"rerank.dev/model": "other"}}},
            lambda b: b["spec"]["selector"] == {"rerank.dev/model": "m"},
        ),
        (
            "services",
            {"metadata": {"labels": {"rerank.dev/model": "m2"}}},
            lambda b: b["metadata"]["labels"]["rerank.dev/model"] == "m",
        ),
    ],
)
def test_an_edited_child_is_restored(
    api: Api, namespace: str, kind: str, edit: Object, restored: Callable[[Object], bool]
) -> None:
    apply_model(api, namespace)
    child = child_path(namespace, kind)
    eventually("the child is there", lambda: api.find(child))
    assert not restored(api.merge(child, edit))
    eventually("the edit is undone", lambda: restored(api.get(child)))


def test_labels_and_annotations_of_others_survive(api: Api, namespace: str) -> None:
    apply_model(api, namespace)
    for kind in ("deployments", "services", "configmaps"):
        child = child_path(namespace, kind)
        eventually("the child is there", lambda child=child: api.find(child))  # type: ignore[misc]
        mine = {"metadata": {"labels": {"team": "search"}, "annotations": {"note": "mine"}}}
        api.merge(child, mine)
    apply_model(api, namespace, scheduling={"nodeSelector": {"disk": "ssd"}})

    def rolled() -> bool:
        spec = api.get(child_path(namespace, "deployments"))["spec"]["template"]["spec"]
        return bool(spec.get("nodeSelector") == {"disk": "ssd"})

    eventually("the change arrives", rolled)
    for kind in ("deployments", "services", "configmaps"):
        metadata = api.get(child_path(namespace, kind))["metadata"]
        assert metadata["labels"]["team"] == "search"
        assert metadata["annotations"]["note"] == "mine"

    apply_model(api, namespace)
    eventually("what is no longer wanted goes", lambda: not rolled())


def test_a_taken_name_is_left_alone_and_reported(api: Api, namespace: str) -> None:
    theirs = {
        "metadata": {"name": "rerank-m"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    }
    before = api.create(f"/api/v1/namespaces/{namespace}/services", theirs)
    apply_model(api, namespace)
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "NameTaken")
    assert "Service rerank-m exists and is not this ModelDeployment's" in body["status"]["message"]
    assert body["status"]["phase"] == "Failed"
    assert api.find(child_path(namespace, "deployments")) is None
    after = api.get(child_path(namespace, "services"))
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    api.delete(child_path(namespace, "services"))
    eventually("it goes on by itself", lambda: api.find(child_path(namespace, "deployments")), seconds=30)


def test_a_refused_child_is_reported_and_recovers(api: Api, namespace: str) -> None:
    """What our schema lets through and the API server does not: the reason stands on the ModelDeployment."""
    apply_model(api, namespace, scheduling={"nodeSelector": {"not a label": "x"}})
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "DeploymentRefused")
    assert "not a label" in body["status"]["message"]
    apply_model(api, namespace)
    eventually("the corrected spec is applied", lambda: api.find(child_path(namespace, "deployments")))


@pytest.mark.parametrize("what", ["pods", "requests.nvidia.com/gpu", "limits.memory"])
def test_pods_that_quota_forbids_are_reported(api: Api, namespace: str, what: str) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {what: "0"}}}
    api.create(f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    eventually(
        "the quota counts",
        lambda: api.get(f"/api/v1/namespaces/{namespace}/resourcequotas/q").get("status", {}).get("hard"),
    )
    apply_model(api, namespace, resources={"gpu": {"count": 1}})
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "PodsRefused")
    assert "exceeded quota: q" in body["status"]["message"]
    assert f"{what}=" in body["status"]["message"]
    assert condition(body, "Progressing")["reason"] == "PodsRefused"


def test_a_new_model_of_the_same_name_replaces_the_old(api: Api, namespace: str) -> None:
    """Deleted and applied again at once: no child of the old one is taken for the new one's."""
    apply_model(api, namespace)
    old = eventually("the child is there", lambda: api.find(child_path(namespace, "deployments")))
    api.delete(model_path(namespace))
    eventually("the model is gone", lambda: api.find(model_path(namespace)) is None)
    new = apply_model(api, namespace)

    def replaced() -> bool:
        there = api.find(child_path(namespace, "deployments"))
        return bool(there and there["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"])

    eventually("the children are the new one's", replaced, seconds=40)
    assert api.get(child_path(namespace, "deployments"))["metadata"]["uid"] != old["metadata"]["uid"]


@pytest.mark.parametrize("answer", [b"", b"[]", b"{" * 1000, b'{"phase": "Owned"}', b"x" * 200_000])
def test_a_pod_that_talks_nonsense_is_not_believed(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime], answer: bytes
) -> None:
    with node(api, "n-nonsense"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        runtime = runtimes(name).serve(answer)
        runtime.set(fetch=DONE, serve=RUNNING)
        settled(api, namespace, lambda b: b["status"]["phase"] == "Starting")
        runtime.serve(ready_report(COMMIT)).set(fetch=DONE, serve=RUNNING, ready=True)
        settled(api, namespace, lambda b: b["status"]["phase"] == "Ready")
