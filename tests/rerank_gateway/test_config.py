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
    }
    assert config.from_environment(environment) == Settings(("a", "b"), Path("/token/master"), 1024, 2.5, 0.0)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e400"])
@pytest.mark.parametrize("name", ["MAX_BODY_BYTES", "REQUEST_TIMEOUT_SECONDS", "DRAIN_SECONDS"])
def test_a_wrong_number_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidSettingsError, match=f"RERANK_{name}"):
        config.from_environment({f"RERANK_{name}": text})
