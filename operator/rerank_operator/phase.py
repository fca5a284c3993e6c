"""One word and one sentence for people. Pure; used by status."""

from rerank_api.model_deployment import DownloadStatus, Phase
from rerank_operator.situation import Situation

_BINARY_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def phase(situation: Situation) -> Phase:
    """The phase, for the column and for dashboards; programs read the conditions."""
    if situation.obstacle is not None and situation.obstacle.reason != "Replacing":
        return "Degraded" if situation.serving else "Failed"
    if situation.wanted == 0:
        return "Idle"
    if situation.complete:
        return "Ready"
    if situation.serving and (situation.serving < situation.wanted or situation.cause is not None):
        return "Degraded"
    if situation.cause is not None:
        # Waiting for a node is no failure: capacity comes and goes.
        return "Pending" if situation.cause.stage == "Scheduled" else "Failed"
    return situation.step


def message(situation: Situation, download: DownloadStatus | None) -> str:
    """What is going on, and what to do about it where something is wrong."""
    name = situation.model.metadata.name
    counts = _counts(situation)
    blocked = situation.obstacle or situation.cause
    if blocked is not None:
        sentence = blocked.message
        if situation.obstacle is None and download is not None:
            sentence += f"; trying again, {_progress(download)}"
        return f"{counts}; {sentence}" if situation.serving else sentence
    if situation.wanted == 0:
        if situation.model.spec.autoscaling is not None:
            return "scaled to zero; the next request starts it"
        return f"scaled to zero; `kubectl scale md {name} --replicas=1` starts it"
    if situation.complete:
        serving = f"{situation.ready} of {situation.wanted} replicas serve"
        doubt = situation.doubt
        return f"{serving}, but {doubt.reason}: see the condition ScoringVerified" if doubt else serving
    doing = {
        "Pending": "waiting for a node"
        if not situation.scheduled
        else "waiting for the node to pull the image and start the replica",
        "Downloading": f"downloading {situation.source.repo}",
        "Starting": "loading the model",
        "Verifying": "checking that known texts are ranked in the right order",
        "Ready": "finishing",
    }[situation.step]
    if situation.step == "Downloading" and download is not None:
        doing += f": {_progress(download)}"
    told = _told(situation)
    doing += f" ({told})" if told else ""
    doing += f"; {situation.warning}" if situation.warning else ""
    if situation.overdue:
        doing += ", for longer than spec.rollout.progressDeadlineSeconds"
    return f"{counts}; {doing}" if situation.serving else doing


def _told(situation: Situation) -> str:
    """What a pod that downloads waits for, in its own words: the hub, or another pod at the same work."""
    messages = (
        pod.report.message
        for pod, standing in situation.newest
        if standing.step == situation.step == "Downloading" and pod.report is not None
    )
    return next((" ".join(message.split()).rstrip(".") for message in messages if message), "")


def _counts(situation: Situation) -> str:
    earlier = situation.serving - situation.ready
    if not earlier:
        return f"{situation.ready} of {situation.wanted} replicas serve"
    return (
        f"{situation.ready} of {situation.wanted} replicas of the newest revision are ready,"
        f" {earlier} of an earlier one serve{'s' if earlier == 1 else ''}"
    )


def _progress(download: DownloadStatus) -> str:
    percent = 100 * download.bytes // download.total_bytes if download.total_bytes else 0
    left = f", about {_duration(download.eta_seconds)} left" if download.eta_seconds else ""
    return f"{percent} % of {_size(download.total_bytes)}{left}"


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_BINARY_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_BINARY_UNITS[unit]}" if unit else f"{count} bytes"


def _duration(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
