"""Where a model's files come from."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from rerank_api.resource import SpecModel

RepositoryName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
]
Revision = Annotated[str, Field(min_length=1, max_length=200)]
# A pattern for one file, as a shell would read it.
FilePattern = Annotated[str, Field(min_length=1, max_length=200)]
CatalogName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class SecretKeyReference(SpecModel):
    """A key of a Secret in the ModelDeployment's own namespace."""

    name: str
    key: str = "token"


class HuggingFaceSource(SpecModel):
    """A repository of a hub that speaks the Hugging Face protocol. `file` picks one GGUF file of it."""

    repo: RepositoryName
    revision: Revision = "main"
    file: FilePattern | None = None
    token_secret_ref: SecretKeyReference | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$", max_length=500)] | None = (
        None
    )


class PersistentVolumeClaimSource(SpecModel):
    """A folder with the model's files on a claim in the ModelDeployment's own namespace."""

    claim_name: str
    path: Annotated[str, Field(max_length=1000)] = ""


class ImageSource(SpecModel):
    """A folder with the model's files in an OCI image that the node mounts. `reference` ends in a digest."""

    reference: Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$", max_length=512)]
    path: Annotated[str, Field(max_length=1000)] = ""


class ModelSource(SpecModel):
    """Where the model's files come from: exactly one source. `catalog` is the name of a CatalogModel."""

    catalog: CatalogName | None = None
    hugging_face: HuggingFaceSource | None = None
    persistent_volume_claim: PersistentVolumeClaimSource | None = None
    image: ImageSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        sources = (self.catalog, self.hugging_face, self.persistent_volume_claim, self.image)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "spec.model: set exactly one of catalog, huggingFace, persistentVolumeClaim and image"
            )
        return self
