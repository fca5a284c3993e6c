"""What the tests against a real API server share."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dev.cluster.access import Access
from tests.apiserver.api import RERANK, Api, catalog_entry, eventually, with_crds
from tests.apiserver.operator_process import AuditLog, Operator, install_rights

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api(control_plane: Access) -> Api:
    """The API server with the CRDs."""
    return with_crds(Api(control_plane))


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own. The controller manager empties it afterwards."""
    name = f"test-{next(_numbers)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    eventually(
        "the namespace has its service account",
        lambda: api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"),
    )
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def operator(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator, running. A test that stops it leaves that to be seen by the next one, which starts it."""
    operator = Operator(api, tmp_path_factory.mktemp("operator"), install_rights(api))
    yield operator
    if operator.process is not None:
        operator.stop()


@pytest.fixture
def running(operator: Operator) -> Operator:
    """The operator, running and leading."""
    if operator.process is None:
        operator.start()
    return operator


@pytest.fixture
def built_in(api: Api, operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The operator with two built-in entries yet to be made; others' tests start it without them."""
    if operator.process is not None:
        operator.stop()
    for name in ("built-in-a", "built-in-b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(catalog_entry(name)))
        if api.find(f"{RERANK}/catalogmodels/{name}"):
            api.delete(f"{RERANK}/catalogmodels/{name}")
    operator.environment["RERANK_CATALOG_DIR"] = str(tmp_path)
    yield operator
    del operator.environment["RERANK_CATALOG_DIR"]
    if operator.process is not None:
        operator.stop()


def _is_open(transport: asyncio.Transport) -> bool:
    return bool(transport.get_extra_info("socket").fileno() != -1)


@pytest.fixture
async def connections_end() -> AsyncIterator[None]:
    """The test is over when its connections are.

    The end of TLS waits for the other side's word; a loop that is gone before leaves a socket that warns when
    it is collected, in whichever test runs then.
    """
    yield
    transports = vars(asyncio.get_running_loop())["_transports"]
    async with asyncio.timeout(30):
        while any(_is_open(transport) for transport in list(transports.values())):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def audit(control_plane: Access) -> AuditLog:
    """The API server's audit log, as far as it is about the operator."""
    return AuditLog(control_plane.audit_log)
