"""From a situation to conditions, phase, message and the status as written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api.model_deployment import ModelDeployment, ModelDeploymentStatus
from rerank_operator import phase, status
from rerank_operator.conditions import verdicts
from rerank_operator.events import Notice, notices
from rerank_operator.pod_status import Report
from rerank_operator.pods import Complaint, Container
from rerank_operator.situation import Obstacle, Situation, overdue, replica_failure
from tests.rerank_operator.samples import (
    COMMIT,
    DONE,
    RUNNING,
    ended,
    model,
    pod,
    report,
    serving,
    situation,
    source,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TAKEN = Obstacle("NameTaken", "Service rerank-minilm exists")
GATED = Container(state="terminated", ending=ended(told="RepositoryGated", message="ask for access"))

ORDER = ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready")
T, F, U = "True", "False", "Unknown"


def verifying(mode: str) -> ModelDeployment:
    return model(scoring={"verification": {"mode": mode}})


def checked(mode: str, reason: str = "", *, phase: str = "Ready") -> Report:
    """A report with the outcome of a verification; without a reason it was good."""
    outcome = {"verified": not reason, "mode": mode, "reason": reason, "message": "hi beat the panda"}
    return report(phase, verification=outcome)


CASES: dict[str, tuple[Situation, str, tuple[str, ...], str]] = {
    "nothing yet": (situation(), "Pending", (U, U, F, U, T, F), "Waiting"),
    "unschedulable": (
        situation(pod(scheduled=False, unschedulable="0/1 nodes are available")),
        "Pending",
        (F, U, F, U, F, F),
        "Unschedulable",
    ),
    "pulling the image": (
        situation(pod(fetch=Container(waiting_reason="PodInitializing"))),
        "Pending",
        (T, U, F, U, T, F),
        "Waiting",
    ),
    "downloading": (situation(pod()), "Downloading", (T, F, F, U, T, F), "Downloading"),
    "gated": (situation(pod(fetch=GATED)), "Failed", (T, F, F, U, F, F), "RepositoryGated"),
    "starting": (situation(pod(fetch=DONE, serve=RUNNING)), "Starting", (T, T, F, U, T, F), "Starting"),
    "verifying": (
        situation(pod(fetch=DONE, serve=RUNNING, report=report("Verifying"))),
        "Verifying",
        (T, T, F, U, T, F),
        "Verifying",
    ),
    "wrong order": (
        situation(
            pod(
                fetch=DONE,
                serve=RUNNING,
                report=report("Failed", verification={"verified": False, "reason": "ScoresInverted"}),
            )
        ),
        "Failed",
        (T, T, F, F, F, F),
        "ScoresInverted",
    ),
    "ready": (situation(serving()), "Ready", (T, T, T, T, T, T), "Ready"),
    "serves although it ranks wrong, as was asked for": (
        situation(serving(report=checked("Report", "ScoresInverted")), of=verifying("Report")),
        "Ready",
        (T, T, T, F, T, T),
        "Ready",
    ),
    "serves and ranks right, where that is only reported": (
        situation(serving(report=checked("Report")), of=verifying("Report")),
        "Ready",
        (T, T, T, T, T, T),
        "Ready",
    ),
    "serves and has not told yet how it ranks": (
        situation(serving(), of=verifying("Report")),
        "Ready",
        (T, T, T, U, T, T),
        "Ready",
    ),
    "serves and nobody asked how it ranks": (
        situation(serving(), of=verifying("Off")),
        "Ready",
        (T, T, T, U, T, T),
        "Ready",
    ),
    "ranks wrong on its way, as is only reported": (
        situation(
            pod(fetch=DONE, serve=RUNNING, report=checked("Report", "ScoresInverted", phase="Verifying")),
            of=verifying("Report"),
        ),
        "Verifying",
        (T, T, F, U, T, F),
        "Verifying",
    ),
    "one of two": (
        situation(serving("p1"), pod("p2"), of=model(replicas=2)),
        "Degraded",
        (T, F, T, T, T, F),
        "RollingOut",
    ),
    "one of two, the other has no node": (
        situation(serving("p1"), pod("p2", scheduled=False, unschedulable="no"), of=model(replicas=2)),
        "Degraded",
        (F, T, T, T, F, F),
        "Unschedulable",
    ),
    "for longer than it may take": (
        situation(pod(), overdue=True),
        "Downloading",
        (T, F, F, U, F, F),
        "Downloading",
    ),
    "complete, whatever the Deployment says": (
        situation(serving(), overdue=True),
        "Ready",
        (T, T, T, T, T, T),
        "Ready",
    ),
    "complete, with one too many that fails on its way out": (
        situation(serving("p1"), pod("p2", fetch=GATED)),
        "Ready",
        (T, F, T, T, T, T),
        "Ready",
    ),
    "rolling out over an old one that serves": (
        situation(serving("old", template="older"), pod("new")),
        "Downloading",
        (T, F, T, U, T, F),
        "RollingOut",
    ),
    "the new one fails over an old one that serves": (
        situation(serving("old", template="older"), pod("new", fetch=GATED)),
        "Degraded",
        (T, F, T, U, F, F),
        "RepositoryGated",
    ),
    "an old one fails, the new one is fresh": (
        situation(pod("old", template="older", fetch=GATED), pod("new", scheduled=False)),
        "Pending",
        (U, U, F, U, T, F),
        "Waiting",
    ),
    "one too many after scaling down": (
        situation(serving("p1"), serving("p2", deleting=True)),
        "Ready",
        (T, T, T, T, T, T),
        "Ready",
    ),
    "the only one is being deleted": (
        situation(serving(deleting=True)),
        "Pending",
        (U, U, F, U, T, F),
        "Waiting",
    ),
    "autoscaled to zero": (
        situation(of=model(replicas=0, autoscaling={"minReplicas": 0, "maxReplicas": 2})),
        "Idle",
        (U, U, F, U, T, F),
        "ScaledToZero",
    ),
    "scaled to zero": (situation(of=model(replicas=0)), "Idle", (U, U, F, U, T, F), "ScaledToZero"),
    "name taken": (situation(obstacle=TAKEN), "Failed", (U, U, F, U, F, F), "NameTaken"),
    "name taken while it serves": (
        situation(serving(), obstacle=TAKEN),
        "Degraded",
        (T, T, T, T, F, F),
        "NameTaken",
    ),
    "evicted": (
        situation(
            pod(
                "gone",
                finished=True,
                ended=Complaint("Evicted", "The node was low on resource: ephemeral-storage."),
            )
        ),
        "Failed",
        (U, U, F, U, F, F),
        "Evicted",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_conditions_and_phase(case: str) -> None:
    subject, wanted_phase, wanted, reason = CASES[case]
    found = verdicts(subject)
    assert tuple(v.type for v in found) == ORDER
    assert tuple(v.status for v in found) == wanted
    assert found[-1].reason == reason
    assert phase.phase(subject) == wanted_phase
    assert phase.message(subject, None)


@pytest.mark.parametrize("case", CASES)
def test_a_status_that_was_written_is_not_written_again(case: str) -> None:
    """Looked at an hour later, with nothing changed: the same status, times included."""
    subject = CASES[case][0]
    written = status.as_written(status.model_status(subject, gateway_url="http://g", now=NOW))
    again = _with_status(subject, written)
    later = status.model_status(again, gateway_url="http://g", now=NOW + timedelta(hours=1))
    assert status.as_written(later) == written
    fields = status.fields_of(ModelDeploymentStatus)
    assert not status.differs(status.as_written(later), written, fields=fields)


def test_a_foreign_condition_and_field_do_not_cause_writes() -> None:
    fields = status.fields_of(ModelDeploymentStatus)
    written = status.as_written(status.model_status(CASES["ready"][0], gateway_url="http://g", now=NOW))
    foreign = {"type": "Approved", "status": "True", "reason": "x", "message": ""}
    live = {**written, "conditions": [foreign, *written["conditions"]], "somebody": "else"}
    assert not status.differs(written, live, fields=fields)
    assert status.differs(written, {**live, "phase": "Failed"}, fields=fields)
    assert status.differs(written, {**live, "download": {"bytes": 1}}, fields=fields), "it should be gone"


def test_the_time_moves_with_the_status_only() -> None:
    first = status.model_status(CASES["downloading"][0], gateway_url="http://g", now=NOW)
    subject = _with_status(CASES["gated"][0], status.as_written(first))
    second = status.model_status(subject, gateway_url="http://g", now=NOW + timedelta(minutes=5))
    times = {c.type: c.last_transition_time for c in second.conditions}
    assert times["Downloaded"] == NOW, "False before and after: only the reason changed"
    assert times["Progressing"] == NOW + timedelta(minutes=5)


def _with_status(subject: Situation, written: dict[str, Any]) -> Situation:
    body = {
        "metadata": subject.model.metadata.model_dump(by_alias=True),
        "spec": subject.model.spec.model_dump(by_alias=True, exclude_none=True),
        "status": written,
    }
    return replace(subject, model=ModelDeployment.parse(body))


def test_download_progress_is_that_of_the_slowest_in_steps_of_a_percent() -> None:
    def loading(name: str, count: int) -> Any:
        part = {"bytes": count, "totalBytes": 1_000_000, "etaSeconds": 90}
        return pod(name, report=report("Downloading", download=part))

    subject = situation(loading("a", 559_999), loading("b", 701_234), of=model(replicas=2))
    found = status.model_status(subject, gateway_url="http://g", now=NOW)
    assert found.download is not None
    assert (found.download.bytes, found.download.total_bytes, found.download.eta_seconds) == (
        550_000,
        1_000_000,
        90,
    )
    assert found.message == "downloading org/name: 55 % of 976.6 KiB, about 90 s left"


def test_what_a_download_waits_for_is_told() -> None:
    waiting = report("Downloading", reason="HubRateLimited", message="The hub asks to wait.\n")
    found = status.model_status(situation(pod(report=waiting)), gateway_url="http://g", now=NOW)
    assert found.message == "downloading org/name (The hub asks to wait)"
    assert found.phase == "Downloading"


def test_the_model_of_an_earlier_source_is_forgotten() -> None:
    known = {"repo": "org/earlier", "revision": "e" * 40, "family": "bert"}
    subject = situation(of=model(status={"model": known}), commit=None)
    found = status.model_status(subject, gateway_url="http://g", now=NOW)
    assert found.model is not None
    assert (found.model.repo, found.model.revision, found.model.family) == ("org/name", None, None)


VOLUME = {"persistentVolumeClaim": {"claimName": "weights", "path": "a"}}
IMAGE = {"image": {"reference": f"registry.example/weights@sha256:{64 * '0'}"}}


@pytest.mark.parametrize("of", [VOLUME, IMAGE])
@pytest.mark.parametrize(
    "other", [VOLUME, IMAGE, {"persistentVolumeClaim": {"claimName": "weights", "path": "b"}}]
)
def test_what_was_found_on_a_volume_or_in_an_image_is_of_no_other(of: Any, other: Any) -> None:
    told = report(model={"family": "bert", "memory_bytes": 2**30})
    subject = situation(serving(report=told), of=model(model=of), commit=None)
    found = status.model_status(subject, gateway_url="", now=NOW)
    known = status.as_written(found)["model"]
    changed = model(model=other, replicas=0, status={"model": known})
    later = status.model_status(situation(of=changed, commit=None), gateway_url="", now=NOW)
    assert later.model == (found.model if of == other else None)
    assert status.memory_known(changed, source(changed)) == (2**30 if of == other else None)


def test_the_model_is_remembered_while_nobody_can_tell() -> None:
    known = {"repo": "org/name", "revision": COMMIT, "family": "bert"}
    subject = situation(of=model(replicas=0, status={"model": known}))
    found = status.model_status(subject, gateway_url="http://g", now=NOW)
    assert found.model is not None
    assert (found.model.revision, found.model.family) == (COMMIT, "bert")


def test_pods_that_cannot_be_created_read_the_same_at_each_attempt() -> None:
    def failure(pod_name: str) -> Obstacle | None:
        message = f'pods "{pod_name}" is forbidden: exceeded quota: q, requested: pods=1'
        return replica_failure(
            {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}}
        )

    assert failure("rerank-m-abc12") == failure("rerank-m-xyz89")
    found = failure("rerank-m-abc12")
    assert found is not None
    assert "a pod is forbidden: exceeded quota: q" in found.message
    assert replica_failure(None) is None
    assert replica_failure({"status": {}}) is None


def told(before: str, after: str) -> list[Notice]:
    old = status.model_status(CASES[before][0], gateway_url="http://g", now=NOW).conditions
    new = status.model_status(CASES[after][0], gateway_url="http://g", now=NOW).conditions
    return notices(old, status.changed(old, new))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("nothing yet", "unschedulable", [("Warning", "Unschedulable")]),
        ("unschedulable", "downloading", [("Normal", "Scheduled"), ("Normal", "Downloading")]),
        ("downloading", "gated", [("Warning", "RepositoryGated")]),
        ("gated", "gated", []),
        ("gated", "starting", [("Normal", "Downloaded")]),
        ("starting", "verifying", []),
        ("verifying", "wrong order", [("Warning", "ScoresInverted")]),
        ("verifying", "ready", [("Normal", "ScoringVerified"), ("Normal", "Ready")]),
        (
            "verifying",
            "serves although it ranks wrong, as was asked for",
            [("Warning", "ScoresInverted"), ("Normal", "Ready")],
        ),
        ("verifying", "serves and nobody asked how it ranks", [("Normal", "Ready")]),
        ("ready", "scaled to zero", [("Normal", "ScaledToZero")]),
        ("ready", "starting", [("Normal", "Starting")]),
        ("ready", "one of two", [("Normal", "Downloading"), ("Normal", "RollingOut")]),
        ("one of two", "ready", [("Normal", "Downloaded"), ("Normal", "Ready")]),
    ],
)
def test_each_transition_is_told_once(before: str, after: str, wanted: list[tuple[str, str]]) -> None:
    assert [(notice.type, notice.reason) for notice in told(before, after)] == wanted


@pytest.mark.parametrize(
    ("case", "sentence", "ready"),
    [
        ("ready", "1 of 1 replicas serve", "1/1"),
        ("one of two", "1 of 2 replicas serve; downloading org/name", "1/2"),
        (
            "rolling out over an old one that serves",
            (
                "0 of 1 replicas of the newest revision are ready, 1 of an earlier one serves;"
                " downloading org/name"
            ),
            "1/1",
        ),
        (
            "serves although it ranks wrong, as was asked for",
            "1 of 1 replicas serve, but ScoresInverted: see the condition ScoringVerified",
            "1/1",
        ),
        ("gated", "ask for access", "0/1"),
        ("autoscaled to zero", "scaled to zero; the next request starts it", "0/0"),
        ("scaled to zero", "scaled to zero; `kubectl scale md minilm --replicas=1` starts it", "0/0"),
        ("name taken while it serves", "1 of 1 replicas serve; Service rerank-minilm exists", "1/1"),
    ],
)
def test_the_sentence_for_people(case: str, sentence: str, ready: str) -> None:
    found = status.model_status(CASES[case][0], gateway_url="http://g", now=NOW)
    assert (found.message, found.ready) == (sentence, ready)


def test_what_was_reported_stands_in_the_status() -> None:
    told = report(
        source={"repo": "org/name", "revision": COMMIT, "file": "m-Q8_0.gguf"},
        model={
            "family": "qwen3",
            "dtype": "bfloat16",
            "memoryBytes": 4 * 2**30,
            "prefixCaching": True,
            "scoring": {
                "method": "CrossEncoder",
                "range": "[0,1]",
                "instruction": "Find it",
                "templateSha256": "a" * 64,
                "planDigest": "0f" * 16,
                "pointwise": True,
            },
        },
        verification={
            "verified": True,
            "mode": "Required",
            "checkedAt": "2026-11-22T12:00:00Z",
            "cases": [
                {"query": "q" * 200, "language": "en", "relevant": 0.123456, "irrelevant": 1e-9},
                {"query": "not scored"},
            ],
        },
    )
    of = model(model={"catalog": "qwen3-reranker-0.6b"})
    subject = replace(situation(serving(report=told)), model=of)
    found = status.as_written(status.model_status(subject, gateway_url="http://g", now=NOW))
    assert found["model"] == {
        "catalog": "qwen3-reranker-0.6b",
        "repo": "org/name",
        "revision": COMMIT,
        "file": "m-Q8_0.gguf",
        "family": "qwen3",
        "dtype": "bfloat16",
        "memoryBytes": 4 * 2**30,
        "prefixCaching": True,
        "scoring": {
            "method": "CrossEncoder",
            "range": "[0,1]",
            "pointwise": True,
            "templateSHA256": "a" * 64,
            "instruction": "Find it",
            "planDigest": "0f" * 16,
            "verified": True,
            "cases": [
                {"query": "q" * 128, "language": "en", "relevant": 0.1235, "irrelevant": 0.0},
                {"query": "not scored"},
            ],
        },
    }


@pytest.mark.parametrize(
    ("verification", "verified"),
    [
        ({"verified": False, "mode": "Report", "reason": "ScoresInverted"}, False),
        ({"verified": False, "mode": "Off"}, None),
        (None, None),
    ],
)
def test_verified_is_told_only_where_something_was_asked(
    verification: dict[str, Any] | None, verified: bool | None
) -> None:
    scoring = {"method": "CrossEncoder", "range": "[0,1]"}
    told = report(model={"scoring": scoring}, verification=verification)
    found = status.model_status(situation(serving(report=told)), gateway_url="http://g", now=NOW)
    assert found.model is not None
    assert found.model.scoring is not None
    assert found.model.scoring.verified is verified


def test_what_is_in_effect_stands_in_the_status() -> None:
    of = model(resources={"cpu": 2}, scoring={"instruction": "Find it"})
    found = status.as_written(status.model_status(situation(of=of), gateway_url="http://g", now=NOW))
    assert found["effective"] == {
        "resources": {
            "gpu": {"count": 1, "resourceName": "nvidia.com/gpu", "products": []},
            "cpu": "2",
            "memory": "8Gi",
        },
        "engine": {"dtype": "auto", "trustRemoteCode": False, "extraArgs": []},
        "scoring": {
            "method": "Auto",
            "instruction": "Find it",
            "truncation": {"onOverflow": "Truncate"},
            "cacheScores": False,
            "verification": {"mode": "Required", "cases": []},
        },
    }


def test_a_rollout_that_takes_too_long_is_told_once() -> None:
    of = model(rollout={"progressDeadlineSeconds": 90})
    found = {v.type: v for v in verdicts(situation(pod(), of=of, overdue=True))}["Progressing"]
    assert (found.status, found.reason) == ("False", "ProgressDeadlineExceeded")
    assert found.message == (
        "0 of 1 replicas of the newest revision are ready, and none became ready within 90 s"
        " (spec.rollout.progressDeadlineSeconds)"
    )
    late = situation(pod(), of=of, overdue=True)
    told = status.model_status(late, gateway_url="http://g", now=NOW)
    assert told.message == "downloading org/name, for longer than spec.rollout.progressDeadlineSeconds"
    assert [notice.reason for notice in notices([], told.conditions) if notice.type == "Warning"] == [
        "ProgressDeadlineExceeded"
    ]


@pytest.mark.parametrize(
    ("generation", "reason", "late"),
    [
        (3, "ProgressDeadlineExceeded", True),
        (2, "ProgressDeadlineExceeded", False),
        (3, "NewReplicaSetAvailable", False),
    ],
)
def test_the_deployment_tells_of_its_newest_generation(generation: int, reason: str, late: bool) -> None:
    condition = {"type": "Progressing", "status": "False", "reason": reason}
    told = {"observedGeneration": generation, "conditions": [condition]}
    assert overdue({"metadata": {"generation": 3}, "status": told}) is late
    assert not overdue(None)


def test_a_gpu_that_may_be_too_small_is_a_warning_and_no_failure() -> None:
    tight = replace(situation(pod()), warning="the GPU of n1 has 15.0 GiB")
    scheduled = verdicts(tight)[0]
    assert (scheduled.status, scheduled.reason) == ("True", "GpuMayBeTooSmall")
    assert scheduled.message == "every replica has a node, but the GPU of n1 has 15.0 GiB"
    told = status.model_status(tight, gateway_url="http://g", now=NOW)
    assert told.phase == "Downloading"
    assert told.message == "downloading org/name; the GPU of n1 has 15.0 GiB"
    (warning,) = [notice for notice in notices([], told.conditions) if notice.type == "Warning"]
    assert warning == Notice("Warning", "GpuMayBeTooSmall", scheduled.message)
