"""What goes over the wire, as models that exist to be read: `openapi.py` describes the paths with them.

The data path uses none of them; tests hold real answers against them.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

_CACHED: Final = (
    "How many documents' scores were known from before (spec.scoring.cacheScores). Their tokens are not in "
    "the usage. Absent where none was."
)


class TextDocument(BaseModel):
    """A document as an object; other fields of it are ignored."""

    text: str


class Body(BaseModel):
    """What every body holds. Unknown fields are ignored, null means absent."""

    model: Annotated[
        str | None,
        Field(description="A model's name, alias or repository id; not needed where the path names it."),
    ] = None


class RerankBody(Body):
    """Texts to rank, as Jina's, vLLM's, GPUStack's and Cohere's clients send them."""

    query: Annotated[str, Field(min_length=1, description="What the documents are compared with.")]
    documents: Annotated[list[str | TextDocument], Field(min_length=1, description="The texts to rank.")]
    top_n: Annotated[int | None, Field(ge=0, description="How many results to return; all when absent.")] = (
        None
    )
    max_tokens_per_doc: Annotated[
        int | None,
        Field(
            ge=0,
            description="Cut longer documents to so many tokens. The model's own limits hold besides: what "
            "is longer than those is cut too, or refused with 400, as the model's owner has it.",
        ),
    ] = None
    return_documents: Annotated[
        bool | None,
        Field(description="Whether results carry their document; when absent true, on /v2 false."),
    ] = None
    rank_fields: Annotated[
        list[str] | None,
        Field(description='Which fields of object documents are ranked, ["text"] when absent.'),
    ] = None


class VoyageBody(Body):
    """The same as Voyage's clients send it: known by `top_k` or `truncation`."""

    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | TextDocument], Field(min_length=1)]
    top_k: Annotated[int | None, Field(ge=0, description="How many results to return; all when absent.")] = (
        None
    )
    truncation: Annotated[
        bool | None, Field(description="False: refuse the request where a text would be cut.")
    ] = None
    return_documents: Annotated[
        bool | None, Field(description="Whether results carry their document; false when absent.")
    ] = None


class TeiBody(Body):
    """The same as clients of text-embeddings-inference send it: known by `texts`."""

    query: Annotated[str, Field(min_length=1)]
    texts: Annotated[list[str | TextDocument], Field(min_length=1)]
    truncate: Annotated[
        bool | None, Field(description="False: refuse the request where a text would be cut.")
    ] = None
    return_text: Annotated[
        bool | None, Field(description="Whether entries carry their text; false when absent.")
    ] = None
    raw_scores: Annotated[
        Literal[False] | None, Field(description="How scores are scaled is the model's.")
    ] = None


Texts = Annotated[
    str | TextDocument | list[str | TextDocument], Field(description="One text, or a list of them.")
]


class ScoreBody(Body):
    """Pairs of texts: one with each of many, or as many with as many, under one of four pairs of names."""

    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    max_tokens_per_doc: Annotated[
        int | None, Field(ge=0, description="Cut longer second texts to so many tokens.")
    ] = None


class Result(BaseModel):
    """One document's place in the ranking."""

    index: Annotated[int, Field(description="The document's place in the request, from 0.")]
    relevance_score: float
    document: TextDocument | None = None


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(BaseModel):
    """The dialect that the answer speaks."""

    version: str


class BilledUnits(BaseModel):
    """Cohere's unit: one query with up to 100 documents."""

    search_units: int


class Tokens(BaseModel):
    """Tokens that the model read, where Cohere's clients look for them."""

    input_tokens: int


class Truncated(BaseModel):
    """What was too long and cut at its end."""

    documents: Annotated[
        list[int], Field(description="Places in the request of the documents that were cut, 100 at most.")
    ]
    count: Annotated[int, Field(description="How many documents were cut.")]
    query: Annotated[bool, Field(description="Whether the query was cut too; absent where it was not.")] = (
        False
    )


class Meta(BaseModel):
    """Accounting in Cohere's shape, and what was cut."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    truncated: Annotated[Truncated | None, Field(description="Absent where nothing was cut.")] = None
    cached: Annotated[int | None, Field(description=_CACHED)] = None


class RerankAnswer(BaseModel):
    """Results from best to worst, ties in the order of the request."""

    id: str
    object: Annotated[Literal["list"] | None, Field(description="On /v1 paths only.")] = None
    model: str
    results: list[Result]
    usage: Usage
    meta: Meta


class VoyageResult(BaseModel):
    """One document's place in the ranking."""

    index: int
    relevance_score: float
    document: str | None = None


class TotalTokens(BaseModel):
    """Tokens that the model read."""

    total_tokens: int


class VoyageAnswer(BaseModel):
    """Results from best to worst, for a body in Voyage's dialect."""

    object: Literal["list"]
    data: list[VoyageResult]
    model: str
    usage: TotalTokens


class TeiEntry(BaseModel):
    """One of the entries, from best to worst, that answer a body in the dialect of TEI."""

    index: int
    score: float
    text: str | None = None


class Score(BaseModel):
    """The score of a pair."""

    index: Annotated[int, Field(description="The pair's place in the request, from 0.")]
    object: Literal["score"]
    score: float


class ScoreUsage(Usage):
    """Tokens that the model read."""

    completion_tokens: Literal[0]


class ScoreMeta(BaseModel):
    """There only where something was cut, or known before."""

    truncated: Annotated[Truncated | None, Field(description="Absent where nothing was cut.")] = None
    cached: Annotated[int | None, Field(description=_CACHED)] = None


class ScoreAnswer(BaseModel):
    """Scores in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: ScoreUsage
    meta: ScoreMeta | None = None


class Model(BaseModel):
    """A model that the key may call."""

    id: Annotated[str, Field(description="The name to ask for; NAMESPACE/NAME for a shared model.")]
    object: Literal["model"]
    created: int
    owned_by: Annotated[str, Field(description="The namespace.")]
    root: Annotated[str | None, Field(description="The repository id.")]
    aliases: Annotated[list[str], Field(description="Other names that lead to it.")]
    ready: Annotated[bool, Field(description="Whether a replica is ready now.")]
    category: Literal["reranker"]
    max_model_len: Annotated[int | None, Field(description="Tokens of query and document together.")]


class ModelList(BaseModel):
    """Every model that the key may call."""

    object: Annotated[Literal["list"] | None, Field(description="On /v1 paths only.")] = None
    data: list[Model]


class ErrorDetail(BaseModel):
    """`param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    """The shape of every error: the superset that OpenAI, Cohere, Jina and Voyage clients can read."""

    error: ErrorDetail
    message: str
    detail: str
