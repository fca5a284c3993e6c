from collections.abc import AsyncIterator

import pytest_asyncio

from rerank_api import backend_token
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, MINTED, Running, running, slice_of


@pytest_asyncio.fixture(loop_scope="session")
async def engine() -> AsyncIterator[FakeEngine]:
    """A replica of the model minilm in namespace default."""
    async with FakeEngine(token=backend_token.token(MASTER, "default")) as engine:
        yield engine


@pytest_asyncio.fixture(loop_scope="session")
async def second() -> AsyncIterator[FakeEngine]:
    """Another replica, not yet known to the gateway."""
    async with FakeEngine(token=backend_token.token(MASTER, "default")) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared() -> AsyncIterator[Running]:
    """One gateway for all tests: starting and stopping one for each would take most of the time."""
    async with running() as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def empty(shared: Running) -> Running:
    """A gateway that knows one key and no model."""
    shared.source.clear()
    shared.source.put(objects.api_key(MINTED))
    return shared


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(empty: Running, engine: FakeEngine) -> Running:
    """A gateway with one key, one model and one replica."""
    empty.source.put(objects.model(), *slice_of([engine]))
    return empty


@pytest_asyncio.fixture(loop_scope="session")
async def pair(gateway: Running, engine: FakeEngine, second: FakeEngine) -> Running:
    """The same with two replicas."""
    gateway.source.put(*slice_of([engine, second]))
    return gateway
