"""`/openapi.json` and `/docs`: the public paths described for people and generators.

FastAPI serves both; the paths are raw routes (`app.py`), so their description is built here from models
that exist to be read.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

_REF: Final = "#/components/schemas/{model}"


class TextDocument(BaseModel):
    """A document as an object; other fields of it are ignored."""

    text: str


class RerankBody(BaseModel):
    """Texts to rank. Unknown fields are ignored, null means absent."""

    model: Annotated[str, Field(description="A model's name, alias or repository id.")]
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
        bool | None, Field(description="Whether results carry their document; true when absent.")
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


class RerankAnswer(BaseModel):
    """Results from best to worst, ties in the order of the request."""

    id: str
    object: Annotated[Literal["list"] | None, Field(description="On /v1 paths only.")] = None
    model: str
    results: list[Result]
    usage: Usage
    meta: Meta


class Model(BaseModel):
    """A model that the key may call."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Annotated[str, Field(description="The namespace.")]
    root: Annotated[str | None, Field(description="The repository id.")]
    aliases: list[str]
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


_ERRORS: Final = {
    400: "The request is invalid; `error.param` names the field, as `documents[3]` where that is too long "
    "for a model that refuses instead of cutting.",
    401: "No key, or one that is not valid.",
    403: "The key may not call this model.",
    404: "The model does not exist.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    502: "The model failed.",
    503: "No replica is ready; `Retry-After` says when to ask again.",
    504: "The model did not answer in time.",
}


def documentation(version: str) -> FastAPI:
    """The application behind `/openapi.json` and `/docs`."""
    app = FastAPI(
        title="rerank-gateway", version=version, docs_url="/docs", redoc_url=None, openapi_url="/openapi.json"
    )
    description = _description(version)
    app.openapi = lambda: description  # type: ignore[method-assign]
    return app


def _description(version: str) -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "validation") for model in (RerankBody, RerankAnswer, ModelList, Error)], ref_template=_REF
    )
    rerank = {
        "summary": "Rank documents by their relevance to a query",
        "requestBody": {"required": True, "content": _json("RerankBody")},
        "responses": _responses("RerankAnswer", _ERRORS),
    }
    models = {
        "summary": "List the models that this key may call",
        "responses": _responses("ModelList", {401: _ERRORS[401]}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-gateway", "version": version},
        "paths": {
            "/v1/rerank": {"post": {**rerank, "operationId": "rerank"}},
            "/rerank": {"post": {**rerank, "operationId": "rerank_plain"}},
            "/v1/models": {"get": {**models, "operationId": "models"}},
            "/models": {"get": {**models, "operationId": "models_plain"}},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}],
    }


def _responses(schema: str, failures: dict[int, str]) -> dict[str, Any]:
    return {
        "200": {"description": "Success", "content": _json(schema)},
        **{str(code): {"description": text, "content": _json("Error")} for code, text in failures.items()},
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}
