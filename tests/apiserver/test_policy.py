"""What an administrator forbids is refused by the API server, as kubectl shows it, and by the operator."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.access import Access
from dev.cluster.commands import run
from manifests.render import CHART, KUBE_VERSION
from tests.apiserver.api import RERANK, Api, Object, Refused, catalog_entry, eventually
from tests.apiserver.models import apply_model, child_path, condition, model_path, settled
from tests.apiserver.operator_process import Operator

POLICY: Object = {
    "remoteCode": [f"org/own-code@{'c' * 40}"],
    "images": ["r.example/ml/", "r.example/team/run"],
    "extraArgs": ["--max-num-seqs", "--seed"],
    "hubEndpoints": ["https://mirror.example/"],
    "modelImages": [],
    "licenses": None,
    "maxReplicas": 3,
}
ASK = "ask an administrator, who allows it in policy.{} of the chart"
HUB = {"huggingFace": {"repo": "o/r"}}
DIGEST = "sha256:" + "d" * 64


ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
NAMES = ("rerank-models", "rerank-models-scale")


def rendered(cluster: Access, policy: Object) -> list[Object]:
    """The chart's admission policy for some `policy`."""
    pairs = [f"policy.{name}={json.dumps(value)}" for name, value in policy.items()]
    values = [part for pair in pairs for part in ("--set-json", pair)]
    command: list[str | Path] = [cluster.programs / "helm", "template", "--kube-version", KUBE_VERSION]
    chart = yaml.safe_load_all(run([*command, "rerank-operator", CHART, *values]))
    return [body for body in chart if body and body["kind"] in PATHS]


def remove(api: Api) -> None:
    """End the admission policy, and wait until nothing is held to it any more."""
    for path in reversed(PATHS.values()):
        for name in NAMES:
            if api.find(f"{path}/{name}"):
                api.delete(f"{path}/{name}")
    eventually("nothing is in force", lambda: not refusal(api, engine={"image": "x"}), seconds=60)


@pytest.fixture(scope="module")
def admission(control_plane: Access, api: Api) -> Iterator[Callable[[Object], None]]:
    """Puts the chart's admission policy in force with some `policy`."""

    def apply(policy: Object) -> None:
        for body in rendered(control_plane, policy):
            api.apply(f"{PATHS[body['kind']]}/{body['metadata']['name']}", body)

    yield apply
    remove(api)


@pytest.fixture(scope="module")
def in_force(admission: Callable[[Object], None], api: Api) -> None:
    """POLICY, in force and without a warning of the API server's own about its expressions."""
    admission(POLICY)
    eventually("the policy is in force", lambda: refusal(api, engine={"image": "x"}), seconds=60)

    def checked() -> list[Object] | None:
        found = [api.get(f"{PATHS['ValidatingAdmissionPolicy']}/{name}").get("status") for name in NAMES]
        return [status for status in found if status] if all(found) else None

    for status in eventually("its expressions were checked", checked):
        assert not (status.get("typeChecking") or {}).get("expressionWarnings"), status


def refusal(api: Api, *, namespace: str = "default", **spec: Any) -> str:
    """What the API server says of a model; empty when it takes it."""
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {"model": HUB, **spec},
    }
    path = f"{RERANK}/namespaces/{namespace}/modeldeployments"
    try:
        api.request("POST", path, body, dryRun="All", fieldValidation="Strict")
    except Refused as refused:
        return str(refused.body["message"])
    return ""


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"engine": {"dtype": "float16"}},
        {"engine": {"image": "r.example/ml/run:1"}},
        {"engine": {"image": f"r.example/team/run@{DIGEST}"}},
        {"engine": {"extraArgs": ["--seed=1", "--max-num-seqs=4"]}},
        {"model": {"huggingFace": {"repo": "o/r", "endpoint": "https://mirror.example"}}},
        {"model": {"huggingFace": {"repo": "o/r", "endpoint": "https://huggingface.co/"}}},
        {
            "model": {"huggingFace": {"repo": "org/own-code", "revision": "c" * 40}},
            "engine": {"trustRemoteCode": True},
        },
        {"model": {"catalog": "e"}, "engine": {"trustRemoteCode": True}},
        {"replicas": 3},
        {"model": {"persistentVolumeClaim": {"claimName": "w"}}},
    ],
)
def test_what_is_allowed_is_taken(api: Api, in_force: None, spec: Object) -> None:
    assert refusal(api, **spec) == ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"engine": {"image": "r.example/team/runner:1"}},
            (
                "spec.engine.image: r.example/team/runner:1 is not allowed"
                " (allowed: r.example/ml/, r.example/team/run): leave it out to run the installation's own,"
                f" or {ASK.format('images')}"
            ),
        ),
        (
            {"engine": {"image": "r.example/team/run:5000/x"}},
            "spec.engine.image must be the reference of an image",
        ),
        (
            {"engine": {"extraArgs": ["--seed=1", "--port=1", "--uds=x=y"]}},
            (
                "spec.engine.extraArgs: --port, --uds is not allowed (allowed: --max-num-seqs, --seed):"
                f" {ASK.format('extraArgs')}"
            ),
        ),
        (
            {"model": {"huggingFace": {"repo": "o/r", "endpoint": "https://mine.example"}}},
            (
                "spec.model.huggingFace.endpoint: https://mine.example is not allowed: leave it out to use"
                f" https://huggingface.co, or {ASK.format('hubEndpoints')}"
            ),
        ),
        (
            {
                "model": {"huggingFace": {"repo": "org/own-code", "revision": "main"}},
                "engine": {"trustRemoteCode": True},
            },
            (
                "spec.engine.trustRemoteCode is not allowed for org/own-code@main of https://huggingface.co:"
                " ask an administrator to review the code at a commit of 40 digits"
            ),
        ),
        (
            {
                "model": {
                    "huggingFace": {
                        "repo": "org/own-code",
                        "revision": "c" * 40,
                        "endpoint": "https://mirror.example",
                    }
                },
                "engine": {"trustRemoteCode": True},
            },
            "of https://mirror.example: ask an administrator",
        ),
        (
            {"model": {"image": {"reference": f"r.example/weights@{DIGEST}"}}},
            f"spec.model.image.reference: r.example/weights@{DIGEST} is not allowed (allowed: none):",
        ),
        (
            {"replicas": 4},
            f"spec.replicas: 4 is more than the 3 that are allowed: {ASK.format('maxReplicas')}",
        ),
        (
            {"autoscaling": {"maxReplicas": 4}},
            f"spec.autoscaling.maxReplicas: 4 is more than the 3 that are allowed: {ASK}".format(
                "maxReplicas"
            ),
        ),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(api: Api, in_force: None, spec: Object, message: str) -> None:
    assert message in refusal(api, **spec)


def test_kubectl_shows_the_reason(control_plane: Access, in_force: None, namespace: str) -> None:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {"model": HUB, "engine": {"image": "x:1"}},
    }
    command = [*control_plane.kubectl, "apply", "--filename=-"]
    with pytest.raises(
        Exception, match=r"spec\.engine\.image: x:1 is not allowed \(allowed: r\.example/ml/, r"
    ):
        run(command, stdin=yaml.safe_dump(body))


def test_the_scale_subresource_is_held_to_it_too(api: Api, in_force: None, namespace: str) -> None:
    apply_model(api, namespace, replicas=0)
    scale = f"{model_path(namespace)}/scale"
    with pytest.raises(Refused, match=r"spec\.replicas: 9 is more than the 3 that are allowed"):
        api.merge(scale, {"spec": {"replicas": 9}})
    api.merge(scale, {"spec": {"replicas": 3}})
    api.merge(scale, {"spec": {"replicas": 0}})


def test_a_model_from_before_may_be_cleaned_up(
    api: Api, in_force: None, admission: Callable[[Object], None], namespace: str
) -> None:
    apply_model(api, namespace, replicas=0, engine={"image": "r.example/ml/run:1"})
    admission({**POLICY, "images": []})
    eventually(
        "the policy is in force", lambda: refusal(api, engine={"image": "r.example/ml/run:1"}), seconds=60
    )
    api.merge(model_path(namespace), {"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/f"]}})
    api.merge(model_path(namespace), {"metadata": {"finalizers": None}})
    with pytest.raises(Refused, match=r"spec\.engine\.image: r\.example/ml/run:1 is not allowed"):
        api.merge(model_path(namespace), {"spec": {"aliases": ["x"]}})
    api.merge(model_path(namespace), {"spec": {"engine": {"image": None}, "aliases": ["x"]}})
    admission(POLICY)


@pytest.fixture
def licensed(admission: Callable[[Object], None], api: Api) -> Iterator[None]:
    """POLICY for two licences, and for any image with weights: nothing else is in the way."""
    admission({**POLICY, "modelImages": None, "licenses": ["MIT", "Apache-2.0"]})
    eventually("it is in force", lambda: "licences" in refusal(api), seconds=60)
    yield
    admission(POLICY)
    eventually("it has ended", lambda: not refusal(api), seconds=60)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": {"persistentVolumeClaim": {"claimName": "w"}}},
        {"model": {"image": {"reference": f"r.example/weights@{DIGEST}"}}},
    ],
)
def test_where_licences_are_listed_only_the_catalog_is_taken(api: Api, licensed: None, spec: Object) -> None:
    """The API server does not see the entry: whether its licence is listed, the operator tells."""
    assert refusal(api, **spec).endswith(
        "spec.model: only models of the catalog are allowed (with the licences: Apache-2.0, MIT): use"
        " spec.model.catalog; kubectl get catalogmodels -o wide shows the licences"
    )
    assert refusal(api, model={"catalog": "e"}) == ""


@contextmanager
def held_to(operator: Operator, policy: Object) -> Iterator[None]:
    """The operator with some `policy`, where the API server has none."""
    remove(operator.api)
    if operator.process is not None:
        operator.stop()
    operator.environment["RERANK_POLICY"] = json.dumps(policy)
    operator.start()
    try:
        yield
    finally:
        operator.stop()
        del operator.environment["RERANK_POLICY"]


def refused(api: Api, namespace: str, reason: str) -> str:
    """What the operator tells of the model once it refuses it for `reason`."""
    body = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == reason)
    return str(body["status"]["message"])


def deployment(api: Api, namespace: str) -> Object | None:
    return api.find(child_path(namespace, "deployments"))


def test_the_operator_refuses_an_entry_for_its_licence(api: Api, operator: Operator, namespace: str) -> None:
    entry = f"{RERANK}/catalogmodels/policy-licence"
    with held_to(operator, {**POLICY, "licenses": ["MIT", "Apache-2.0"]}):
        api.apply(entry, catalog_entry("policy-licence", license="CC-BY-NC-4.0"))
        apply_model(api, namespace, model={"catalog": "policy-licence"})
        assert refused(api, namespace, "LicenseNotAllowed") == (
            'spec.model.catalog: policy-licence has the licence "CC-BY-NC-4.0", which is not allowed'
            f" (allowed: Apache-2.0, MIT): choose another entry, or {ASK.format('licenses')}"
        )
        assert deployment(api, namespace) is None
        api.merge(entry, {"spec": {"license": "MIT"}})
        eventually("the Deployment is there", lambda: deployment(api, namespace))


def test_the_operator_refuses_the_same_by_itself(api: Api, operator: Operator, namespace: str) -> None:
    with held_to(operator, POLICY):
        apply_model(api, namespace, engine={"extraArgs": ["--max-num-seqs=4", "--port=1"]})
        assert (
            refused(api, namespace, "ExtraArgNotAllowed")
            == "spec.engine.extraArgs: nobody may set --port: the runtime sets it itself"
        )
        assert deployment(api, namespace) is None
        apply_model(api, namespace, engine={"extraArgs": ["--max-num-seqs=4"], "image": "r.example/ml/run:1"})
        made = eventually("the Deployment is there", lambda: deployment(api, namespace))
        pod = made["spec"]["template"]["spec"]
        assert "--engine-arg=--max-num-seqs=4" in pod["containers"][0]["args"]
        images = {container["image"] for container in (*pod["initContainers"], *pod["containers"])}
        assert images == {"r.example/ml/run:1"}
