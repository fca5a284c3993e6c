"""Why a pod does not serve, in words for the person who can change it. Pure; used by situation.

Each pod is judged by ordered checks: the first thing that is in the way is what counts. How a container last
ended stays the cause while it is started again, so that a reason does not flicker between two attempts.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from rerank_operator.pods import CLAIMING, FETCH, SERVE, Complaint, Container, Ending, Pod

Stage = Literal["Scheduled", "Downloaded", "Serving", "ScoringVerified"]
Step = Literal["Pending", "Downloading", "Starting", "Verifying", "Ready"]

UNSCHEDULABLE: Final = "Unschedulable"

STEPS: Final[tuple[Step, ...]] = ("Pending", "Downloading", "Starting", "Verifying", "Ready")

_IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_START_REASONS: Final = frozenset({"CreateContainerError", "RunContainerError", "PreCreateHookError"})
_VERIFICATION_REASONS: Final = frozenset(
    {
        "ScoresConstant",
        "ScoresNotFinite",
        "ScoresInverted",
        "ScoresSaturated",
        "ScoresTooClose",
        "WrongRoutes",
        "TemplateDiffers",
        "InstructionIgnored",
        "PromptTokensDiffer",
        "EngineError",
    }
)

_PULL_ERRORS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (r"not present with pull policy", "the node has no such image, and image.pullPolicy is Never"),
        (r"SignatureValidationFailed", "its signature is not what the node asks for"),
        (r"no match(ing manifest)? for ", "there is none for the node's platform"),
        (r"x509:", "the node does not trust the registry's certificate"),
        (r"toomanyrequests|too many requests|rate limit|\b429\b", "the registry wants fewer pulls"),
        (r"unauthorized|denied|forbidden|\b40[13]\b", "the registry does not let the node have it"),
        (r"not found|manifest unknown|\b404\b", "the registry has no such image"),
        (
            r"RegistryUnavailable|no such host|timeout|refused|unreachable",
            "the registry cannot be reached from the node",
        ),
        (r"no space left", "the node's disk is full"),
    )
)
_MISSING_TEMPLATE: Final = re.compile(r'resourceclaimtemplate\S* "([^"]+)" not found')
_MISSING_CLASS: Final = re.compile(r"device class (\S+) does not exist")
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
# The kubelet's words: a container also waits for the images that it mounts.
_PULLED_IMAGE: Final = re.compile(r'\bimage "([^"]+)"')
_MISSING_SECRET: Final = re.compile(r'secrets? "([^"]+)" not found')
_MISSING_KEY: Final = re.compile(r"couldn't find key (\S+) in Secret (?:[^/\s]+/)?(\S+)")
# What a kubelet says that has not read the pod's ConfigMaps, Secrets or Services yet, after one second of
# waiting for them: a busy node or a kubelet just started, nothing that somebody could put right.
# k8s.io/kubernetes/pkg/kubelet/util/manager and makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go
_NOT_READ_YET: Final = re.compile(
    r"failed to sync (configmap|secret) cache"
    r'|object "[^"]+"/"[^"]+" not registered'
    r"|services have not yet been read at least once"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """What is in the way. `stage` is the condition that it makes False."""

    stage: Stage
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a pod has come, and what keeps it there, if anything does."""

    step: Step
    cause: Cause | None = None


def judge(pod: Pod) -> Standing:
    """The standing of one pod that is neither being deleted nor finished."""
    if pod.ready:
        return Standing("Ready")
    if pod.complaint is not None and pod.complaint.reason in CLAIMING:
        return Standing("Pending", _no_claim(pod.complaint))
    if not pod.scheduled:
        return Standing("Pending", _unschedulable(pod.unschedulable) if pod.unschedulable else None)
    if pod.complaint is not None:
        stage: Stage = "Serving" if pod.fetch is None else "Downloaded"
        message = f"the node {pod.node} cannot prepare a replica: {pod.complaint.message}"
        return Standing("Pending", Cause(stage, pod.complaint.reason, message))
    if pod.fetch is not None and not pod.fetch.succeeded:
        return _begun(pod.fetch, Standing("Downloading", _container_cause(pod.fetch, FETCH, "Downloaded")))
    standing = _judge_serving(pod)
    return standing if pod.fetch is not None else _begun(pod.serve, standing)


def _begun(first: Container, standing: Standing) -> Standing:
    """Until a pod's first container runs, the node may still be pulling the image."""
    untouched = first.state == "waiting" and first.ending is None and standing.cause is None
    return Standing("Pending") if untouched else standing


def ended(pod: Pod) -> Cause | None:
    """Why the node ended a whole pod, if it did."""
    if pod.ended is None:
        return None
    if pod.ended.reason == "Evicted":
        return Cause("Serving", "Evicted", f"a replica was evicted: {pod.ended.message}")
    message = f"the node ended a replica: {pod.ended.reason}: {pod.ended.message or 'it gave no details'}"
    return Cause("Serving", "EndedByNode", message)


def _judge_serving(pod: Pod) -> Standing:
    report = pod.report if pod.serve.state == "running" else None
    if report is not None:
        check = report.verification
        if check is not None and check.stands_in_the_way:
            return Standing("Verifying", Cause("ScoringVerified", check.reason, _sentence(check.message)))
        if report.phase == "Failed" and report.reason:
            stage: Stage = "ScoringVerified" if report.reason in _VERIFICATION_REASONS else "Serving"
            return Standing("Starting", Cause(stage, report.reason, _sentence(report.message)))
        if report.phase in {"Verifying", "Ready"}:
            return Standing("Verifying")
    return Standing("Starting", _container_cause(pod.serve, SERVE, "Serving"))


def _no_claim(complaint: Complaint) -> Cause:
    template = _MISSING_TEMPLATE.search(complaint.message)
    if template:
        text = (
            f'there is no ResourceClaimTemplate "{template[1]}" in this namespace;'
            " see spec.resources.gpu.resourceClaimTemplateName"
        )
        return Cause("Scheduled", "ResourceClaimTemplateNotFound", text)
    text = f"no claim of a GPU can be made for a replica: {complaint.message}"
    return Cause("Scheduled", "ResourceClaimRefused", text)


def _unschedulable(message: str) -> Cause:
    device_class = _MISSING_CLASS.search(message)
    if device_class:
        text = (
            f'the ResourceClaimTemplate asks for the DeviceClass "{device_class[1]}", which does not exist'
            " (kubectl get deviceclasses): is the DRA driver of the GPU's vendor installed?"
        )
        return Cause("Scheduled", "DeviceClassNotFound", f"{text} (scheduler: {message})")
    claim = _MISSING_CLAIM.search(message)
    if claim:
        return Cause(
            "Scheduled",
            "PersistentVolumeClaimNotFound",
            f'there is no PersistentVolumeClaim "{claim[1]}" in this namespace (scheduler: {message})',
        )
    return Cause("Scheduled", UNSCHEDULABLE, f"no node can take a replica: {message}")


def _container_cause(container: Container, name: str, stage: Stage) -> Cause | None:
    waiting, message = container.waiting_reason, container.waiting_message
    if waiting in _IMAGE_REASONS:
        # The kubelet alternates between the pull's error and its back-off: one sentence for both.
        named = _PULLED_IMAGE.search(message)
        image = named[1] if named else container.image
        why = _why(f"{waiting}: {message}")
        return Cause(stage, "ImagePullFailed", f"the image {image} cannot be pulled{why}")
    if waiting == "CreateContainerConfigError" and not _NOT_READ_YET.search(message):
        return _config_error(message, stage)
    if waiting in _START_REASONS:
        return Cause(stage, "ContainerCannotStart", f"the container {name} cannot be started: {message}")
    return _ending_cause(container.failure, name, stage) if container.failure else None


def _why(pull: str) -> str:
    """What a pull's error comes to, of which registries and container runtimes have many wordings."""
    hints = (hint for pattern, hint in _PULL_ERRORS if pattern.search(pull))
    hint = next(hints, "")
    return f": {hint}" if hint else ""


def _config_error(message: str, stage: Stage) -> Cause:
    key = _MISSING_KEY.search(message)
    if key:
        text = f'the Secret "{key[2]}" has no key "{key[1]}"; see spec.model.huggingFace.tokenSecretRef'
        return Cause(stage, "TokenSecretKeyNotFound", text)
    secret = _MISSING_SECRET.search(message)
    if secret:
        text = (
            f'there is no Secret "{secret[1]}" in this namespace; see spec.model.huggingFace.tokenSecretRef'
        )
        return Cause(stage, "TokenSecretNotFound", text)
    return Cause(stage, "ContainerCannotStart", message or "the kubelet cannot configure the container")


def _ending_cause(ending: Ending, name: str, stage: Stage) -> Cause:
    if ending.message is not None:
        reason = ending.message.reason
        actual: Stage = "ScoringVerified" if name == SERVE and reason in _VERIFICATION_REASONS else stage
        return Cause(actual, reason, _sentence(ending.message.message))
    if ending.reason == "OOMKilled":
        return Cause(stage, "OutOfMemory", "a replica needs more memory than spec.resources.memory gives it")
    return Cause(
        stage,
        "ContainerFailed",
        f"the container {name} ended with exit code {ending.exit_code}; its log says more",
    )


def _sentence(text: str) -> str:
    return " ".join(text.split()) or "the replica gave no details"
