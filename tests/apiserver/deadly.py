"""Kills the operator at its writes: just before one reaches the API server, or just after it was done."""

from collections import Counter
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from tests.apiserver.fault_proxy import Exchange, Fault

When = Literal["before", "after"]
Choose = Callable[[str], When | None]
"""Whether to kill the operator at a write, told as "PATCH services/rerank-m #2"."""


class Deadly(Fault):
    """Passes everything on, and kills where `choose` says so.

    Attributes:
        choose: asked at each write.
        points: the writes that there were.
        kills: at which of them it was killed, and when.
        at_work: the operator that lives now has asked for more than the Lease.
        shut: the operator was killed; nothing of what it asked before gets through.
    """

    def __init__(self, kill: Callable[[], None], *, namespace: str) -> None:
        self.choose: Choose = lambda _: None
        self.points: list[str] = []
        self.kills: list[str] = []
        self.at_work = False
        self.shut = False
        self._kill = kill
        self._namespace = namespace
        self._counts: Counter[str] = Counter()

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.asked
        if not self._lives():
            return exchange.break_off()
        self.at_work |= not asked.is_lease
        if not asked.is_write:
            return await exchange.pass_on()
        what = asked.what.replace(self._namespace, "<namespace>")
        self._counts[what] += 1
        point = f"{what} #{self._counts[what]}"
        self.points.append(point)
        when = self.choose(point)
        if when == "before":
            self.strike(f"before {point}")
            return exchange.break_off()
        answer = await exchange.upstream()
        if when == "after":
            self.strike(f"after {point}")
        return answer if self._lives() else exchange.break_off()

    def strike(self, what: str) -> None:
        """Kill it now. One that is killed already does not hear of this write either."""
        self.kills.append(what)
        if not self.shut:
            self.shut = True
            self._kill()

    def _lives(self) -> bool:
        return not self.shut

    def reopen(self) -> None:
        """Another operator is about to start."""
        self.shut = self.at_work = False
