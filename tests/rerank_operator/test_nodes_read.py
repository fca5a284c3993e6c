"""How often the nodes of the cluster are read."""

from collections.abc import AsyncIterator
from typing import Any

from rerank_operator.api_error import ApiError
from rerank_operator.observe import FRESH_SECONDS, STALE_SECONDS, Nodes


class Api:
    """Nodes by name, and how often they were listed."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.lists = 0
        self.refuses = False

    async def pages(self, _resource: object, _namespace: None) -> AsyncIterator[dict[str, Any]]:
        self.lists += 1
        if self.refuses:
            raise ApiError(403, "Forbidden", "no")
        for name in self.names:
            yield {"metadata": {"name": name}, "status": {"allocatable": {}}}


async def test_a_list_serves_for_as_long_as_is_asked() -> None:
    api, now = Api("a"), 0.0
    nodes = Nodes(api=api, readable=True, clock=lambda: now)  # type: ignore[arg-type] # all that it uses
    for now in (0.0, STALE_SECONDS - 1, STALE_SECONDS + 1):  # noqa: B007 - the clock reads it
        await nodes.look(age=STALE_SECONDS, among=["a"])
    assert api.lists == 2


async def test_a_node_that_is_newer_than_the_list_is_read() -> None:
    api, now = Api("a"), 0.0
    nodes = Nodes(api=api, readable=True, clock=lambda: now)  # type: ignore[arg-type] # all that it uses
    await nodes.look(age=STALE_SECONDS)
    api.names.append("new")
    now = FRESH_SECONDS + 1
    found = await nodes.look(age=STALE_SECONDS, among=["new"])
    assert [node.name for node in found or ()] == ["a", "new"]
    assert api.lists == 2


async def test_who_may_not_read_nodes_does_not_ask_again_at_once() -> None:
    api, now = Api("a"), 0.0
    api.refuses = True
    nodes = Nodes(api=api, readable=True, clock=lambda: now)  # type: ignore[arg-type] # all that it uses
    for now in (0.0, FRESH_SECONDS + 1):  # noqa: B007 - the clock reads it
        assert await nodes.look(age=STALE_SECONDS, among=["a"]) is None
    assert api.lists == 1
