"""Settings of the gateway, read once from the environment by `main.py`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOG_LEVELS: Final = ("info", "warning", "error")
# A quiet watch is confirmed every 20 s; one that breaks is replaced within 30 s.
_LEAST_STALENESS_SECONDS: Final = 60


class InvalidSettingsError(Exception):
    """The environment does not make sense; the message names the variable and what it should hold."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespaces` empty means all. Times are in seconds, sizes in bytes.

    `drain_seconds`: how long a stopping gateway keeps serving, so that every proxy in the cluster has
    time to stop sending to it. A pod's grace period must exceed it by `request_timeout_seconds`, and by
    `usage_wait_seconds`: how long a gateway that has answered its last request waits until its counts of
    usage are saved. `access_log_sample` is the part of the requests that are logged, but for those that
    failed (5xx), which all are. `metrics_keys` keys have metrics of their own.
    `max_in_flight_bytes`: of all requests and answers that are held at once. A request takes up to four
    times its body's size of memory.
    `auth_max_staleness_seconds`: how long keys are accepted that the source has not confirmed meanwhile.
    `log_level`: the least severe lines that are logged, one of `LOG_LEVELS`; the access log is "info".
    `own_namespace`: where to find the other gateways, who share keys' limits; None for a gateway by itself.
    `part_tokens`: about the work of one engine step; larger requests are split into parts of it.
    `max_queued_documents`, `max_queue_seconds`: of one model's queue; what would wait longer is refused.
    `hold_seconds`, `max_held_requests`: how long a request waits for the first replica of a model that is
    about to have one, and how many may in all.
    `score_cache_bytes`: for the scores of all models that have theirs kept.
    """

    namespaces: tuple[str, ...] = ()
    backend_token_file: Path | None = None
    max_body_bytes: int = 10 * 1024 * 1024
    max_in_flight_bytes: int = 100 * 1024 * 1024
    request_timeout_seconds: float = 60.0
    drain_seconds: float = 15.0
    usage_wait_seconds: float = 0.0
    access_log_sample: float = 1.0
    metrics_keys: int = 1000
    auth_max_staleness_seconds: float = 900.0
    log_level: str = "info"
    own_namespace: str | None = None
    part_tokens: int = 8192
    max_queued_documents: int = 20_000
    max_queue_seconds: float = 30.0
    hold_seconds: float = 30.0
    max_held_requests: int = 256
    score_cache_bytes: int = 64 * 1024 * 1024


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the `RERANK_*` variables.

    Raises:
        InvalidSettingsError: a variable does not hold what it should.
    """
    namespaces = environment.get("RERANK_WATCH_NAMESPACES", "")
    token_file = environment.get("RERANK_BACKEND_TOKEN_FILE", "")
    defaults = Settings()
    settings = Settings(
        namespaces=tuple(name.strip() for name in namespaces.split(",") if name.strip()),
        backend_token_file=Path(token_file) if token_file else None,
        max_body_bytes=int(_number(environment, "RERANK_MAX_BODY_BYTES", defaults.max_body_bytes, least=1)),
        request_timeout_seconds=_number(
            environment, "RERANK_REQUEST_TIMEOUT_SECONDS", defaults.request_timeout_seconds, least=0.001
        ),
        drain_seconds=_number(environment, "RERANK_DRAIN_SECONDS", defaults.drain_seconds, least=0),
        usage_wait_seconds=_number(
            environment, "RERANK_USAGE_WAIT_SECONDS", defaults.usage_wait_seconds, least=0
        ),
        access_log_sample=_number(
            environment, "RERANK_ACCESS_LOG_SAMPLE", defaults.access_log_sample, least=0, most=1
        ),
        metrics_keys=int(_number(environment, "RERANK_METRICS_KEYS", defaults.metrics_keys, least=0)),
        max_in_flight_bytes=int(
            _number(environment, "RERANK_MAX_IN_FLIGHT_BYTES", defaults.max_in_flight_bytes, least=1)
        ),
        auth_max_staleness_seconds=_number(
            environment,
            "RERANK_AUTH_MAX_STALENESS_SECONDS",
            defaults.auth_max_staleness_seconds,
            least=_LEAST_STALENESS_SECONDS,
        ),
        log_level=_log_level(environment.get("RERANK_LOG_LEVEL", "")),
        own_namespace=environment.get("RERANK_NAMESPACE") or None,
        part_tokens=int(_number(environment, "RERANK_PART_TOKENS", defaults.part_tokens, least=1)),
        max_queued_documents=int(
            _number(environment, "RERANK_MAX_QUEUED_DOCUMENTS", defaults.max_queued_documents, least=1)
        ),
        max_queue_seconds=_number(
            environment, "RERANK_MAX_QUEUE_SECONDS", defaults.max_queue_seconds, least=0.001
        ),
        hold_seconds=_number(environment, "RERANK_HOLD_SECONDS", defaults.hold_seconds, least=0),
        max_held_requests=int(
            _number(environment, "RERANK_MAX_HELD_REQUESTS", defaults.max_held_requests, least=0)
        ),
        score_cache_bytes=int(
            _number(environment, "RERANK_SCORE_CACHE_BYTES", defaults.score_cache_bytes, least=0)
        ),
    )
    if settings.max_in_flight_bytes < 2 * settings.max_body_bytes:
        raise InvalidSettingsError(
            f"RERANK_MAX_IN_FLIGHT_BYTES: {settings.max_in_flight_bytes} is less than twice "
            f"RERANK_MAX_BODY_BYTES, {settings.max_body_bytes}: a body of that size would find no room"
        )
    return settings


def _log_level(text: str) -> str:
    level = text or "info"
    if level not in LOG_LEVELS:
        raise InvalidSettingsError(f"RERANK_LOG_LEVEL: expected {', '.join(LOG_LEVELS)}, got {text!r}")
    return level


def _number(
    environment: Mapping[str, str],
    name: str,
    default: float,
    *,
    least: float,
    most: float = sys.float_info.max,
) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise InvalidSettingsError(f"{name}: expected a number, got {text!r}") from None
    if not least <= value <= most:
        bound = f"of at least {least:g}" if most == sys.float_info.max else f"from {least:g} to {most:g}"
        raise InvalidSettingsError(f"{name}: expected a number {bound}, got {text!r}")
    return value
