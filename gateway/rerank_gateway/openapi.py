"""`/openapi.json` and `/docs`: the public paths described for people and generators.

FastAPI serves both; the paths are raw routes (`app.py`), so their description is built here.
"""

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rerank_gateway import wire
from rerank_gateway.dialects import paths

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final = (
    wire.RerankBody,
    wire.RerankAnswer,
    wire.VoyageBody,
    wire.VoyageAnswer,
    wire.TeiBody,
    wire.TeiEntry,
    wire.ScoreBody,
    wire.ScoreAnswer,
    wire.ModelList,
    wire.Error,
)


_ERRORS: Final = {
    400: "The request is invalid; `error.param` names the field, as `documents[3]` where that is too long "
    "for a model that refuses instead of cutting.",
    401: "No key, or one that is not valid.",
    403: "The key may not call this model.",
    404: "The model does not exist.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The key is at one of its limits; `Retry-After` says for how long. The headers `x-ratelimit-*` say "
    "what is left, as they do on every ranking for a key with limits.",
    502: "The model failed.",
    503: "Overloaded, or no replica is ready; `error.code` says which, `Retry-After` when to ask again.",
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
    _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    in_path = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    models = {
        "summary": "List the models that this key may call",
        "responses": _responses(_ref(wire.ModelList), {401: _ERRORS[401]}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-gateway", "version": version},
        "paths": {
            "/v1/rerank": {"post": {**_RANK, "operationId": "rerank"}},
            "/rerank": {"post": {**_RANK, "operationId": "rerank_plain"}},
            "/v2/rerank": {"post": {**_RANK_V2, "operationId": "rerank_v2"}},
            paths.PER_MODEL: {"post": {**_RANK, "operationId": "rerank_with_model", "parameters": [in_path]}},
            "/v1/score": {"post": {**_SCORE, "operationId": "score"}},
            "/score": {"post": {**_SCORE, "operationId": "score_plain"}},
            "/v1/models": {"get": {**models, "operationId": "models"}},
            "/models": {"get": {**models, "operationId": "models_plain"}},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The key as the password, for clients that have a place for a URL only.",
                },
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}, {"basic": []}],
    }


def _responses(schema: Json, failures: dict[int, str]) -> Json:
    error = _json(_ref(wire.Error))
    return {
        "200": {"description": "Success", "content": _json(schema)},
        **{str(code): {"description": text, "content": error} for code, text in failures.items()},
    }


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _post(summary: str, bodies: list[type[BaseModel]], answers: list[Json]) -> Json:
    """An operation whose answer has the dialect of its body."""
    body = {"anyOf": [_ref(model) for model in bodies]} if len(bodies) > 1 else _ref(bodies[0])
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": _responses({"anyOf": answers} if len(answers) > 1 else answers[0], _ERRORS),
    }


_RANKING: Final = "Rank documents by their relevance to a query"
_RANK: Final = _post(
    _RANKING,
    [wire.RerankBody, wire.VoyageBody, wire.TeiBody],
    [
        _ref(wire.RerankAnswer),
        _ref(wire.VoyageAnswer),
        {"type": "array", "items": _ref(wire.TeiEntry)},
    ],
)
_RANK_V2: Final = _post(_RANKING, [wire.RerankBody], [_ref(wire.RerankAnswer)])
_SCORE: Final = _post("Score pairs of texts", [wire.ScoreBody], [_ref(wire.ScoreAnswer)])
