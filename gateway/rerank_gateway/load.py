"""How busy the models are, as seen by this gateway: `GET /load` on the internal port."""

from collections.abc import Iterable
from typing import Any

import orjson

from rerank_gateway.latency import LatencyFigures
from rerank_gateway.model_load import ModelLoad
from rerank_gateway.state import State


def page(process: str, state: State, loads: Iterable[ModelLoad]) -> bytes:
    """The answer, as JSON.

    `{"process", "models": [{"namespace", "name", "replicas": [{"address", "tokensInFlight"}]}]}`, and beside
    the replicas of a model that was asked for since this gateway started what `ModelLoad` has, in camelCase.
    Tokens are estimates, of this gateway's own requests alone: the load of a model is the sum over all
    gateways.
    """
    asked = {load.model: _load(load) for load in loads}
    return orjson.dumps(
        {
            "process": process,
            "models": [
                {
                    "namespace": model.id.namespace,
                    "name": model.id.name,
                    "replicas": [
                        {
                            "address": replica.address.authority,
                            "tokensInFlight": replica.tokens_in_flight,
                        }
                        for replica in state.replicas(model.id)
                    ],
                    **asked.get(model.id, {}),
                }
                for model in state.all_models()
            ],
        }
    )


def _load(load: ModelLoad) -> dict[str, Any]:
    return {
        "queuedRequests": load.queued_requests,
        "queuedDocuments": load.queued_documents,
        "queuedTokens": load.queued_tokens,
        "runningTokens": load.running_tokens,
        "heldRequests": load.held_requests,
        "tokensPerSecond": load.tokens_per_second,
        "measuredSecondsAgo": load.measured_seconds_ago,
        "readTokens": load.read_tokens,
        "idleSeconds": load.idle_seconds,
        "latency": None if load.latency is None else _latency(load.latency),
    }


def _latency(figures: LatencyFigures) -> dict[str, Any]:
    return {
        "medianSeconds": figures.median_seconds,
        "p95Seconds": figures.p95_seconds,
        "requests": figures.requests,
        "secondsAgo": figures.seconds_ago,
    }
