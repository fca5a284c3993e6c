from pathlib import Path

import pytest

from rerank_gateway import config
from rerank_gateway.config import InvalidSettingsError, Settings


def test_nothing_set_means_the_defaults() -> None:
    assert config.from_environment({"RERANK_WATCH_NAMESPACES": "", "RERANK_DRAIN_SECONDS": ""}) == Settings()


def test_everything_set() -> None:
    environment = {
        "RERANK_WATCH_NAMESPACES": "a, b,",
        "RERANK_BACKEND_TOKEN_FILE": "/token/master",
        "RERANK_MAX_BODY_BYTES": "1024",
        "RERANK_REQUEST_TIMEOUT_SECONDS": "2.5",
        "RERANK_DRAIN_SECONDS": "0",
        "RERANK_USAGE_WAIT_SECONDS": "7",
        "RERANK_ACCESS_LOG_SAMPLE": "0.25",
        "RERANK_METRICS_KEYS": "10",
        "RERANK_MAX_IN_FLIGHT_BYTES": "2048",
        "RERANK_AUTH_MAX_STALENESS_SECONDS": "60",
        "RERANK_LOG_LEVEL": "warning",
        "RERANK_NAMESPACE": "rerank-system",
        "RERANK_PART_TOKENS": "4096",
        "RERANK_MAX_QUEUED_DOCUMENTS": "10",
        "RERANK_MAX_QUEUE_SECONDS": "1.5",
        "RERANK_HOLD_SECONDS": "0",
        "RERANK_MAX_HELD_REQUESTS": "3",
        "RERANK_SCORE_CACHE_BYTES": "0",
    }
    assert config.from_environment(environment) == Settings(
        namespaces=("a", "b"),
        backend_token_file=Path("/token/master"),
        max_body_bytes=1024,
        max_in_flight_bytes=2048,
        request_timeout_seconds=2.5,
        drain_seconds=0.0,
        usage_wait_seconds=7.0,
        access_log_sample=0.25,
        metrics_keys=10,
        auth_max_staleness_seconds=60.0,
        log_level="warning",
        own_namespace="rerank-system",
        part_tokens=4096,
        max_queued_documents=10,
        max_queue_seconds=1.5,
        hold_seconds=0.0,
        max_held_requests=3,
        score_cache_bytes=0,
    )


def test_no_more_than_every_request_is_logged() -> None:
    with pytest.raises(InvalidSettingsError, match="RERANK_ACCESS_LOG_SAMPLE: expected a number from 0 to 1"):
        config.from_environment({"RERANK_ACCESS_LOG_SAMPLE": "1.1"})


def test_a_wrong_log_level_is_named() -> None:
    with pytest.raises(
        InvalidSettingsError, match="RERANK_LOG_LEVEL: expected info, warning, error, got 'INFO'"
    ):
        config.from_environment({"RERANK_LOG_LEVEL": "INFO"})


_NUMBERS = [
    "PART_TOKENS",
    "MAX_QUEUED_DOCUMENTS",
    "MAX_QUEUE_SECONDS",
    "HOLD_SECONDS",
    "MAX_HELD_REQUESTS",
    "SCORE_CACHE_BYTES",
    "MAX_BODY_BYTES",
    "REQUEST_TIMEOUT_SECONDS",
    "DRAIN_SECONDS",
    "USAGE_WAIT_SECONDS",
    "ACCESS_LOG_SAMPLE",
    "METRICS_KEYS",
    "MAX_IN_FLIGHT_BYTES",
    "AUTH_MAX_STALENESS_SECONDS",
]


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e400"])
@pytest.mark.parametrize("name", _NUMBERS)
def test_a_wrong_number_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidSettingsError, match=f"RERANK_{name}"):
        config.from_environment({f"RERANK_{name}": text})


def test_the_largest_body_must_find_room() -> None:
    with pytest.raises(InvalidSettingsError, match=r"RERANK_MAX_IN_FLIGHT_BYTES.*RERANK_MAX_BODY_BYTES"):
        config.from_environment({"RERANK_MAX_BODY_BYTES": "60000000"})


def test_keys_stay_confirmed_between_two_watches() -> None:
    with pytest.raises(InvalidSettingsError, match=r"RERANK_AUTH_MAX_STALENESS_SECONDS.*at least 60"):
        config.from_environment({"RERANK_AUTH_MAX_STALENESS_SECONDS": "59"})
