"""The gateway and the strict engine of `tests/rerank_gateway`."""

from tests.rerank_gateway.conftest import empty, engine, gateway, shared

__all__ = ["empty", "engine", "gateway", "shared"]
