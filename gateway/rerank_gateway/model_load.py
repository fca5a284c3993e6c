"""How much a model has to do and how it copes, in plain numbers: for `/load`, which the operator reads."""

from dataclasses import dataclass

from rerank_gateway.latency import LatencyFigures
from rerank_gateway.records import ObjectId


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What this gateway knows of the load of one model. Tokens are estimates.

    Attributes:
        model: the ModelDeployment.
        queued_requests: requests that wait for a replica's free window, whole or with a part.
        queued_documents: their documents that are not sent yet.
        queued_tokens: the same in tokens.
        running_tokens: what replicas have been sent and not answered.
        held_requests: requests that wait for a first replica.
        tokens_per_second: what one replica does when it has all that it can take; None: not seen yet.
        measured_seconds_ago: how old `tokens_per_second` is.
        read_tokens: what replicas have read since this gateway first asked for the model; only grows.
        idle_seconds: since the last request came.
        latency: of its requests, each from its arrival; None: none was answered lately.
    """

    model: ObjectId
    queued_requests: int
    queued_documents: int
    queued_tokens: int
    running_tokens: int
    held_requests: int
    tokens_per_second: float | None
    measured_seconds_ago: float | None
    read_tokens: int
    idle_seconds: float
    latency: LatencyFigures | None
