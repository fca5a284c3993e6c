"""Whether a repository may run code of its own: only what an administrator listed. Pure."""

from rerank_api.effective import Effective
from rerank_operator.builders.source import Source
from rerank_operator.situation import Obstacle

_PUBLIC_HUB = "https://huggingface.co"
_LIST = "policy.remoteCode of the chart"


def refusal(
    effective: Effective, source: Source, *, allowed: frozenset[str], hub_endpoint: str | None
) -> Obstacle | None:
    """Why the code may not run, or None.

    Args:
        effective: how the model is to run.
        source: where it comes from.
        allowed: what an administrator reviewed, each as "org/name@commit" with 40 hex digits.
        hub_endpoint: the hub that the operator was installed with. A commit's digits say nothing about what
            another hub, which anybody may run, hands out under them.
    """
    if not effective.engine.trust_remote_code:
        return None
    if source.repo is None:
        return _refused("a volume or an image has no commit that an administrator could allow")
    if source.commit is None:
        return _refused(
            f"{source.repo} at {source.revision} may change at any time; give spec.model.huggingFace.revision"
            f" the 40 digits of a commit, and have an administrator list {source.repo}@COMMIT in {_LIST}"
        )
    if (source.endpoint or _PUBLIC_HUB).rstrip("/") != (hub_endpoint or _PUBLIC_HUB).rstrip("/"):
        return _refused(
            f"the list in {_LIST} is about the hub of the installation, and {source.endpoint} is another:"
            " remove spec.model.huggingFace.endpoint"
        )
    if f"{source.repo}@{source.commit}" not in allowed:
        return _refused(
            f"ask an administrator to review {source.repo} at that commit and to add"
            f" {source.repo}@{source.commit} to {_LIST}, or use a model that needs no code of its own"
        )
    return None


def _refused(what_to_do: str) -> Obstacle:
    return Obstacle("RemoteCodeNotAllowed", f"spec.engine.trustRemoteCode is not allowed: {what_to_do}")
