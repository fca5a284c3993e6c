"""From a pod as the API server shows it to the reason that a person reads."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from rerank_operator import pods
from rerank_operator.causes import Cause, Standing, judge
from rerank_operator.causes import ended as ended_by_node
from rerank_operator.pods import Claim, Complaint, Container, Pod, is_replica
from tests.rerank_operator.samples import DONE, RUNNING, ended, pod, report, serving, termination

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def waiting(reason: str, message: str = "", **more: Any) -> Container:
    return Container(state="waiting", waiting_reason=reason, waiting_message=message, image="i:1", **more)


def failed_check(reason: str) -> Any:
    verdict = {"verified": False, "reason": reason, "message": "the bear beat the panda"}
    return report("Failed", verification=verdict)


CASES: list[tuple[str, Pod, str, tuple[str, str] | None]] = [
    ("no scheduler looked yet", pod(scheduled=False), "Pending", None),
    ("no such GPU", pod(scheduled=False, unschedulable=NO_GPU), "Pending", ("Scheduled", "Unschedulable")),
    (
        "no such claim",
        pod(scheduled=False, unschedulable='persistentvolumeclaim "weights" not found. preemption: …'),
        "Pending",
        ("Scheduled", "PersistentVolumeClaimNotFound"),
    ),
    ("image not there yet", pod(fetch=waiting("PodInitializing")), "Pending", None),
    (
        "image not there yet, on a volume",
        pod(fetch=None, serve=waiting("ContainerCreating")),
        "Pending",
        None,
    ),
    (
        "image missing",
        pod(fetch=waiting("ErrImagePull", "x")),
        "Downloading",
        ("Downloaded", "ImagePullFailed"),
    ),
    (
        "image not signed",
        pod(fetch=waiting("SignatureValidationFailed", "image pull failed for i:1")),
        "Downloading",
        ("Downloaded", "ImagePullFailed"),
    ),
    (
        "image missing, again",
        pod(fetch=waiting("ImagePullBackOff")),
        "Downloading",
        ("Downloaded", "ImagePullFailed"),
    ),
    (
        "image of the model missing",
        pod(
            fetch=None, serve=waiting("ImagePullBackOff", 'Back-off pulling image "models@sha256:0": denied')
        ),
        "Starting",
        ("Serving", "ImagePullFailed"),
    ),
    (
        "token Secret missing",
        pod(fetch=waiting("CreateContainerConfigError", 'secret "hf" not found')),
        "Downloading",
        ("Downloaded", "TokenSecretNotFound"),
    ),
    (
        "token key missing",
        pod(fetch=waiting("CreateContainerConfigError", "couldn't find key token in Secret team/hf")),
        "Downloading",
        ("Downloaded", "TokenSecretKeyNotFound"),
    ),
    (
        "another configuration error",
        pod(fetch=waiting("CreateContainerConfigError", "container has runAsNonRoot")),
        "Downloading",
        ("Downloaded", "ContainerCannotStart"),
    ),
    (
        "a kubelet that has not read the ConfigMap yet",
        pod(
            fetch=waiting(
                "CreateContainerConfigError",
                "failed to sync configmap cache: timed out waiting for the condition",
            )
        ),
        "Pending",
        None,
    ),
    (
        "a kubelet that has not heard of the pod's Secret yet",
        pod(fetch=waiting("CreateContainerConfigError", 'object "team"/"hf" not registered')),
        "Pending",
        None,
    ),
    (
        "a kubelet that has just started",
        pod(
            fetch=DONE,
            serve=waiting(
                "CreateContainerConfigError",
                "services have not yet been read at least once, cannot construct envvars",
            ),
        ),
        "Starting",
        None,
    ),
    (
        "a kubelet that has just started, after a failed download",
        pod(
            fetch=waiting(
                "CreateContainerConfigError",
                "failed to sync secret cache: timed out waiting for the condition",
                ending=ended(told="RepositoryGated", message="ask"),
            )
        ),
        "Downloading",
        ("Downloaded", "RepositoryGated"),
    ),
    ("downloading", pod(), "Downloading", None),
    (
        "download failed, now",
        pod(fetch=Container(state="terminated", ending=ended(told="RepositoryGated", message="ask"))),
        "Downloading",
        ("Downloaded", "RepositoryGated"),
    ),
    (
        "download failed, waiting to be started again",
        pod(fetch=waiting("CrashLoopBackOff", ending=ended(told="RepositoryGated", message="ask"))),
        "Downloading",
        ("Downloaded", "RepositoryGated"),
    ),
    (
        "download failed, started again",
        pod(fetch=Container(state="running", ending=ended(told="RepositoryGated", message="ask"))),
        "Downloading",
        ("Downloaded", "RepositoryGated"),
    ),
    ("downloaded", pod(fetch=DONE), "Starting", None),
    ("no download at all", pod(fetch=None, serve=RUNNING), "Starting", None),
    ("loading", pod(fetch=DONE, serve=RUNNING, report=report("Starting")), "Starting", None),
    (
        "not a reranker",
        pod(fetch=DONE, serve=waiting("CrashLoopBackOff", ending=ended(told="NotAReranker", message="gpt2"))),
        "Starting",
        ("Serving", "NotAReranker"),
    ),
    (
        "killed for memory, and started again",
        pod(fetch=DONE, serve=Container(state="running", ending=ended(137, reason="OOMKilled"))),
        "Starting",
        ("Serving", "OutOfMemory"),
    ),
    (
        "ended without a word",
        pod(fetch=DONE, serve=waiting("CrashLoopBackOff", ending=ended(2))),
        "Starting",
        ("Serving", "ContainerFailed"),
    ),
    (
        "GPU memory, before it is started again",
        pod(fetch=DONE, serve=RUNNING, report=report("Failed", reason="GpuOutOfMemory", message="24 GiB")),
        "Starting",
        ("Serving", "GpuOutOfMemory"),
    ),
    (
        "failed once, now verifying",
        pod(fetch=DONE, serve=Container(state="running", ending=ended()), report=report("Verifying")),
        "Verifying",
        None,
    ),
    (
        "wrong order",
        pod(fetch=DONE, serve=RUNNING, report=failed_check("ScoresInverted")),
        "Verifying",
        ("ScoringVerified", "ScoresInverted"),
    ),
    (
        "wrong order, being looked at again",
        pod(
            fetch=DONE,
            serve=RUNNING,
            report=failed_check("ScoresInverted").model_copy(update={"phase": "Verifying"}),
        ),
        "Verifying",
        ("ScoringVerified", "ScoresInverted"),
    ),
    (
        "ended for the wrong order",
        pod(
            fetch=DONE, serve=waiting("CrashLoopBackOff", ending=ended(told="ScoresConstant", message="0.5"))
        ),
        "Starting",
        ("ScoringVerified", "ScoresConstant"),
    ),
    (
        "an old report of a container that does not run any more",
        pod(fetch=DONE, serve=waiting("CrashLoopBackOff", ending=ended()), report=report("Ready")),
        "Starting",
        ("Serving", "ContainerFailed"),
    ),
    ("ready", serving(), "Ready", None),
    ("ready after trouble", serving(serve=Container(state="running", ending=ended())), "Ready", None),
]


@pytest.mark.parametrize(
    ("subject", "step", "cause"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_pod_is_judged(subject: Pod, step: str, cause: tuple[str, str] | None) -> None:
    standing = judge(subject)
    assert standing.step == step
    found = standing.cause
    assert (None if found is None else (found.stage, found.reason)) == cause
    assert found is None or found.message


def test_the_scheduler_is_quoted() -> None:
    assert judge(pod(scheduled=False, unschedulable=NO_GPU)).cause == Cause(
        "Scheduled", "Unschedulable", f"no node can take a replica: {NO_GPU}"
    )


def test_the_pull_error_and_its_back_off_read_the_same() -> None:
    """The kubelet alternates between the two; the status must not change with it."""
    error = "rpc error: code = NotFound desc = failed to resolve reference: i:1: not found"
    again = f'Back-off pulling image "i:1": ErrImagePull: {error}'
    first = judge(pod(fetch=waiting("ErrImagePull", error))).cause
    assert first == judge(pod(fetch=waiting("ImagePullBackOff", again))).cause


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("failed to resolve reference: i:1: not found", ": the registry has no such image"),
        ("pull access denied, repository does not exist", ": the registry does not let the node have it"),
        ("unexpected status: 401 Unauthorized", ": the registry does not let the node have it"),
        ("dial tcp: lookup r.example: no such host", ": the registry cannot be reached from the node"),
        ("write /var/lib: no space left on device", ": the node's disk is full"),
        (
            'Container image "i:1" is not present with pull policy of Never',
            ": the node has no such image, and image.pullPolicy is Never",
        ),
        (
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ": the node does not trust the registry's certificate",
        ),
        ("toomanyrequests: You have reached your pull rate limit", ": the registry wants fewer pulls"),
        ("no match for platform in manifest: not found", ": there is none for the node's platform"),
        ("something new", ""),
    ],
)
def test_why_an_image_cannot_be_pulled(error: str, hint: str) -> None:
    cause = judge(pod(fetch=waiting("ErrImagePull", error))).cause
    assert cause == Cause("Downloaded", "ImagePullFailed", f"the image i:1 cannot be pulled{hint}")


def test_what_the_node_cannot_prepare_is_told() -> None:
    complaint = Complaint("FailedMount", 'MountVolume.SetUp failed for volume "weights": no such folder')
    untouched = pod(node="n1", fetch=waiting("PodInitializing"), complaint=complaint)
    message = f"the node n1 cannot prepare a replica: {complaint.message}"
    assert judge(untouched) == Standing("Pending", Cause("Downloaded", "FailedMount", message))
    on_volume = pod(node="n1", fetch=None, complaint=complaint)
    assert judge(on_volume).cause == Cause("Serving", "FailedMount", message)


def test_the_newest_complaint_of_a_node_counts() -> None:
    events: list[dict[str, Any]] = [
        {"reason": "FailedScheduling", "note": "of before", "eventTime": "2026-01-01T00:09:00.000000Z"},
        {"reason": "FailedMount", "note": "old", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z"},
        {
            "reason": "FailedMount",
            "note": "told\nagain",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": {"lastObservedTime": "2026-01-01T00:02:00.000000Z"},
        },
        {"reason": "FailedAttachVolume", "note": "in between", "eventTime": "2026-01-01T00:01:00.000000Z"},
    ]
    assert pods.complaint(events, about=pods.PREPARING) == Complaint("FailedMount", "told again")
    assert pods.complaint(events, about=pods.CLAIMING) is None
    assert pods.complaint([{"reason": "BackOff"}], about=pods.PREPARING) is None


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        (
            (
                'PodResourceClaim gpu: resource claim template "gpu-24g":'
                ' resourceclaimtemplate.resource.k8s.io "gpu-24g" not found'
            ),
            "ResourceClaimTemplateNotFound",
            (
                'there is no ResourceClaimTemplate "gpu-24g" in this namespace;'
                " see spec.resources.gpu.resourceClaimTemplateName"
            ),
        ),
        (
            "PodResourceClaim gpu: create ResourceClaim : resourceclaims is forbidden: exceeded quota: q",
            "ResourceClaimRefused",
            (
                "no claim of a GPU can be made for a replica: PodResourceClaim gpu: create ResourceClaim :"
                " resourceclaims is forbidden: exceeded quota: q"
            ),
        ),
    ],
)
def test_a_claim_that_cannot_be_made_is_told(words: str, reason: str, message: str) -> None:
    complaint = Complaint("FailedResourceClaimCreation", words)
    standing = judge(pod(scheduled=False, complaint=complaint))
    assert standing == Standing("Pending", Cause("Scheduled", reason, message))


def test_a_class_of_devices_that_is_not_there_is_told() -> None:
    said = "0/1 nodes are available: request gpu: device class gpu.nvidia.com does not exist."
    cause = judge(pod(scheduled=False, unschedulable=said)).cause
    assert cause is not None
    assert cause.reason == "DeviceClassNotFound"
    assert cause.message.startswith('the ResourceClaimTemplate asks for the DeviceClass "gpu.nvidia.com",')
    assert cause.message.endswith(f"(scheduler: {said})")


@pytest.mark.parametrize(
    ("complaint", "cause"),
    [
        (Complaint("Evicted", "low on memory"), ("Evicted", "a replica was evicted: low on memory")),
        (
            Complaint("UnexpectedAdmissionError", "no healthy devices"),
            ("EndedByNode", "the node ended a replica: UnexpectedAdmissionError: no healthy devices"),
        ),
        (
            Complaint("NodeShutdown", ""),
            ("EndedByNode", "the node ended a replica: NodeShutdown: it gave no details"),
        ),
    ],
)
def test_a_replica_that_its_node_ended(complaint: Complaint, cause: tuple[str, str]) -> None:
    assert ended_by_node(pod(ended=complaint)) == Cause("Serving", *cause)


def body(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p1",
            "uid": "u",
            "annotations": {"rerank.dev/template": "t", "rerank.dev/source": "s"},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "rerank-m-7d9f"}],
        },
        "spec": {"initContainers": [{"name": "fetch"}], "containers": [{"name": "serve"}]},
        "status": status,
    }


def test_reading_a_pod() -> None:
    message = termination("RepositoryNotFound", "the hub\nknows   no such repository")
    found = pods.read(
        body(
            phase="Pending",
            podIP="10.0.0.7",
            conditions=[{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            initContainerStatuses=[
                {
                    "name": "fetch",
                    "image": "i:1",
                    "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}},
                }
            ],
        )
    )
    assert found == Pod(
        name="p1",
        uid="u",
        ip="10.0.0.7",
        template="t",
        source="s",
        scheduled=True,
        claim=Claim({"pods": Decimal(1)}, placement=found.claim.placement),
        fetch=Container(
            state="waiting",
            waiting_reason="CrashLoopBackOff",
            ending=ended(told="RepositoryNotFound", message="the hub knows no such repository"),
            restarts=4,
            image="i:1",
        ),
        serve=Container(),
    )


def asking(name: str, requests: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": requests}}


def test_what_a_pod_asks_the_scheduler_for() -> None:
    """As the scheduler counts: the init container runs before the other, not beside it."""
    subject = body()
    subject["spec"] = {
        "nodeName": "n1",
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [asking("fetch", {"cpu": "2", "memory": "1Gi"})],
        "containers": [asking("serve", {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "1"})],
    }
    found = pods.read(subject)
    assert found.node == "n1"
    assert found.claim.requests == {"cpu": 2, "memory": 2**33, "nvidia.com/gpu": 1, "pods": 1}
    assert found.claim.tolerations == ({"operator": "Exists"},)
    for name, value in {"nodeSelector": {"a": "b"}, "tolerations": [], "priorityClassName": "high"}.items():
        other = pods.read({**subject, "spec": {**subject["spec"], name: value}})
        assert other.claim.placement != found.claim.placement, name
    assert pods.read({**subject, "spec": {**subject["spec"], "nodeName": "n2"}}).claim == found.claim


def claiming(**status: Any) -> Pod:
    """A pod that claims a GPU, of a second past midnight."""
    subject = body(**status)
    subject["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "gpu-24g"}]
    subject["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
    return pods.read(subject)


def test_what_is_claimed_is_asked_for_too() -> None:
    assert claiming().claim.requests == {"resourceclaimtemplate/gpu-24g": 1, "pods": 1}
    message = "0/2 nodes are available: 1 cannot allocate all claims, 1 Insufficient cpu."
    waits = claiming(conditions=[{"type": "PodScheduled", "status": "False", "message": message}])
    assert waits.short_of == {"resourceclaimtemplate/gpu-24g", "cpu"}


def test_until_its_claim_is_made_a_pod_waits_for_that() -> None:
    """The scheduler says nothing of it before."""
    assert claiming().unclaimed_since == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert claiming(resourceClaimStatuses=[{"name": "gpu", "resourceClaimName": "c"}]).unclaimed_since is None
    assert pods.read(body()).unclaimed_since is None
    seen = {"type": "PodScheduled", "status": "False", "message": "no"}
    assert claiming(conditions=[seen]).unclaimed_since is None


def test_the_mark_of_a_revision_is_no_other_placement() -> None:
    """The API server writes it into the selector of a constraint with matchLabelKeys (KEP-3243)."""

    def placement(revision: str, *, skew: int = 1) -> str:
        mark = {"key": "pod-template-hash", "operator": "In", "values": [revision]}
        constraint = {
            "maxSkew": skew,
            "labelSelector": {"matchExpressions": [mark]},
            "matchLabelKeys": ["pod-template-hash"],
        }
        subject = body()
        subject["spec"]["topologySpreadConstraints"] = [constraint]
        return pods.read(subject).claim.placement

    assert placement("a") == placement("b")
    assert placement("a") != placement("a", skew=2)


@pytest.mark.parametrize(
    ("words", "short"),
    [
        ("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", {"nvidia.com/gpu"}),
        ("1 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes", {"cpu", "memory"}),
        ("0/2 nodes are available: 1 Too many pods, 1 Insufficient memory.", {"pods", "memory"}),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.", set()),
        ("", set()),
    ],
)
def test_what_there_is_too_little_of(words: str, short: set[str]) -> None:
    assert pod(unschedulable=words).short_of == short


def test_replicas_that_may_not_be_together_take_a_place_each() -> None:
    """Another model's pods, or somebody else's, are no place that an old replica could give."""
    words = "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."

    def short(*labels: dict[str, str]) -> set[str]:
        subject = body(conditions=[{"type": "PodScheduled", "status": "False", "message": words}])
        terms = [{"topologyKey": "host", "labelSelector": {"matchLabels": each}} for each in labels]
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        subject["spec"]["affinity"] = {"podAntiAffinity": rule}
        return set(pods.read(subject).short_of)

    assert short({"rerank.dev/model": "m"}) == {"pods"}
    assert short({"rerank.dev/model": "m"}, {"app": "noisy"}) == set()
    assert short() == set()


def test_since_when_a_pod_waits() -> None:
    since = "2026-01-01T00:00:00Z"
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def read(status: str, **more: Any) -> Pod:
        scheduled = {"type": "PodScheduled", "status": status, "lastTransitionTime": since, "message": "m"}
        return pods.read(body(conditions=[scheduled, *more.pop("conditions", [])], **more))

    waits = read("False", nominatedNodeName="n1")
    assert (waits.unschedulable, waits.unschedulable_since, waits.nominated) == ("m", at, True)
    assert waits.unprepared_since is None
    placed = read("True")
    assert (placed.unschedulable, placed.unschedulable_since, placed.unprepared_since) == ("", None, at)
    prepared = read("True", conditions=[{"type": "PodReadyToStartContainers", "status": "True"}])
    assert prepared.unprepared_since is None


def test_what_the_scheduler_says_is_quoted_as_far_as_it_helps() -> None:
    said = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s)."
    more = " preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    for tail in ("", more, f" no new claims to deallocate,{more}", f" still not schedulable,{more}"):
        condition = {"type": "PodScheduled", "status": "False", "message": said + tail}
        assert pods.read(body(conditions=[condition])).unschedulable == said


def test_how_a_pod_as_a_whole_ended() -> None:
    assert pods.read(body(phase="Failed", reason="Evicted", message="low")).ended == Complaint(
        "Evicted", "low"
    )
    assert pods.read(body(phase="Failed")).ended is None
    assert pods.read(body(phase="Running", reason="NodeLost")).ended is None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Traceback (most recent call last): …",
        "[]",
        "null",
        '{"reason": 5}',
        '{"reason": "no spaces"}',
        "{" * 99,
    ],
)
def test_a_termination_message_that_is_not_ours_is_not_read(message: str) -> None:
    terminated = {"exitCode": 1, "reason": "Error", "message": message}
    found = pods.read(body(containerStatuses=[{"name": "serve", "state": {"terminated": terminated}}]))
    assert found.serve.ending == ended()


def test_a_long_message_is_cut() -> None:
    terminated = {"exitCode": 1, "message": termination("EngineFailed", "x" * 4000)}
    found = pods.read(body(containerStatuses=[{"name": "serve", "state": {"terminated": terminated}}]))
    assert found.serve.ending is not None
    assert found.serve.ending.message is not None
    assert len(found.serve.ending.message.message) == 1024


def test_a_bare_pod_can_be_read() -> None:
    found = pods.read({"metadata": {"name": "p1"}})
    assert (found.scheduled, found.ready, found.running, found.fetch) == (False, False, False, None)


@pytest.mark.parametrize(
    ("owners", "spec", "replica"),
    [
        ([{"controller": True, "kind": "ReplicaSet", "name": "rerank-m-7d9f"}], {}, True),
        ([], {}, False),
        ([{"controller": True, "kind": "Job", "name": "rerank-m-7d9f"}], {}, False),
        ([{"controller": True, "kind": "ReplicaSet", "name": "other-7d9f"}], {}, False),
        ([{"kind": "ReplicaSet", "name": "rerank-m-7d9f"}], {}, False),
        ([{"controller": True, "kind": "ReplicaSet", "name": "rerank-m-7d9f"}], {"hostNetwork": True}, False),
    ],
)
def test_only_pods_of_the_deployment_are_asked(owners: Any, spec: Any, replica: bool) -> None:
    subject = {"metadata": {"name": "p1", "ownerReferences": owners}, "spec": spec}
    assert is_replica(subject, deployment="rerank-m") is replica
