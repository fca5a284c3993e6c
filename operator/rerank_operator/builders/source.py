"""The model's source as the pods get it: one value for a repository or a volume."""

import re
from dataclasses import dataclass

from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import digest

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from. `key` names it in the ConfigMap and on the pods.

    Attributes:
        repo: repository, None for a volume.
        revision: branch, tag or commit, None for a volume.
        endpoint: the hub, None for the public one.
        directory: where the serving container finds the weights.
    """

    key: str
    directory: str
    repo: str | None = None
    revision: str | None = None
    endpoint: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit, when the spec names one itself."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None

    @property
    def needs_pin(self) -> bool:
        """The revision is a name that can move: the first pod's answer is kept for the later ones."""
        return self.repo is not None and self.commit is None


def source_of(model: ModelDeployment, *, hub_endpoint: str | None) -> Source:
    """The source of `model`; `hub_endpoint` is the hub that the operator was installed with."""
    hub, claim = model.spec.model.hugging_face, model.spec.model.persistent_volume_claim
    if hub is not None:
        endpoint = hub.endpoint or hub_endpoint
        return Source(
            key=digest([hub.repo, hub.revision, endpoint]),
            directory="/models/model",
            repo=hub.repo,
            revision=hub.revision,
            endpoint=endpoint,
        )
    assert claim is not None, "the model has exactly one source"  # noqa: S101  # narrows a validated value
    path = claim.path.strip("/")
    return Source(
        key=digest([claim.claim_name, path]), directory="/models/pvc" + (f"/{path}" if path else "")
    )
