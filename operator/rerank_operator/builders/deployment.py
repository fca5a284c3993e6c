"""Deployment: the replicas of a model."""

from dataclasses import dataclass
from typing import Literal

from rerank_api import names
from rerank_api.effective import Effective, EffectiveResources
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders import serve_options
from rerank_operator.builders.metadata import digest, owner_reference
from rerank_operator.builders.placement import placement
from rerank_operator.builders.source import Source
from rerank_operator.pods import FETCH, SERVE, SOURCE_ANNOTATION, TEMPLATE_ANNOTATION
from rerank_operator.resources import Object

RecentField = Literal["image volume", "resource claim"]

USER = 65532  # the images' own user

# preStop waits up to 120 s for requests in flight, then vLLM gets time to end (runtime: drain).
GRACE_SECONDS = 150

_STORE = "/weights"
_GPU_CLAIM = "gpu"
_REQUESTED_CORES = {"containerName": SERVE, "resource": "requests.cpu"}


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the pods get from the installation. `token_hash`: SHA-256 of the backend token, in hex."""

    image_cpu: str
    image_cuda: str
    image_pull_policy: str
    token_hash: str


def deployment(model: ModelDeployment, *, template: Object, strategy: Object) -> Object:
    """The Deployment of `model`: replicas made from `template`, replaced by `strategy`."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.child_name(model.metadata.name),
            "namespace": model.metadata.namespace,
            "labels": names.model_labels(model.metadata.name),
            "ownerReferences": [owner_reference(model)],
        },
        "spec": {
            "replicas": model.wanted_replicas,
            "selector": {"matchLabels": {names.MODEL_LABEL: model.metadata.name}},
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": model.spec.rollout.progress_deadline_seconds,
            "strategy": strategy,
            "template": template,
        },
    }


def recent_fields(child: Object) -> frozenset[RecentField]:
    """What the pods of a child, as wanted or as the API server has it, have that old API servers drop."""
    spec = child.get("spec", {}).get("template", {}).get("spec", {})
    found: set[RecentField] = set()
    if any("image" in volume for volume in spec.get("volumes", ())):
        found.add("image volume")
    if spec.get("resourceClaims"):
        found.add("resource claim")
    return frozenset(found)


def pod_template(
    model: ModelDeployment, *, effective: Effective, source: Source, settings: PodSettings
) -> Object:
    """What replicas of `model` are made from, to run as `effective` says. Its digest names the revision."""
    template = _template(model, effective=effective, source=source, settings=settings)
    annotations = {SOURCE_ANNOTATION: source.key, TEMPLATE_ANNOTATION: digest(template)}
    template["metadata"]["annotations"] = annotations
    return template


def _template(
    model: ModelDeployment, *, effective: Effective, source: Source, settings: PodSettings
) -> Object:
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_serve(model, effective=effective, source=source, settings=settings)],
        "volumes": [
            _models_volume(model),
            *_weights_volumes(model),
            {"name": "tmp", "emptyDir": {}},
            # Without a limit of its own: GPUs that share a model exchange what they compute through it.
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    claim_template = effective.resources.gpu.claim_template
    if claim_template is not None:
        spec["resourceClaims"] = [{"name": _GPU_CLAIM, "resourceClaimTemplateName": claim_template}]
    if source.repo is not None:
        spec["initContainers"] = [_fetch(model, effective=effective, source=source, settings=settings)]
    spec |= placement(model, effective.resources.gpu)
    return {"metadata": {"labels": names.model_labels(model.metadata.name)}, "spec": spec}


def _models_volume(model: ModelDeployment) -> Object:
    claim, image = model.spec.model.persistent_volume_claim, model.spec.model.image
    storage = model.spec.storage
    if claim is not None:
        return {"name": "models", "persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True}}
    if image is not None:
        return {"name": "models", "image": {"reference": image.reference, "pullPolicy": "IfNotPresent"}}
    if storage is not None and storage.ephemeral is not None:
        return {"name": "models", "emptyDir": {"sizeLimit": storage.ephemeral.size_limit}}
    return {"name": "models", "emptyDir": {}}


def _weights_volumes(model: ModelDeployment) -> list[Object]:
    """The volume that downloads are kept on and shared through, if any; /models holds links to it."""
    storage = model.spec.storage
    if storage is None or storage.persistent_volume_claim is None:
        return []
    claim = {"claimName": storage.persistent_volume_claim.claim_name}
    return [{"name": "weights", "persistentVolumeClaim": claim}]


def _models_mount(model: ModelDeployment) -> Object:
    """Where the serving container sees the models volume. Links from /models stay within it."""
    given = model.spec.model
    path = "/models/pvc" if given.persistent_volume_claim is not None else "/models"
    path = "/models/image" if given.image is not None else path
    return {"name": "models", "mountPath": path, "readOnly": True}


def _weights_mounts(model: ModelDeployment, *, read_only: bool) -> list[Object]:
    mount: Object = {"mountPath": _STORE} | ({"readOnly": True} if read_only else {})
    return [{"name": volume["name"], **mount} for volume in _weights_volumes(model)]


def _fetch(model: ModelDeployment, *, effective: Effective, source: Source, settings: PodSettings) -> Object:
    env: list[Object] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108  # the pod's own volume
    if source.token is not None:
        reference = {"name": source.token.name, "key": source.token.key}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    if source.needs_pin:
        pin = {"name": names.child_name(model.metadata.name), "key": source.key, "optional": True}
        env.append({"name": "RERANK_PINNED_REVISION", "valueFrom": {"configMapKeyRef": pin}})
    args = ["fetch", f"--repo={source.repo}", f"--revision={source.revision}"]
    if source.endpoint is not None:
        args.append(f"--endpoint={source.endpoint}")
    args.append("--dir=/models")
    if _weights_volumes(model):
        args.append(f"--store={_STORE}")
    if source.file is not None:
        args.append(f"--file={source.file}")
    if effective.engine.trust_remote_code:
        args.append("--trust-remote-code")
    return {
        "name": FETCH,
        **_image(effective, settings),
        "args": args,
        "env": env,
        "ports": [_port(names.STATUS_PORT_NAME, names.STATUS_PORT)],
        "resources": _resources(effective.resources, gpu=False),
        "volumeMounts": [
            {"name": "models", "mountPath": "/models"},
            *_weights_mounts(model, read_only=False),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the pod's own volume
        ],
        **_hardened(),
    }


def _serve(model: ModelDeployment, *, effective: Effective, source: Source, settings: PodSettings) -> Object:
    return {
        "name": SERVE,
        **_image(effective, settings),
        "args": [
            "serve",
            source.directory,
            f"--name={model.metadata.name}",
            *serve_options.arguments(effective),
        ],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108  # the pod's own volume
            {"name": "HF_HUB_OFFLINE", "value": "1"},
            {"name": "RERANK_BACKEND_TOKEN_SHA256", "value": settings.token_hash},
            # Threads for the cores that were asked for, rounded up, instead of for all of the node's.
            {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": _REQUESTED_CORES}},
            *serve_options.environment(effective),
        ],
        "ports": [
            _port(names.HTTP_PORT_NAME, names.HTTP_PORT),
            _port(names.STATUS_PORT_NAME, names.STATUS_PORT),
        ],
        "resources": _resources(effective.resources, gpu=True),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["rerank-runtime", "drain"]}}},
        "volumeMounts": [
            _models_mount(model),
            *_weights_mounts(model, read_only=True),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the pod's own volume
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # the pod's own volume
        ],
        **_hardened(),
    }


def _image(effective: Effective, settings: PodSettings) -> Object:
    installed = settings.image_cuda if effective.resources.gpu.count else settings.image_cpu
    image = effective.engine.image or installed
    return {"image": image, "imagePullPolicy": settings.image_pull_policy}


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": names.STATUS_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def _resources(resources: EffectiveResources, *, gpu: bool) -> Object:
    limits = {"memory": resources.memory}
    asked: Object = {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits}
    if gpu and resources.gpu.claim_template is not None:
        asked["claims"] = [{"name": _GPU_CLAIM}]
    elif gpu and resources.gpu.count:
        limits[resources.gpu.resource_name] = str(resources.gpu.count)
    return asked


def _hardened() -> Object:
    return {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
