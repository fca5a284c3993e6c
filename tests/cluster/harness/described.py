"""What `kubectl describe` tells of a model, to one who looks nowhere else."""

import re
from collections.abc import Mapping

from tests.cluster.harness.cluster import Cluster
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

    def described() -> bool:
        nonlocal text
        text = _one_line(cluster.kubectl("describe", "md", name, f"--namespace={namespace}"))
        return _tells(text, told)

    what = f"kubectl describe tells {told['type']} {told['reason']}: {told['message']}"
    wait_for(what, described, seconds=10, story=lambda: text)


def _tells(text: str, told: Mapping[str, str]) -> bool:
    message = re.escape(_one_line(told["message"]))
    condition = (
        rf"Message: {message} (Observed Generation: \d+ )?"
        rf"Reason: {told['reason']} Status: {told['status']} Type: {told['type']}\b"
    )
    _, _, events = text.partition(" Events: ")
    return bool(re.search(condition, text) and re.search(rf"Warning {told['reason']} .*{message}", events))


def _one_line(text: str) -> str:
    return " ".join(text.split())
