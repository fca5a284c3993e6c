"""The API server refuses what cannot work, and says which field and what to do instead."""

import copy
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver.api import RERANK, Api, Object, Refused

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))

MODEL: Object = {
    "apiVersion": "rerank.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "m"},
    "spec": {"model": {"huggingFace": {"repo": "BAAI/bge-reranker-v2-m3"}}},
}
ENTRY: Object = {
    "apiVersion": "rerank.dev/v1alpha1",
    "kind": "CatalogModel",
    "metadata": {"name": "e"},
    "spec": {
        "displayName": "Example",
        "description": "For tests.",
        "family": "bert",
        "license": "MIT",
        "languages": "en",
        "parameters": "22.7M",
        "contextLength": 512,
        "memory": "2 GB",
        "source": {"huggingFace": {"repo": "org/name"}},
    },
}
KEY: Object = {
    "apiVersion": "rerank.dev/v1alpha1",
    "kind": "APIKey",
    "metadata": {"name": "k"},
    "spec": {},
}


def edited(base: Object, changes: dict[str, Any]) -> Object:
    """The object with values at dotted paths; None removes the field."""
    body = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = body
        for part in parents:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return body


def dry_run(api: Api, namespace: str, body: Object) -> Object:
    plural = {"ModelDeployment": "modeldeployments", "APIKey": "apikeys"}.get(body["kind"])
    path = f"{RERANK}/namespaces/{namespace}/{plural}" if plural else f"{RERANK}/catalogmodels"
    return api.request("POST", path, body, dryRun="All", fieldValidation="Strict")


HUB = "spec.model.huggingFace"
GPU = "spec.resources.gpu"
IMAGE = "registry.example.com/models/bge-m3@sha256:" + "0" * 64

AFFINITY = "spec.scheduling.affinity"
SPREAD = "spec.scheduling.topologySpreadConstraints"


def on_nodes(*expressions: Object) -> Object:
    """A required affinity for nodes."""
    terms = [{"matchExpressions": list(expressions)}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def apart(**term: Any) -> Object:
    """A required anti-affinity for pods."""
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


INVALID_MODELS: list[tuple[dict[str, Any], str]] = [
    ({f"{GPU}": {"count": 0, "minMemory": "24G"}}, "spec.resources.gpu.count 0 serves on the CPU"),
    ({f"{GPU}": {"count": 0, "products": ["a"]}}, "spec.resources.gpu.count 0 serves on the CPU"),
    ({f"{GPU}": {"resourceName": "amd.com/gpu", "minMemory": "1G"}}, "use spec.scheduling.nodeSelector"),
    (
        {f"{GPU}": {"count": 0, "resourceClaimTemplateName": "gpu-24g"}},
        "spec.resources.gpu.count 0 serves on the CPU",
    ),
    *(
        ({f"{GPU}": {"resourceClaimTemplateName": "gpu-24g", **wish}}, "the template alone chooses the GPU")
        for wish in ({"resourceName": "nvidia.com/gpu"}, {"products": ["a"]}, {"minMemory": "24G"})
    ),
    ({f"{GPU}.resourceClaimTemplateName": "GPU 24G"}, "must be the name of a ResourceClaimTemplate"),
    ({f"{GPU}.minMemory": "24 GB"}, "minMemory must be a quantity above zero, for example 24G"),
    ({f"{GPU}.minMemory": 0}, "minMemory must be a quantity above zero, for example 24G"),
    ({f"{GPU}.products": ["NVIDIA L4"]}, "must be a value of the node label nvidia.com/gpu.product"),
    ({f"{GPU}.products": ["a", "a"]}, "Duplicate value"),
    ({"spec.rollout.strategy": "BlueGreen"}, 'supported values: "Auto", "Surge", "Recreate"'),
    ({"spec.rollout.progressDeadlineSeconds": 0}, "progressDeadlineSeconds in body should be greater"),
    ({"spec.rollout.maxSurge": 2}, 'unknown field "spec.rollout.maxSurge"'),
    ({AFFINITY: on_nodes({"key": "a", "operator": "In"})}, "an expression needs values, but with operator"),
    ({AFFINITY: on_nodes({"key": "a", "operator": "Exists", "values": ["b"]})}, "which take none"),
    ({AFFINITY: on_nodes({"key": "a", "operator": "Gt", "values": ["x"]})}, "take one whole number"),
    ({AFFINITY: on_nodes({"key": "a", "operator": "Near"})}, "Unsupported value"),
    ({AFFINITY: apart(topologyKey="h", namespaces=["b"])}, "unknown field"),
    ({AFFINITY: apart(topologyKey="h", namespaceSelector={})}, "unknown field"),
    ({AFFINITY: apart(labelSelector={})}, "topologyKey: Required value"),
    ({"spec.scheduling.priorityClassName": "High!"}, "that kubectl get priorityclasses shows"),
    ({"spec.scheduling.runtimeClassName": "Nvidia"}, "that kubectl get runtimeclasses shows"),
    ({SPREAD: [{"topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}, "maxSkew: Required value"),
    (
        {
            SPREAD: [
                {"maxSkew": 1, "minDomains": 2, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}
            ]
        },
        "may have minDomains only with whenUnsatisfiable DoNotSchedule",
    ),
    ({"spec": {}}, "spec.model: Required value"),
    (
        {"spec.model": {}},
        "set either spec.model.catalog, spec.model.huggingFace, spec.model.persistentVolumeClaim or",
    ),
    ({"spec.model.catalog": "bge"}, "spec.model needs exactly one source"),
    ({"spec.model": {"catalog": "BGE v2"}}, "catalog must be a name that kubectl get catalogmodels shows"),
    ({f"{HUB}.file": "model.bin"}, "file must name a GGUF file of the repository"),
    ({f"{HUB}.file": "$(HF_TOKEN).gguf"}, "file must name a GGUF file of the repository"),
    ({f"{HUB}.file": "../x.gguf"}, "file must name a GGUF file of the repository"),
    ({"spec.engine.maxModelLen": 1}, "spec.engine.maxModelLen in body should be greater than or equal to 16"),
    ({"spec.engine.dtype": "fp16"}, 'supported values: "auto", "float16", "bfloat16", "float32"'),
    ({"spec.engine.gpuMemoryUtilization": 92}, "should be less than or equal to 1"),
    (
        {"spec.engine.gpuMemoryUtilization": 0},
        "gpuMemoryUtilization in body should be greater than 0",
    ),
    (
        {
            "spec.model": {"persistentVolumeClaim": {"claimName": "w"}},
            "spec.engine": {"trustRemoteCode": True},
        },
        "use spec.model.huggingFace with the commit as its revision",
    ),
    ({"spec.scoring.instruction": ""}, "spec.scoring.instruction"),
    ({"spec.scoring.instruction": "x" * 2001}, "spec.scoring.instruction: Too long"),
    ({"spec.scoring.truncation.maxTokensPerDocument": 0}, "maxTokensPerDocument in body should be"),
    ({"spec.scoring.truncation.onOverflow": "Split"}, 'supported values: "Truncate", "Reject"'),
    ({"spec.scoring.cacheScores": "yes"}, "spec.scoring.cacheScores: Invalid value"),
    ({"spec.scoring.verification.mode": "Maybe"}, 'supported values: "Required", "Report", "Off"'),
    ({"spec.scoring.verification.cases": [{"query": "q"}]}, "cases[0].relevant: Required value"),
    (
        {"spec.scoring.verification.cases": [{"query": "q", "relevant": "r", "irrelevant": "r"}]},
        "an entry of spec.scoring.verification.cases needs two different texts",
    ),
    (
        {
            "spec.scoring.verification.cases": [
                {"query": "q", "relevant": "r", "irrelevant": str(n)} for n in range(11)
            ]
        },
        "spec.scoring.verification.cases: Too many: 11: must have at most 10",
    ),
    ({"spec.storage": {}}, "spec.storage needs exactly one place"),
    (
        {"spec.storage": {"ephemeral": {"sizeLimit": "1Gi"}, "persistentVolumeClaim": {"claimName": "c"}}},
        "spec.storage needs exactly one place",
    ),
    ({"spec.storage": {"ephemeral": {"sizeLimit": "0"}}}, "sizeLimit must be a quantity above zero"),
    ({"spec.storage": {"persistentVolumeClaim": {"claimName": "C"}}}, "claimName must be the name of"),
    (
        {
            "spec.model": {"persistentVolumeClaim": {"claimName": "w"}},
            "spec.storage": {"ephemeral": {"sizeLimit": "1Gi"}},
        },
        "remove spec.storage",
    ),
    ({"spec.model.persistentVolumeClaim": {"claimName": "w"}}, "spec.model needs exactly one source"),
    ({"spec.model.image": {"reference": IMAGE}}, "spec.model needs exactly one source"),
    ({"spec.model": {"image": {"path": "x"}}}, "spec.model.image.reference: Required value"),
    ({"spec.model": {"image": {"reference": "models/bge:v1"}}}, "must name an image with its digest"),
    ({"spec.model": {"image": {"reference": f"-{IMAGE}"}}}, "must name an image with its digest"),
    ({"spec.model": {"image": {"reference": f"{IMAGE}0"}}}, "must name an image with its digest"),
    (
        {"spec.model": {"image": {"reference": IMAGE, "path": "../etc"}}},
        "path must be relative to the image's root",
    ),
    (
        {"spec.model": {"image": {"reference": IMAGE}}, "spec.storage": {"ephemeral": {"sizeLimit": "1Gi"}}},
        "the node itself keeps the image",
    ),
    (
        {"spec.model": {"image": {"reference": IMAGE}}, "spec.engine": {"trustRemoteCode": True}},
        "image has neither: use spec.model.huggingFace",
    ),
    ({f"{HUB}.repo": "bge-reranker"}, "repo must be ORGANISATION/NAME as on the hub"),
    ({f"{HUB}.repo": "https://huggingface.co/BAAI/bge"}, "repo must be ORGANISATION/NAME as on the hub"),
    ({f"{HUB}.repo": "BAAI/../bge"}, "repo must be ORGANISATION/NAME as on the hub"),
    ({f"{HUB}.repo": "BAAI/bge reranker"}, "repo must be ORGANISATION/NAME as on the hub"),
    ({f"{HUB}.repo": "o/" + "x" * 100}, "spec.model.huggingFace.repo: Too long"),
    ({f"{HUB}.revision": ""}, "spec.model.huggingFace.revision"),
    ({f"{HUB}.revision": "--help"}, "revision must be a branch, a tag or a commit"),
    ({f"{HUB}.revision": "$(HF_TOKEN)"}, "revision must be a branch, a tag or a commit"),
    ({f"{HUB}.revision": "a/../b"}, "revision must be a branch, a tag or a commit"),
    ({f"{HUB}.endpoint": "hub.example.com"}, "endpoint must be an http:// or https:// address"),
    ({f"{HUB}.endpoint": "ftp://hub.example.com"}, "endpoint must be an http:// or https:// address"),
    ({f"{HUB}.endpoint": "https://me:pw@hub.example.com"}, "a token belongs into tokenSecretRef"),
    ({f"{HUB}.endpoint": "https://hub.example.com?token=x"}, "a token belongs into tokenSecretRef"),
    ({f"{HUB}.tokenSecretRef": {}}, "tokenSecretRef.name: Required value"),
    ({f"{HUB}.tokenSecretRef": {"name": "HF"}}, "tokenSecretRef.name must be the name of a Secret"),
    ({f"{HUB}.tokenSecretRef": {"name": "hf", "key": "a/b"}}, "tokenSecretRef.key must consist of"),
    ({f"{HUB}.tokenSecretRef": {"name": "hf", "namespace": "other"}}, "unknown field"),
    ({"spec.model": {"persistentVolumeClaim": {"claimName": "W W"}}}, "claimName must be the name of"),
    (
        {"spec.model": {"persistentVolumeClaim": {"claimName": "w", "path": "/etc"}}},
        "path must be relative to the volume's root",
    ),
    (
        {"spec.model": {"persistentVolumeClaim": {"claimName": "w", "path": "a/../../b"}}},
        "path must be relative to the volume's root",
    ),
    ({"spec.aliases": ["a b"]}, "an entry of spec.aliases must"),
    ({"spec.aliases": ["a", "a"]}, "spec.aliases[1]: Duplicate value"),
    ({"spec.aliases": [f"a{n}" for n in range(17)]}, "spec.aliases: Too many: 17: must have at most 16"),
    ({"spec.access.namespaces": ["*"]}, "spec.access.namespaces must be the name of one namespace"),
    ({"spec.access.namespaces": ["a", "a"]}, "spec.access.namespaces[1]: Duplicate value"),
    ({"spec.replicas": -1}, "spec.replicas in body should be greater than or equal to 0"),
    ({"spec.replicas": "two"}, "spec.replicas in body must be of type integer"),
    ({"spec.autoscaling": {}}, "spec.autoscaling.maxReplicas: Required value"),
    ({"spec.autoscaling": {"maxReplicas": 0}}, "spec.autoscaling.maxReplicas in body should be greater"),
    (
        {"spec.autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
        "spec.autoscaling.minReplicas must not be more than spec.autoscaling.maxReplicas",
    ),
    (
        {"spec.autoscaling": {"maxReplicas": 2, "idleSecondsToZero": 60}},
        "spec.autoscaling.idleSecondsToZero is for a model that may be scaled to zero: set spec.",
    ),
    (
        {"spec.autoscaling": {"maxReplicas": 2, "targetQueueSeconds": 0}},
        "spec.autoscaling.targetQueueSeconds must be 0.1 or more",
    ),
    (
        {"spec.autoscaling": {"maxReplicas": 2, "targetQueueSeconds": 0.05}},
        "spec.autoscaling.targetQueueSeconds must be 0.1 or more",
    ),
    (
        {"spec.autoscaling": {"maxReplicas": 2, "schedule": "0 8 * * *"}},
        'unknown field "spec.autoscaling.schedule"',
    ),
    ({f"{GPU}.count": -1}, 'supported values: "0", "1", "2", "4", "8"'),
    ({f"{GPU}.count": 3}, 'supported values: "0", "1", "2", "4", "8"'),
    *(
        ({f"{GPU}": {"count": 2, "resourceName": f"nvidia.com/{name}"}}, "not over slices of one")
        for name in ("mig-1g.10gb", "gpu.shared")
    ),
    ({f"{GPU}.resourceName": "gpu"}, "resourceName must be DOMAIN/NAME"),
    ({f"{GPU}.resourceName": "kubernetes.io/gpu"}, "resourceName must be DOMAIN/NAME"),
    ({"spec.resources.cpu": "two"}, "spec.resources.cpu must be a quantity above zero"),
    ({"spec.resources.cpu": 0}, "spec.resources.cpu must be a quantity above zero"),
    ({"spec.resources.memory": "-8Gi"}, "spec.resources.memory must be a quantity above zero"),
    ({"spec.resources.memory": "8 GB"}, "spec.resources.memory must be a quantity above zero"),
    ({"spec.scheduling.tolerations": [{"value": "x"}]}, "without key must have operator Exists"),
    (
        {"spec.scheduling.tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]},
        "with operator Exists must not have a value",
    ),
    (
        {"spec.scheduling.tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]},
        "tolerationSeconds only with effect NoExecute",
    ),
    ({"spec.scheduling.tolerations": [{"key": "a", "effect": "Never"}]}, "Unsupported value"),
    ({"spec.scoring.method": "Dot"}, 'supported values: "Auto", "CrossEncoder", "Cosine"'),
    ({"spec.engine.image": "no image"}, "spec.engine.image must be the reference of an image"),
    ({"spec.engine.extraArgs": ["--seed", "1"]}, "an entry of spec.engine.extraArgs must be one flag with"),
    ({"spec.engine.extraArgs": ["--hf-overrides.x=1"]}, "an entry of spec.engine.extraArgs must be one flag"),
    ({"spec.engine.extraArgs": ["-O3"]}, "an entry of spec.engine.extraArgs must be one flag with its value"),
    ({"metadata.name": "a.b"}, "metadata.name must be at most 63"),
    ({"metadata.name": "a" * 64}, "metadata.name must be at most 63"),
]

VALID_MODELS: list[dict[str, Any]] = [
    {},
    {f"{GPU}": {"products": ["NVIDIA-A100-SXM4-80GB"], "minMemory": "24G"}},
    {f"{GPU}": {"resourceName": "nvidia.com/mig-1g.10gb", "minMemory": 10000000000}},
    {f"{GPU}": {"resourceName": "amd.com/gpu", "products": []}},
    {f"{GPU}": {"count": 1, "resourceClaimTemplateName": "gpu-24g", "products": []}},
    {f"{GPU}": {"count": 2, "resourceName": "nvidia.com/gpu", "minMemory": "16G"}},
    {"spec.rollout": {"strategy": "Recreate", "progressDeadlineSeconds": 60}},
    {AFFINITY: on_nodes({"key": "a", "operator": "Gt", "values": ["5"]}, {"key": "b", "operator": "Exists"})},
    {AFFINITY: apart(topologyKey="kubernetes.io/hostname")},
    {AFFINITY: {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
    {"spec.scheduling": {"priorityClassName": "high", "runtimeClassName": "nvidia"}},
    {SPREAD: []},
    {
        SPREAD: [
            {
                "maxSkew": 1,
                "minDomains": 2,
                "topologyKey": "z",
                "whenUnsatisfiable": "DoNotSchedule",
                "nodeTaintsPolicy": "Honor",
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
            }
        ]
    },
    {f"{HUB}.revision": "refs/pr/3"},
    {f"{HUB}.revision": "0" * 40},
    {f"{HUB}.endpoint": "http://demo-hub.demo-hub.svc:8080/path"},
    {f"{HUB}.endpoint": "http://[::1]:8080"},
    {f"{HUB}.tokenSecretRef": {"name": "hf"}},
    {f"{HUB}.repo": "sentence-transformers/all-MiniLM-L6-v2"},
    {"spec.model": {"persistentVolumeClaim": {"claimName": "weights", "path": "models/bge.m3"}}},
    {"spec.model": {"image": {"reference": IMAGE}}},
    {
        "spec.model": {
            "image": {"reference": f"localhost:5000/a/b:v1@{IMAGE.partition('@')[2]}", "path": "a/b"}
        }
    },
    {"spec.model": {"catalog": "qwen3-reranker-0.6b"}},
    {"spec.model": {"catalog": "mine"}, "spec.engine.trustRemoteCode": True},
    {f"{HUB}.file": "*Q8_0.gguf"},
    {f"{HUB}.file": "q8/model-?.gguf"},
    {"spec.engine": {"maxModelLen": 4096, "dtype": "auto", "gpuMemoryUtilization": 0.5}},
    {"spec.engine": {"gpuMemoryUtilization": 1}},
    {"spec.engine": {"image": f"r.example:5000/a/b:1@sha256:{'0' * 64}", "extraArgs": ["--seed=$(X) y"]}},
    {"spec.engine.trustRemoteCode": True, f"{HUB}.revision": "0" * 40},
    {
        "spec.scoring": {
            "instruction": "Find 'it' — $(HOME), „hier“",
            "cacheScores": True,
            "truncation": {"maxTokensPerDocument": 1, "maxTokensPerQuery": 1, "onOverflow": "Reject"},
            "verification": {
                "mode": "Off",
                "cases": [{"query": "q" * 400, "relevant": "r" * 800, "irrelevant": "i" * 800}],
            },
        }
    },
    {"spec.storage": {"ephemeral": {"sizeLimit": "20Gi"}}},
    {"spec.storage": {"persistentVolumeClaim": {"claimName": "model-cache"}}},
    {"spec.access.namespaces": ["team-b"]},
    {"spec.replicas": 0},
    {"spec.autoscaling": {"maxReplicas": 1}},
    {
        "spec.autoscaling": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "targetQueueSeconds": 0.5,
            "scaleDownDelaySeconds": 0,
            "idleSecondsToZero": 60,
        }
    },
    {"spec.resources.cpu": 2},
    {"spec.resources.cpu": "500m"},
    {"spec.resources.memory": "1.5Gi"},
    {f"{GPU}.resourceName": "nvidia.com/mig-1g.10gb"},
    {"spec.scheduling.nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
    {"spec.scheduling.tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]},
    {"spec.aliases": ["rerank-default", "BAAI/bge"]},
    {"metadata.name": "0" + "a" * 62},
]

SOURCE = "spec.source.huggingFace"

INVALID_ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"spec.license": None}, "spec.license: Required value"),
    ({"spec.source": {}}, "spec.source.huggingFace: Required value"),
    ({f"{SOURCE}.repo": "name"}, "spec.source.huggingFace.repo must be ORGANISATION/NAME"),
    ({f"{SOURCE}.revision": "$(X)"}, "spec.source.huggingFace.revision must be a branch, a tag or a commit"),
    ({f"{SOURCE}.file": "model.bin"}, "spec.source.huggingFace.file must name a GGUF file"),
    ({f"{SOURCE}.tokenSecretRef": {"name": "hf"}}, "unknown field"),
    ({"spec.parameters": "many"}, "spec.parameters must be a number with K, M or B"),
    ({"spec.contextLength": 0}, "spec.contextLength in body should be greater than or equal to 1"),
    ({"spec.defaults.resources.memory": "8 GB"}, "spec.defaults.resources.memory must be a quantity"),
    ({"spec.defaults.resources.gpu.resourceName": "gpu"}, "spec.defaults.resources.gpu.resourceName must be"),
    (
        {"spec.defaults.scoring.verification.cases": [{"query": "q", "relevant": "r", "irrelevant": "r"}]},
        "an entry of spec.defaults.scoring.verification.cases needs two different texts",
    ),
    ({"spec.defaults.storage": {"ephemeral": {"sizeLimit": "1Gi"}}}, "unknown field"),
]

VALID_ENTRIES: list[dict[str, Any]] = [
    {},
    {f"{SOURCE}.revision": "0" * 40, "spec.defaults.engine.trustRemoteCode": True},
    {"metadata.name": "a.b-c"},
    {"spec.defaults": {"resources": {"gpu": {"count": 0}, "cpu": 2}, "scoring": {"method": "Cosine"}}},
]

OWN_HASH: dict[str, Any] = {"spec.hashes": [{"sha256": "a" * 64}]}

INVALID_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"spec.expiresAt": "tomorrow"}, "spec.expiresAt"),
    ({"spec.expiresAt": "2027-01-01"}, "spec.expiresAt"),
    ({"spec.expiresAt": "1970-01-01T00:00:00Z"}, "spec.expiresAt must be a date and time with a zone"),
    ({"spec.secret.ttlSeconds": 5}, "spec.secret.ttlSeconds in body should be greater than or equal to 10"),
    ({"spec.version": 0}, "spec.version in body should be greater than or equal to 1"),
    ({"spec.overlapSeconds": -1}, "spec.overlapSeconds in body should be greater than or equal to 0"),
    ({"spec.hashes": []}, "spec.hashes in body should have at least 1 items"),
    ({"spec.hashes": [{"sha256": "A" * 64}]}, "must be 64 lower-case hexadecimal digits"),
    ({"spec.hashes": [{"sha256": sha256(b"").hexdigest()}]}, "is the hash of an empty text"),
    ({"spec.hashes": [{"sha256": "a" * 64}] * 2}, "Duplicate value"),
    (
        {
            "spec.hashes": [
                {"sha256": "a" * 64, "notBefore": "2027-01-01T00:00:00Z", "expiresAt": "2027-01-01T00:00:00Z"}
            ]
        },
        "an entry of spec.hashes must have notBefore earlier than expiresAt",
    ),
    ({**OWN_HASH, "spec.version": 1}, "spec.hashes brings keys of your own"),
    ({**OWN_HASH, "spec.secret": {}}, "spec.hashes brings keys of your own"),
    ({**OWN_HASH, "spec.overlapSeconds": 0}, "spec.hashes brings keys of your own"),
    ({"spec.secret.name": "Search Key"}, "spec.secret.name must be a name that a Secret can have"),
    ({"spec.models": [""]}, "spec.models[0]"),
    ({"spec.models": ["*"]}, "leave spec.models out to allow every model"),
    ({"spec.models": "m"}, "spec.models in body must be of type array"),
    ({"spec.disabled": "yes"}, "spec.disabled in body must be of type boolean"),
    ({"spec.limits": {"requestsPerSecond": 1}}, 'unknown field "spec.limits.requestsPerSecond"'),
    (
        {"spec.limits": {"requestsPerMinute": 0}},
        "requestsPerMinute in body should be greater than or equal to 1",
    ),
    ({"spec.limits": {"tokensPerMinute": "100k"}}, "tokensPerMinute in body must be of type integer"),
    ({"spec.limits": {"concurrentRequests": 2.5}}, "concurrentRequests in body must be of type integer"),
    (
        {"spec.limits": {"documentsPerRequest": 11, "documentsPerMinute": 10}},
        "spec.limits.documentsPerRequest must not be larger than spec.limits.documentsPerMinute",
    ),
    ({"spec.description": "x" * 1001}, "spec.description: Too long"),
    ({"metadata.name": "k" * 64}, "metadata.name must be at most 63"),
]

VALID_KEYS: list[dict[str, Any]] = [
    {},
    {"spec": None},
    {"spec.models": []},
    {"spec.models": ["m", "BAAI/bge-reranker-v2-m3"]},
    {"spec.expiresAt": "2027-01-01T00:00:00Z"},
    {"spec.expiresAt": "2027-01-01T00:00:00.5+02:00"},
    {"spec.disabled": True, "spec.description": "search team, production"},
    {"spec.secret": {"name": "search-key"}},
    {"spec.secret": {"ttlSeconds": 600}, "spec.version": 3, "spec.overlapSeconds": 0},
    {
        "spec.hashes": [
            {"sha256": "a" * 64},
            {
                "sha256": "b" * 64,
                "notBefore": "2026-01-01T00:00:00Z",
                "expiresAt": "2027-01-01T00:00:00+01:00",
            },
        ]
    },
    {"spec.limits": {}},
    {"spec.limits": {"documentsPerRequest": 10, "documentsPerMinute": 10}},
    {"spec.limits": {"requestsPerMinute": 1, "tokensPerMinute": 10**9, "concurrentRequests": 8}},
]


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        *((MODEL, changes, message) for changes, message in INVALID_MODELS),
        *((KEY, changes, message) for changes, message in INVALID_KEYS),
        *((ENTRY, changes, message) for changes, message in INVALID_ENTRIES),
    ],
)
def test_an_invalid_resource_is_refused_by_name(
    api: Api, base: Object, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused) as refused:
        dry_run(api, "default", edited(base, changes))
    assert message in refused.value.body["message"]


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        *((MODEL, changes) for changes in VALID_MODELS),
        *((KEY, changes) for changes in VALID_KEYS),
        *((ENTRY, changes) for changes in VALID_ENTRIES),
    ],
)
def test_a_valid_resource_is_taken(api: Api, base: Object, changes: dict[str, Any]) -> None:
    dry_run(api, "default", edited(base, changes))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_taken(api: Api, file: Path) -> None:
    for body in yaml.safe_load_all(file.read_text()):
        if body["kind"] in {"ModelDeployment", "APIKey"}:
            dry_run(api, "default", body)


def test_off_without_quotes_is_refused_by_its_field(api: Api) -> None:
    """YAML reads it as false, as people will find."""
    with pytest.raises(Refused) as refused:
        dry_run(api, "default", edited(MODEL, yaml.safe_load("spec.scoring.verification.mode: Off")))
    assert "spec.scoring.verification.mode in body must be of type string" in refused.value.body["message"]
