"""The conditions of a ModelDeployment: one ordered list of pure checks over its situation. Used by status."""

from typing import Final

from rerank_api.conditions import Verdict
from rerank_operator.causes import Stage
from rerank_operator.situation import Situation

# Reasons that tell of something wrong beside what the status of their condition says.
TIGHT: Final = "GpuMayBeTooSmall"
OVERDUE: Final = "ProgressDeadlineExceeded"
# Reasons that tell where things are, as opposed to what is wrong.
CALM: Final = frozenset(
    {
        "Waiting",
        "Downloading",
        "Starting",
        "Verifying",
        "RollingOut",
        "ScaledToZero",
        "Replacing",
        "VerificationOff",
    }
)


def verdicts(situation: Situation) -> list[Verdict]:
    """All six conditions, in the order in which a replica comes to life."""
    return [
        _scheduled(situation),
        _downloaded(situation),
        _serving(situation),
        _scoring_verified(situation),
        _progressing(situation),
        _ready(situation),
    ]


def _scheduled(situation: Situation) -> Verdict:
    if situation.wanted == 0:
        return _idle("Scheduled", situation)
    caused = _caused(situation, "Scheduled")
    if caused is not None:
        return caused
    if situation.scheduled >= situation.wanted:
        if situation.warning:
            message = f"every replica has a node, but {situation.warning}"
            return Verdict(type="Scheduled", status="True", reason=TIGHT, message=message)
        return Verdict(
            type="Scheduled", status="True", reason="Scheduled", message="every replica has a node"
        )
    message = f"{situation.scheduled} of {situation.wanted} replicas have a node"
    return Verdict(type="Scheduled", status="Unknown", reason="Waiting", message=message)


def _downloaded(situation: Situation) -> Verdict:
    if situation.wanted == 0:
        return _idle("Downloaded", situation)
    caused = _caused(situation, "Downloaded")
    if caused is not None:
        return caused
    source = situation.source
    steps = [standing.step for _, standing in situation.newest]
    if "Downloading" in steps:
        message = f"{source.repo} is being downloaded"
        return Verdict(type="Downloaded", status="False", reason="Downloading", message=message)
    if not any(step in {"Starting", "Verifying", "Ready"} for step in steps):
        message = "no replica has begun yet"
        return Verdict(type="Downloaded", status="Unknown", reason="Waiting", message=message)
    if source.image is not None:
        message = f"the node mounts the image {source.image}; nothing is downloaded"
        return Verdict(type="Downloaded", status="True", reason="InImage", message=message)
    if source.repo is None:
        message = "the weights lie on a volume; nothing is downloaded"
        return Verdict(type="Downloaded", status="True", reason="OnVolume", message=message)
    message = f"{source.repo} at {situation.commit or source.revision}"
    return Verdict(type="Downloaded", status="True", reason="Downloaded", message=message)


def _serving(situation: Situation) -> Verdict:
    if situation.serving:
        replicas = "1 replica answers" if situation.serving == 1 else f"{situation.serving} replicas answer"
        return Verdict(type="Serving", status="True", reason="Serving", message=replicas)
    if situation.wanted == 0:
        return _idle("Serving", situation)
    caused = _caused(situation, "Serving")
    if caused is not None:
        return caused
    reason = situation.step if situation.step in {"Starting", "Verifying"} else "Waiting"
    return Verdict(type="Serving", status="False", reason=reason, message="no replica answers yet")


def _scoring_verified(situation: Situation) -> Verdict:
    if situation.wanted == 0:
        return _idle("ScoringVerified", situation)
    caused = _caused(situation, "ScoringVerified")
    if caused is not None:
        return caused
    lenient = _leniently_verified(situation)
    if lenient is not None:
        return lenient
    if situation.ready:
        message = "every replica that serves ranked known texts in the right order"
        return Verdict(type="ScoringVerified", status="True", reason="Verified", message=message)
    reason = "Verifying" if situation.step == "Verifying" else "Waiting"
    message = "known texts have not been ranked yet"
    return Verdict(type="ScoringVerified", status="Unknown", reason=reason, message=message)


def _leniently_verified(situation: Situation) -> Verdict | None:
    """What there is to say where replicas may serve without having ranked right: only what they told."""
    if situation.verification == "Required" or not situation.ready:
        return None
    if situation.verification == "Off":
        message = (
            "spec.scoring.verification.mode is Off: nobody checked how this model ranks; set it to Report or"
            " Required to know"
        )
        return Verdict(type="ScoringVerified", status="Unknown", reason="VerificationOff", message=message)
    doubt = situation.doubt
    if doubt is not None:
        told = " ".join(doubt.message.split()).rstrip(".")
        message = f"{told} (it serves all the same: spec.scoring.verification.mode is Report)"
        return Verdict(type="ScoringVerified", status="False", reason=doubt.reason, message=message)
    if all(check is not None and check.verified for check in situation.checks):
        return None
    message = "known texts have not been ranked yet; spec.scoring.verification.mode is Report"
    return Verdict(type="ScoringVerified", status="Unknown", reason="Verifying", message=message)


def _progressing(situation: Situation) -> Verdict:
    if situation.complete:
        message = "the replicas are as the spec wants them"
        return Verdict(type="Progressing", status="True", reason="Complete", message=message)
    blocked = situation.obstacle or situation.cause
    if blocked is not None:
        return Verdict(type="Progressing", status="False", reason=blocked.reason, message=blocked.message)
    if situation.wanted == 0:
        return Verdict(
            type="Progressing", status="True", reason="ScaledToZero", message="no replica is wanted"
        )
    message = f"{situation.ready} of {situation.wanted} replicas of the newest revision are ready"
    if situation.overdue:
        seconds = situation.model.spec.rollout.progress_deadline_seconds
        message += f", and none became ready within {seconds} s (spec.rollout.progressDeadlineSeconds)"
        return Verdict(type="Progressing", status="False", reason=OVERDUE, message=message)
    return Verdict(type="Progressing", status="True", reason="RollingOut", message=message)


def _ready(situation: Situation) -> Verdict:
    if situation.complete:
        message = f"{situation.ready} of {situation.wanted} replicas serve"
        return Verdict(type="Ready", status="True", reason="Ready", message=message)
    blocked = situation.obstacle or situation.cause
    if blocked is not None:
        return Verdict(type="Ready", status="False", reason=blocked.reason, message=blocked.message)
    if situation.wanted == 0:
        return _idle("Ready", situation)
    message = f"{situation.ready} of {situation.wanted} replicas of the newest revision are ready"
    reason = "RollingOut" if situation.serving else _waiting_for(situation)
    return Verdict(type="Ready", status="False", reason=reason, message=message)


def _waiting_for(situation: Situation) -> str:
    return "Waiting" if situation.step in {"Pending", "Ready"} else situation.step


def _caused(situation: Situation, stage: Stage) -> Verdict | None:
    cause = situation.cause
    if cause is None or cause.stage != stage:
        return None
    return Verdict(type=stage, status="False", reason=cause.reason, message=cause.message)


def _idle(kind: str, situation: Situation) -> Verdict:
    status = "False" if kind in {"Serving", "Ready"} else "Unknown"
    scaled = situation.model.spec.autoscaling is not None
    message = "spec.autoscaling scaled it to zero: nobody asks for it" if scaled else "spec.replicas is 0"
    return Verdict(type=kind, status=status, reason="ScaledToZero", message=message)
