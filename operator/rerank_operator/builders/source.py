"""The model's source as the pods get it: one value for a repository, a volume or an image."""

import re
from dataclasses import dataclass

from rerank_api.catalog_model import CatalogModel
from rerank_api.model_deployment import ModelDeployment
from rerank_api.model_source import HuggingFaceSource, SecretKeyReference
from rerank_operator.builders.metadata import digest

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from. `key` names it in the ConfigMap and on the pods.

    Attributes:
        directory: where the serving container finds the weights.
        repo: repository, None for a volume or an image.
        revision: branch, tag or commit, None for a volume or an image.
        file: pattern of the one GGUF file to take, None for the repository's choice.
        endpoint: the hub, None for the public one.
        token: Secret with the hub's token, if one was named.
        image: reference of the image that the node mounts, if that is the source.
    """

    key: str
    directory: str
    repo: str | None = None
    revision: str | None = None
    file: str | None = None
    endpoint: str | None = None
    token: SecretKeyReference | None = None
    image: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit, when the spec names one itself."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None

    @property
    def needs_pin(self) -> bool:
        """The revision is a name that can move: the first pod's answer is kept for the later ones."""
        return self.repo is not None and self.commit is None


def source_of(
    model: ModelDeployment,
    *,
    hub_endpoint: str | None,
    entry: CatalogModel | None = None,
    remote_code: bool = False,
) -> Source:
    """The source of `model`.

    Args:
        model: the resource.
        hub_endpoint: the hub that the operator was installed with.
        entry: the catalog entry that `model` names.
        remote_code: whether Python files belong to what is downloaded.
    """
    claim, image = model.spec.model.persistent_volume_claim, model.spec.model.image
    if claim is not None:
        path = claim.path.strip("/")
        return Source(key=digest([claim.claim_name, path]), directory=_inside("/models/pvc", path))
    if image is not None:
        path = image.path.strip("/")
        return Source(
            key=digest([image.reference, path]),
            directory=_inside("/models/image", path),
            image=image.reference,
        )
    hub = model.spec.model.hugging_face or _of(entry)
    endpoint = hub.endpoint or hub_endpoint
    more = {"file": hub.file} if hub.file else {}
    if remote_code:
        more["code"] = "remote"
    key = digest([hub.repo, hub.revision, endpoint, *([more] if more else [])])
    return Source(
        key=key,
        directory="/models/model",
        repo=hub.repo,
        revision=hub.revision,
        file=hub.file,
        endpoint=endpoint,
        token=hub.token_secret_ref,
    )


def _inside(mounted: str, path: str) -> str:
    return f"{mounted}/{path}" if path else mounted


def _of(entry: CatalogModel | None) -> HuggingFaceSource:
    assert entry is not None, "a model without a source of its own names an entry"  # noqa: S101  # narrows
    repository = entry.spec.source.hugging_face
    return HuggingFaceSource(repo=repository.repo, revision=repository.revision, file=repository.file)
