"""What a person needs to see when the demo fails: conditions, events, pods, and the operator's last words."""

from collections.abc import Iterator

from dev.cluster.errors import ClusterError
from dev.demo.cluster import Cluster
from dev.demo.objects import NAMESPACE

LOG_LINES = 20
SYSTEM = "rerank-system"


def sections(cluster: Cluster, model: str) -> Iterator[str]:
    """Texts to print, most telling first. A question that fails is told in its place."""
    here = f"--namespace={NAMESPACE}"
    questions = {
        f"modeldeployment/{model}": ("describe", here, f"modeldeployment/{model}"),
        "pods of the model": ("get", here, "pods", f"--selector=rerank.dev/model={model}", "--output=wide"),
        "warnings": ("get", "--all-namespaces", "events", "--field-selector=type=Warning"),
        "pods of operator and gateway": ("get", f"--namespace={SYSTEM}", "pods", "--output=wide"),
        "log of the operator": (
            "logs",
            f"--namespace={SYSTEM}",
            "deployment/rerank-operator",
            f"--tail={LOG_LINES}",
        ),
    }
    for title, question in questions.items():
        try:
            answer = cluster.kubectl(*question)
        except ClusterError as error:
            answer = str(error)
        yield f"--- {title}\n{answer.strip() or 'none'}"
