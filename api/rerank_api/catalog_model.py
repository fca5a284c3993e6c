"""CatalogModel: a recipe under a name. A test holds it together with `crds/`, the source of truth."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field

from rerank_api.model_source import FilePattern, RepositoryName, Revision
from rerank_api.recipe import Recipe
from rerank_api.resource import SpecModel, StatusModel

Word = Annotated[str, Field(min_length=1, max_length=64)]

_GIBIBYTES: Final = re.compile(r"([0-9]{1,4}([.][0-9]+)?) ?GiB")


class CatalogRepository(SpecModel):
    """A repository on the hub that the operator was installed with. `file` picks one GGUF file of it."""

    repo: RepositoryName
    revision: Revision = "main"
    file: FilePattern | None = None


class CatalogSource(SpecModel):
    """Where the model's files come from."""

    hugging_face: CatalogRepository


class CatalogModelSpec(SpecModel):
    """What the model is, and how it should run.

    Attributes:
        display_name: the name that people know it by.
        description: what it is good for, and why one would choose it.
        family: what the serving profile calls it, for example qwen3.
        license: the licence as its card names it; restrictions in plain words.
        languages: for a column, for example "en, zh" or "100+".
        parameters: number of weights for a column, for example 568M.
        context_length: most tokens of query and document together.
        memory: GPU memory that serving it takes at least, for a column, for example 2.3 GiB.
        defaults: what applies where a ModelDeployment does not say otherwise.
    """

    display_name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    family: Word
    license: Annotated[str, Field(min_length=1, max_length=128)]
    languages: Word
    parameters: Annotated[str, Field(pattern=r"^[0-9]+([.][0-9]+)?[KMB]$", max_length=16)]
    context_length: Annotated[int, Field(ge=1, le=1_048_576)]
    memory: Annotated[str, Field(min_length=1, max_length=32)]
    source: CatalogSource
    defaults: Recipe | None = None

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes, where it is a number of GiB."""
        found = _GIBIBYTES.fullmatch(self.memory)
        return round(float(found[1]) * 2**30) if found else None


class CatalogMetadata(StatusModel):
    """The part of `metadata` that decisions depend on."""

    name: str
    labels: dict[str, str] = {}


class CatalogModel(StatusModel):
    """A model with settings that suit it, cluster-wide: kind CatalogModel, short name `catalog`.

    Of the built-in ones the serving plan is tested, the real weights are not.
    """

    kind: ClassVar[str] = "CatalogModel"
    plural: ClassVar[str] = "catalogmodels"

    metadata: CatalogMetadata
    spec: CatalogModelSpec

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read an object as the API server returns it, or a document of a YAML file.

        Raises:
            pydantic.ValidationError: the object does not fit this version of the resource.
        """
        return cls.model_validate(body)
