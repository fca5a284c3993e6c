"""What is applied, against golden YAML. `UPDATE_GOLDEN=1 pytest …` writes the files anew, for review."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rerank_api.api_key import APIKey
from rerank_api.effective import effective
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.config_map import config_map
from rerank_operator.builders.deployment import pod_template
from rerank_operator.builders.metadata import digest, with_applied
from rerank_operator.builders.network_policy import network_policy
from rerank_operator.builders.pod_disruption_budget import is_wanted, pod_disruption_budget
from rerank_operator.builders.secret import api_key_secret
from rerank_operator.builders.service import service
from rerank_operator.builders.source import source_of
from tests.rerank_operator.samples import COMMIT, SETTINGS, built, model

GOLDEN = Path(__file__).parents[1] / "golden" / "operator"
CRDS = Path(__file__).parents[2] / "crds"

IMAGE = "registry.example.com/models@sha256:" + "0" * 64
CASES: dict[str, dict[str, Any]] = {
    "gpu-by-default": {"model": {"huggingFace": {"repo": "BAAI/bge-reranker-v2-m3"}}},
    "cpu-with-everything": {
        "model": {
            "huggingFace": {
                "repo": "org/gated",
                "revision": "v2",
                "tokenSecretRef": {"name": "hf"},
                "endpoint": "https://hub.example.com",
            }
        },
        "aliases": ["rerank-default"],
        "replicas": 2,
        "resources": {"gpu": {"count": 0}, "cpu": "500m", "memory": "2Gi"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "scoring": {"method": "Cosine"},
    },
    "placed-with-care": {
        "model": {"huggingFace": {"repo": "org/name"}},
        "resources": {"gpu": {"products": ["NVIDIA-L4", "NVIDIA-A10"], "minMemory": "20Gi"}},
        "scheduling": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                            {"matchExpressions": [{"key": "spot", "operator": "Exists"}]},
                        ]
                    }
                },
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname"}
                    ],
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 5,
                            "podAffinityTerm": {
                                "topologyKey": "zone",
                                "labelSelector": {"matchLabels": {"noisy": "yes"}},
                            },
                        }
                    ],
                },
            },
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {
                    "maxSkew": 2,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": "all"}},
                },
            ],
        },
        "rollout": {"strategy": "Surge", "progressDeadlineSeconds": 600},
    },
    "volume": {
        "model": {"persistentVolumeClaim": {"claimName": "weights", "path": "models/bge/"}},
        "resources": {"gpu": {"count": 1, "resourceName": "amd.com/gpu"}},
        "scoring": {"method": "CrossEncoder"},
    },
    "claimed-gpu": {
        "model": {"huggingFace": {"repo": "org/name", "revision": COMMIT}},
        "resources": {"gpu": {"resourceClaimTemplateName": "gpu-24g"}},
    },
    "several-gpus": {
        "model": {"huggingFace": {"repo": "org/name", "revision": COMMIT}},
        "resources": {"gpu": {"count": 2, "minMemory": "16G"}, "memory": "16Gi"},
    },
    "image": {
        "model": {"image": {"reference": IMAGE, "path": "models/bge/"}},
        "resources": {"gpu": {"count": 0}},
    },
    "engine-scoring-and-storage": {
        "model": {"huggingFace": {"repo": "org/rerankers-GGUF", "file": "*Q8_0.gguf"}},
        "resources": {"gpu": {"count": 1}},
        "engine": {"maxModelLen": 4096, "dtype": "bfloat16", "gpuMemoryUtilization": 0.5},
        "scoring": {
            "method": "CrossEncoder",
            "instruction": "Find what $(HOME) costs in $",
            "truncation": {
                "maxTokensPerDocument": 1024,
                "maxTokensPerQuery": 128,
                "onOverflow": "Reject",
            },
            "verification": {
                "mode": "Report",
                "cases": [{"query": "Wie viel?", "relevant": "Zwölf $.", "irrelevant": 'Ein "Hut".'}],
            },
        },
        "storage": {"persistentVolumeClaim": {"claimName": "cache"}},
    },
    "code-of-the-repository": {
        "model": {"huggingFace": {"repo": "org/own-code", "revision": COMMIT}},
        "engine": {"trustRemoteCode": True},
        "storage": {"ephemeral": {"sizeLimit": "20Gi"}},
    },
    "own-image-and-flags": {
        "model": {"huggingFace": {"repo": "org/name", "revision": COMMIT}},
        "engine": {
            "image": "registry.example/team/rerank-runtime:2-cuda",
            "extraArgs": ["--max-num-seqs=64", "--seed=$(HOME)", "--enable-prefix-caching"],
        },
    },
    "pinned-in-the-spec": {"model": {"huggingFace": {"repo": "org/name", "revision": COMMIT}}},
}


@pytest.mark.parametrize("case", CASES)
def test_children_are_as_in_the_golden_file(case: str) -> None:
    of = model(**CASES[case])
    source = source_of(of, hub_endpoint=None, remote_code=effective(of.spec).engine.trust_remote_code)
    children = [
        with_applied(child)
        for child in (
            *([config_map(of, source_key=source.key, pin=COMMIT)] if source.needs_pin else []),
            service(of),
            *([pod_disruption_budget(of)] if is_wanted(of.spec) else []),
            network_policy(of, system_namespace="rerank-system"),
            built(of),
        )
    ]
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(
            yaml.dump_all(children, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)
        )
    assert children == list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, False),
        ({"replicas": 0}, False),
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        ({"autoscaling": {"maxReplicas": 1}}, False),
        ({"autoscaling": {"maxReplicas": 3}}, True),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 2}, "replicas": 0}, True),
        ({"autoscaling": {"maxReplicas": 1}, "replicas": 5}, False),  # it starts with one, too
    ],
)
def test_a_budget_is_for_a_model_that_can_have_several_replicas(spec: dict[str, Any], wanted: bool) -> None:
    assert is_wanted(model(**spec).spec) is wanted


class _Plain(yaml.SafeDumper):
    """Without anchors: the file should read like what people write."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def template(**spec: Any) -> Any:
    return built(model(**spec))["spec"]["template"]


def hub(**more: Any) -> dict[str, Any]:
    return {"model": {"huggingFace": {"repo": "org/name", **more}}}


RESTARTS_NOTHING: tuple[dict[str, Any], ...] = (
    {"replicas": 5},
    {"replicas": 0},
    {"aliases": ["a"]},
    {"access": {"namespaces": ["team-b"]}},
    {"rollout": {"strategy": "Recreate"}},
    {"rollout": {"progressDeadlineSeconds": 60}},
    {"scoring": {"cacheScores": True}},
    {"autoscaling": {"maxReplicas": 4}},
    {"autoscaling": {"maxReplicas": 4, "minReplicas": 2}},
    {"autoscaling": {"maxReplicas": 4, "targetQueueSeconds": 9}},
    {"autoscaling": {"maxReplicas": 4, "scaleDownDelaySeconds": 9}},
    {"autoscaling": {"maxReplicas": 4, "minReplicas": 0, "idleSecondsToZero": 9}},
)
REPLACES: tuple[dict[str, Any], ...] = (
    hub(revision="v2"),
    hub(file="a.gguf"),
    hub(endpoint="https://own"),
    hub(tokenSecretRef={"name": "hf"}),
    hub(tokenSecretRef={"name": "hf", "key": "other"}),
    {"model": {"huggingFace": {"repo": "org/other"}}},
    {"model": {"persistentVolumeClaim": {"claimName": "weights", "path": "a"}}},
    {"model": {"image": {"reference": IMAGE, "path": "a"}}},
    {"resources": {"cpu": "2"}},
    {"resources": {"memory": "9Gi"}},
    {"resources": {"gpu": {"count": 2}}},
    {"resources": {"gpu": {"resourceName": "amd.com/gpu"}}},
    {"resources": {"gpu": {"products": ["NVIDIA-L4"]}}},
    {"resources": {"gpu": {"minMemory": "24G"}}},
    {"resources": {"gpu": {"resourceClaimTemplateName": "gpu-24g"}}},
    {"scheduling": {"nodeSelector": {"a": "b"}}},
    {"scheduling": {"tolerations": [{"operator": "Exists"}]}},
    {"scheduling": {"affinity": {"podAffinity": {}}}},
    {"scheduling": {"priorityClassName": "high"}},
    {"scheduling": {"runtimeClassName": "nvidia"}},
    {"scheduling": {"topologySpreadConstraints": []}},
    {"engine": {"maxModelLen": 512}},
    {"engine": {"dtype": "float16"}},
    {"engine": {"gpuMemoryUtilization": 0.5}},
    {"engine": {"trustRemoteCode": True}},
    {"engine": {"image": "r.example/own:1"}},
    {"engine": {"extraArgs": ["--seed=1"]}},
    {"scoring": {"method": "Cosine"}},
    {"scoring": {"instruction": "Find it"}},
    {"scoring": {"truncation": {"maxTokensPerDocument": 9}}},
    {"scoring": {"truncation": {"maxTokensPerQuery": 9}}},
    {"scoring": {"truncation": {"onOverflow": "Reject"}}},
    {"scoring": {"verification": {"mode": "Off"}}},
    {"scoring": {"verification": {"cases": [{"query": "q", "relevant": "r", "irrelevant": "i"}]}}},
    {"storage": {"persistentVolumeClaim": {"claimName": "c"}}},
    {"storage": {"ephemeral": {"sizeLimit": "1Gi"}}},
)


@pytest.mark.parametrize("change", RESTARTS_NOTHING, ids=str)
def test_what_no_pod_is_made_of_leaves_the_template_as_it_is(change: dict[str, Any]) -> None:
    """The list in docs/rollouts.md, and `access` in docs/tenancy.md."""
    assert template(**change) == template()


@pytest.mark.parametrize("change", REPLACES, ids=str)
def test_what_pods_are_made_of_changes_the_template(change: dict[str, Any]) -> None:
    annotation = "rerank.dev/template"
    before, after = (each["metadata"]["annotations"][annotation] for each in (template(), template(**change)))
    assert before != after


def test_it_is_known_of_every_field_of_the_spec_whether_it_replaces_replicas() -> None:
    """But of `model.catalog`, which nothing is made from without its entry."""

    def fields(schema: Any, path: str) -> set[str]:
        inner = {f"{path}.{name}": part for name, part in schema.get("properties", {}).items()}
        if not inner or path.startswith(".scheduling."):
            return {path}
        return {found for name, part in inner.items() for found in fields(part, name)}

    def named(change: Any, path: str) -> set[str]:
        if not isinstance(change, dict) or path.startswith(".scheduling."):
            return {path}
        return {found for name, part in change.items() for found in named(part, f"{path}.{name}")}

    crd = yaml.safe_load((CRDS / "rerank.dev_modeldeployments.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    tried = {path for change in (*RESTARTS_NOTHING, *REPLACES) for path in named(change, "")}
    assert fields(schema, "") - tried == {".model.catalog"}


def test_labels_of_the_model_leave_the_template_as_it_is() -> None:
    of = model()
    metadata = {"name": of.metadata.name, "namespace": of.metadata.namespace, "uid": of.metadata.uid}
    body = {"metadata": {**metadata, "labels": {"team": "a"}, "annotations": {"x": "y"}, "generation": 9}}
    changed = ModelDeployment.parse({**body, "spec": {"model": {"huggingFace": {"repo": "org/name"}}}})
    assert built(changed)["spec"]["template"] == template()


def test_what_says_no_more_than_the_defaults_is_no_change() -> None:
    defaults = {
        "resources": {"gpu": {"count": 1, "resourceName": "nvidia.com/gpu"}, "cpu": "1", "memory": "8Gi"},
        "engine": {"dtype": "auto", "trustRemoteCode": False},
        "scoring": {
            "method": "Auto",
            "truncation": {"onOverflow": "Truncate"},
            "verification": {"mode": "Required", "cases": []},
        },
    }
    assert template(**defaults) == template()


def node_terms(**spec: Any) -> Any:
    pod = built(model(**spec))["spec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return required["nodeSelectorTerms"]


@pytest.mark.parametrize(
    ("memory", "more_than"),
    [("24G", "22888"), ("24Gi", "24575"), ("22500Mi", "22499"), ("22.5Gi", "23039"), ("1", "0")],
)
def test_memory_of_a_gpu_is_told_in_mebibytes(memory: str, more_than: str) -> None:
    """An L4 that is sold with 24 GB has 23034: 24G takes it, 24Gi does not."""
    terms = node_terms(resources={"gpu": {"minMemory": memory}})
    expression = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [more_than]}
    assert terms == [{"matchExpressions": [expression]}]


@pytest.mark.parametrize(
    ("resource", "label"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu.product"),
        ("nvidia.com/gpu.shared", "nvidia.com/gpu.product"),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.product"),
    ],
)
def test_slices_have_labels_of_their_own(resource: str, label: str) -> None:
    ((expression,),) = [
        term["matchExpressions"]
        for term in node_terms(resources={"gpu": {"resourceName": resource, "products": ["a"]}})
    ]
    assert expression == {"key": label, "operator": "In", "values": ["a"]}


def test_on_the_cpu_no_gpu_is_looked_for() -> None:
    """The catalog entry wishes for a GPU, and the model says that the CPU will do."""
    of = model(resources={"gpu": {"count": 0}})
    entry = model(resources={"gpu": {"products": ["a"], "minMemory": "24G"}}).spec
    found = effective(of.spec, entry)
    source = source_of(of, hub_endpoint=None)
    template = pod_template(of, effective=found, source=source, settings=SETTINGS)
    assert "affinity" not in template["spec"]


def test_the_serving_container_gets_neither_token_nor_hub() -> None:
    pod = built(model(**CASES["cpu-with-everything"]))["spec"]["template"]["spec"]
    (serve,) = pod["containers"]
    names = {variable["name"] for variable in serve["env"]}
    assert names == {"HOME", "HF_HUB_OFFLINE", "RERANK_BACKEND_TOKEN_SHA256", "OMP_NUM_THREADS"}
    assert pod["automountServiceAccountToken"] is False


def test_texts_reach_the_runtime_letter_by_letter() -> None:
    """The kubelet replaces $(NAME) and $$: what it makes of our arguments is what the user wrote."""
    case = {"query": "$(HOME) $$ $x", "relevant": "é\n", "irrelevant": "\\"}
    said = "$(RERANK_BACKEND_TOKEN_SHA256) costs $5, or $$(5)"
    of = model(scoring={"instruction": said, "verification": {"cases": [case]}})
    (serve,) = built(of)["spec"]["template"]["spec"]["containers"]
    (instruction,) = [a for a in serve["args"] if a.startswith("--instruction=")]
    (told,) = [v["value"] for v in serve["env"] if v["name"] == "RERANK_VERIFICATION"]
    assert expanded(instruction) == f"--instruction={said}"
    assert json.loads(expanded(told)) == {"mode": "Required", "cases": [case]}


def expanded(text: str) -> str:
    """As the kubelet does it (k8s.io/kubernetes/third_party/forked/golang/expansion), all names known."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda m: "$" if m[1] == "$" else "SECRET", text)


def test_the_longest_cases_fit_into_a_variable() -> None:
    """Linux takes no variable longer than 128 KiB (MAX_ARG_STRLEN), and the pod would not start."""
    case = {"query": "\x01" * 400, "relevant": "\x01" * 800, "irrelevant": "\x02" * 800}
    for text in ("\x01", "😀", "$"):
        worst = {name: text * len(value) for name, value in case.items()}
        of = model(scoring={"verification": {"cases": [worst] * 10}})
        (serve,) = built(of)["spec"]["template"]["spec"]["containers"]
        (told,) = [v["value"] for v in serve["env"] if v["name"] == "RERANK_VERIFICATION"]
        assert len(f"RERANK_VERIFICATION={told}".encode()) < 128 * 1024


def test_the_installed_hub_is_the_default_and_part_of_the_source() -> None:
    public = source_of(model(), hub_endpoint=None)
    installed = source_of(model(), hub_endpoint="http://demo-hub.demo-hub.svc")
    assert installed.endpoint == "http://demo-hub.demo-hub.svc"
    assert installed.key != public.key
    own = model(model={"huggingFace": {"repo": "org/name", "endpoint": "https://own"}})
    assert source_of(own, hub_endpoint="http://demo-hub.demo-hub.svc").endpoint == "https://own"


def test_a_commit_in_the_spec_needs_no_pin() -> None:
    assert source_of(model(), hub_endpoint=None).needs_pin
    pinned = source_of(model(**CASES["pinned-in-the-spec"]), hub_endpoint=None)
    assert (pinned.needs_pin, pinned.commit) == (False, COMMIT)
    volume = source_of(model(**CASES["volume"]), hub_endpoint=None)
    assert (volume.needs_pin, volume.commit, volume.directory) == (False, None, "/models/pvc/models/bge")
    image = source_of(model(**CASES["image"]), hub_endpoint=None)
    assert (image.needs_pin, image.commit, image.directory) == (False, None, "/models/image/models/bge")
    whole = source_of(model(model={"image": {"reference": IMAGE}}), hub_endpoint=None)
    assert (whole.directory, whole.image) == ("/models/image", IMAGE)
    assert whole.key != image.key


def test_the_applied_digest_stands_for_the_intent() -> None:
    intent = {"metadata": {"name": "a"}, "spec": {"x": 1}}
    marked = with_applied(intent)
    assert marked["metadata"]["annotations"] == {"rerank.dev/applied": digest(intent)}
    assert with_applied({"metadata": {"name": "a"}, "spec": {}}) != marked
    assert intent == {"metadata": {"name": "a"}, "spec": {"x": 1}}, "the intent itself is not touched"


def test_the_secret_of_a_key() -> None:
    key = APIKey.parse(
        {
            "metadata": {"name": "search", "namespace": "team", "uid": "u-2"},
            "spec": {"secret": {"name": "search-key"}},
        }
    )
    assert api_key_secret(key, text="rk_x") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "search-key",
            "namespace": "team",
            "labels": {
                "app.kubernetes.io/managed-by": "rerank-operator",
                "app.kubernetes.io/name": "rerank-api-key",
            },
            "ownerReferences": [
                {
                    "apiVersion": "rerank.dev/v1alpha1",
                    "kind": "APIKey",
                    "name": "search",
                    "uid": "u-2",
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "type": "rerank.dev/api-key",
        "data": {"key": "cmtfeA=="},
    }
