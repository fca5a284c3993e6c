"""What `kubectl describe` tells of a model, to one who looks nowhere else."""

import re
from collections.abc import Mapping

from tests.cluster.harness.cluster import Cluster, events_about
from tests.cluster.harness.waiting import wait_for


def wait_described(cluster: Cluster, name: str, namespace: str, told: Mapping[str, str]) -> None:
    """Wait until a description has that condition word by word, and a warning that says the same.

    An event is posted after the status is written, so it may come a moment later.

    Args:
        cluster: where the model is.
        name: its name.
        namespace: its namespace.
        told: a condition that is not True.
    """
    text = ""
    message = re.escape(_one_line(told["message"]))
    condition = re.compile(
        rf"Message: {message} (Observed Generation: \d+ )?"
        rf"Reason: {told['reason']} Status: {told['status']} Type: {told['type']}\b"
    )

    def described() -> bool:
        nonlocal text
        text = _describe(cluster, name, namespace)
        return bool(condition.search(text)) and _warns(text, told["reason"], told["message"])

    what = f"kubectl describe tells {told['type']} {told['reason']}: {told['message']}"
    wait_for(what, described, seconds=10, story=lambda: text)


def wait_warned(cluster: Cluster, name: str, namespace: str, reason: str, *, seconds: float) -> str:
    """Wait until a description warns of something, and return the warning's message.

    For what may be over when somebody looks: conditions go on, events stay.
    """

    def warned() -> str:
        events = events_about(cluster, "ModelDeployment", name, namespace)
        found = [e["message"] for e in events if (e["type"], e["reason"]) == ("Warning", reason)]
        return str(found[-1]) if found else ""

    what = f"ModelDeployment {namespace}/{name} has a warning {reason}"
    message = wait_for(what, warned, seconds=seconds, story=cluster.story(namespace))
    text = _describe(cluster, name, namespace)
    assert _warns(text, reason, message), text
    return message


def _describe(cluster: Cluster, name: str, namespace: str) -> str:
    return _one_line(cluster.kubectl("describe", "md", name, f"--namespace={namespace}"))


def _warns(text: str, reason: str, message: str) -> bool:
    _, _, events = text.partition(" Events: ")
    return bool(re.search(rf"Warning {reason} .*{re.escape(_one_line(message))}", events))


def _one_line(text: str) -> str:
    return " ".join(text.split())
