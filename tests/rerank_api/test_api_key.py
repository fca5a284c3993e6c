from typing import Any

import pytest
from pydantic import ValidationError

from rerank_api.api_key import APIKey


def key(**spec: Any) -> APIKey:
    return APIKey.parse({"metadata": {"name": "search", "namespace": "default"}, "spec": spec})


def test_the_secret_is_named_after_the_key_unless_told() -> None:
    assert key().secret_name == "search"
    assert key(secret={"name": "other"}).secret_name == "other"


def test_absent_models_are_not_the_same_as_none() -> None:
    assert key().spec.models is None
    assert key(models=[]).spec.models == []


def test_an_expiry_has_a_time_zone() -> None:
    with pytest.raises(ValidationError, match="expiresAt"):
        key(expiresAt="2027-01-01T00:00:00")


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="limit"):
        key(limit={})
    with pytest.raises(ValidationError, match="requestsPerSecond"):
        key(limits={"requestsPerSecond": 1})


def test_limits_are_above_zero() -> None:
    assert key(limits={"tokensPerMinute": 1}).spec.limits is not None
    with pytest.raises(ValidationError, match="tokensPerMinute"):
        key(limits={"tokensPerMinute": 0})
