"""Has everything looked at once in a while, for events that never came. Started by `main` on the leader."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

import structlog

from rerank_operator import resources
from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.handlers import API_KEY, MODEL, Key
from rerank_operator.queue import KeyedQueue

EVERY_SECONDS: Final = 600.0
# The looks are spread over so long, that they are never a burst.
SPREAD_SECONDS: Final = 300.0

_KINDS: Final = ((MODEL, resources.MODEL_DEPLOYMENT), (API_KEY, resources.API_KEY))

_log = structlog.get_logger()


@dataclass(slots=True)
class Resync:
    """Asks for a look at each resource that there is, and at each that was looked at and is gone.

    Of the latter kopf tells nothing where it missed the deletion, and what is kept of them would stay.

    Attributes:
        api: lists the resources.
        queue: where looks are asked for.
        namespaces: the watched ones; none: all.
        looked: what was looked at since it was last asked for; the workers add to it.
    """

    api: Cluster
    queue: KeyedQueue[Key]
    namespaces: tuple[str, ...]
    looked: set[Key] = field(default_factory=set)
    _gone: set[Key] = field(default_factory=set)

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.ask()

    async def ask(self) -> None:
        """Ask for all looks, to come within SPREAD_SECONDS. What cannot be listed waits for the next time."""
        looked, self.looked = self.looked, set()
        gone: set[Key] = set()
        for namespace in self.namespaces or (None,):
            for kind, resource in _KINDS:
                before = {key for key in looked if key[0] == kind and namespace in {None, key[1]}}
                try:
                    there = {
                        (kind, item["metadata"]["namespace"], item["metadata"]["name"])
                        async for item in self.api.pages(resource, namespace, metadata_only=True)
                    }
                except ApiError as error:
                    _log.warning("a resync was cut short", kind=kind, namespace=namespace, error=str(error))
                    self.looked |= before
                    continue
                gone |= before - there
                # What was gone the last time was looked at since, for that alone.
                for key in there | (before - there - self._gone):
                    self.queue.add_after(key, random.uniform(0, SPREAD_SECONDS))  # noqa: S311  # spreads load
        self._gone = gone
