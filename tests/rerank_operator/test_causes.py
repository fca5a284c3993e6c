"""From a pod as the API server shows it to the reason that a person reads."""

from typing import Any

import pytest

from rerank_operator import pods
from rerank_operator.causes import Cause, judge
from rerank_operator.pods import Container, Pod, is_replica
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
    first = judge(pod(fetch=waiting("ErrImagePull", "rpc error: 404"))).cause
    assert first == judge(pod(fetch=waiting("ImagePullBackOff", 'Back-off pulling image "i:1"'))).cause


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
        fetch=Container(
            state="waiting",
            waiting_reason="CrashLoopBackOff",
            ending=ended(told="RepositoryNotFound", message="the hub knows no such repository"),
            restarts=4,
            image="i:1",
        ),
        serve=Container(),
    )


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
