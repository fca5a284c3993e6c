"""What a person needs to see when the demo fails: conditions, events, pods, and the operator's last words."""

from collections.abc import Iterator

from dev.cluster.errors import ClusterError
from dev.demo.cluster import Cluster
from dev.demo.objects import NAMESPACE

LINES = 12
SYSTEM = "rerank-system"


def sections(cluster: Cluster, model: str) -> Iterator[str]:
    """Texts to print, most telling first. A question that fails is told in its place."""
    here, there = f"--namespace={NAMESPACE}", f"--namespace={SYSTEM}"
    warnings = ("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
    questions = {
        f"modeldeployment/{model}": ("describe", here, f"modeldeployment/{model}"),
        "pods of the model": ("get", here, "pods", f"--selector=rerank.dev/model={model}", "--output=wide"),
        f"latest warnings in namespace {NAMESPACE}": (*warnings, here),
        "pods of operator and gateway": ("get", there, "pods", "--output=wide"),
        f"latest warnings in namespace {SYSTEM}": (*warnings, there),
        "log of the operator": ("logs", there, "deployment/rerank-operator", f"--tail={LINES}"),
    }
    for title, question in questions.items():
        try:
            answer = cluster.kubectl(*question)
        except ClusterError as error:
            answer = str(error)
        lines = answer.strip().splitlines() or ["none"]
        told = lines if question[0] == "describe" else lines[-LINES:]
        yield "\n".join([f"--- {title}", *told])
