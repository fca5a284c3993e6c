"""`GET /v1/models`: the models that a key may call."""

import time
from typing import Any

import orjson

from rerank_gateway.auth import Authenticator
from rerank_gateway.exchange import Exchange
from rerank_gateway.records import ModelRecord
from rerank_gateway.state import State


class Models:
    """The list, in the shape of OpenAI's with what a caller of a reranker wants to know besides."""

    def __init__(self, state: State, auth: Authenticator) -> None:
        self._state = state
        self._auth = auth

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request.

        Raises:
            ApiError: the refusal to send.
        """
        key = exchange.key = self._auth.authenticate(exchange.head.credential, time.time())
        namespace = key.id.namespace
        models = [
            self._entry(model, namespace) for model in self._state.models(namespace) if key.allows(model)
        ]
        listed = {"object": "list"} if exchange.path.startswith("/v1/") else {}
        await exchange.respond(200, orjson.dumps({**listed, "data": models}))

    def _entry(self, model: ModelRecord, namespace: str) -> dict[str, Any]:
        """One model as it is called from `namespace`: a shared one by the name that stays its own.

        `aliases` are the other names that lead to it from there.
        """
        name = model.seen_from(namespace)
        aliases = [
            alias
            for alias in (model.id.name, *model.aliases)
            if alias != name and self._state.resolve(namespace, alias) is model
        ]
        return {
            "id": name,
            "object": "model",
            "created": int(model.created),
            "owned_by": model.id.namespace,
            "root": model.repo,
            "aliases": aliases,
            "ready": bool(self._state.replicas(model.id)),
            "category": "reranker",
            "max_model_len": model.context_length,
        }
