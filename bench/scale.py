"""How the operator fares with thousands of resources, on a real etcd, API server, controllers and scheduler.

CPU is the processes' own (user and system). Time depends on the machine: everything shares its cores.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import markdown
from bench.crowd import Crowd, Maker
from bench.programs import Program
from bench.tally import READS, TRIES, WRITES, Tally
from dev.cluster import processes, temporary
from dev.cluster.access import Access
from dev.cluster.control_plane import PARTS, ControlPlane
from tests.apiserver.api import Api, with_crds
from tests.apiserver.operator_process import AuditLog, Operator, install_rights

SIZES: Final = (100, 500, 1000, 2000)
_PATIENCE_SECONDS: Final = 1800.0
# Half a minute without a write: the controllers have told all that they had to.
_CALM_SECONDS: Final = 30.0
# So long without a look, and all have been taken.
_LOOKED_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 600.0
_FOUND: Final = """\
The resources are applied while the operator is down; the time is from the start of its process until
every resource has a status of its newest generation, with all children there. One replica is wanted and
no node is there: every model gets a Pending pod. All programs share the machine's cores. Events
that wait until nothing else does are not waited for. Goals: 180 s and 200 MiB for the last line, and lines in
proportion."""
_ASKED: Final = """\
Counted from the audit log, the Lease left out. "try" is a dry run."""
_LATER: Final = """\
The controller manager makes ReplicaSets and pods at its usual 20 requests a second; the operator
posts the Events that waited, and follows until the last write. Then come the idle minutes; goal: 0 writes. A
restart is done when everything was looked at; goal: 0 writes. Last, as many resources applied while the
operator runs, from the first request."""
# By what there is one of for each. Of budgets there are none: no model has more than one replica.
_CHILDREN: Final = {
    "/apis/apps/v1/deployments": "models",
    "/api/v1/services": "models",
    "/api/v1/configmaps": "models",
    "/apis/policy/v1/poddisruptionbudgets": None,
    "/apis/networking.k8s.io/v1/networkpolicies": "models",
    "/api/v1/secrets": "keys",
}


@dataclass(frozen=True)
class Row:
    """What it took until every resource was settled. `cpu` is in seconds by program."""

    crowd: Crowd
    seconds: float
    cpu: dict[str, float]
    peak_bytes: int
    resident_bytes: int
    requests: dict[tuple[str, str], int]

    def count(self, verbs: Collection[str], resource: str = "") -> int:
        """Requests with these verbs, about one resource or all."""
        return sum(
            count
            for (verb, about), count in self.requests.items()
            if verb in verbs and resource in {"", about.partition("/")[0]}
        )


@dataclass
class World:
    """A control plane of its own, with the operator's rights and the operator."""

    plane: ControlPlane
    operator: Operator
    maker: Maker
    tally: Tally

    @property
    def program(self) -> Program:
        """The operator's process."""
        assert self.operator.process is not None
        return Program(self.operator.process.pid, self.operator.port)

    def cpu(self) -> dict[str, float]:
        """Seconds by program, since each began."""
        found = {"operator": self.program.cpu_seconds()} if self.operator.process is not None else {}
        for name in PARTS:
            record = processes.read_record(processes.pid_file(self.plane.layout, name))
            assert record is not None
            found[name] = Program(record.pid, 0).cpu_seconds()
        return found

    def spent(self, before: dict[str, float]) -> dict[str, float]:
        """Seconds by program since then."""
        return {name: seconds - before.get(name, 0.0) for name, seconds in self.cpu().items()}

    def make(self, crowd: Crowd) -> None:
        asyncio.run(self.maker.make(crowd))

    def bring_up(self, crowd: Crowd) -> Row:
        """Start the operator, and wait until all that is there is settled."""
        before, begun = self.cpu(), time.monotonic()
        self.tally.skip()
        self.operator.start(ready=False)
        asyncio.run(self._settled(crowd))
        row = self._row(crowd, begun, before)
        self._check(crowd)
        return row

    def keep_up(self, crowd: Crowd) -> Row:
        """Make the crowd while the operator runs, and wait until all of it is settled."""
        self.operator.start()
        before, begun = self.cpu(), time.monotonic()
        self.tally.skip()

        async def both() -> None:
            await asyncio.gather(self.maker.make(crowd), self._settled(crowd))

        asyncio.run(both())
        row = self._row(crowd, begun, before)
        self._check(crowd)
        return row

    def restart(self, crowd: Crowd) -> Row:
        """Start the operator anew where all is settled, and wait until it has looked at everything.

        A model is looked at for each of its objects that kopf lists, so that is when it asks no more.
        """
        self.operator.stop()
        before, begun = self.cpu(), time.monotonic()
        self.tally.skip()
        self.operator.start()
        while self.operator.metric("rerank_operator_reconciles_total") < crowd.models + crowd.keys:
            assert time.monotonic() - begun < _PATIENCE_SECONDS, "it does not look at everything"
            time.sleep(1)
        asked = -1
        while asked < (asked := self.tally.read().count("get")):
            assert time.monotonic() - begun < _PATIENCE_SECONDS, "it does not stop to look"
            time.sleep(_LOOKED_SECONDS)
        return self._row(crowd, begun + _LOOKED_SECONDS, before)

    def calm(self, crowd: Crowd) -> Row:
        """Wait until the last write, of what others do late."""
        before, begun = self.cpu(), time.monotonic()
        self.tally.skip()
        self.tally.written_at = begun
        while time.monotonic() - self.tally.read().written_at < _CALM_SECONDS:
            assert time.monotonic() - begun < _PATIENCE_SECONDS, "it does not stop to write"
            time.sleep(1)
        return self._row(crowd, begun + _CALM_SECONDS, before)

    def idle(self, crowd: Crowd) -> Row:
        """Ten minutes in which nothing happens."""
        before, begun = self.cpu(), time.monotonic()
        self.tally.skip()
        time.sleep(_IDLE_SECONDS)
        return self._row(crowd, begun, before)

    async def _settled(self, crowd: Crowd) -> None:
        """Wait for it, as long as the operator lives."""
        waiting = asyncio.create_task(self.maker.settled(crowd, seconds=_PATIENCE_SECONDS))
        while not (await asyncio.wait([waiting], timeout=1))[0]:
            if self.operator.process is None or self.operator.process.poll() is not None:
                waiting.cancel()
                raise RuntimeError(f"the operator ended: {self.operator.log()[-2000:]}")
        await waiting

    def _check(self, crowd: Crowd) -> None:
        """Settled means that the children are there, and no others."""
        for path, of in _CHILDREN.items():
            count, wanted = asyncio.run(self.maker.count(path)), getattr(crowd, of) if of else 0
            if count != wanted:
                raise RuntimeError(f"{path}: {count} of {wanted}")

    def _row(self, crowd: Crowd, begun: float, before: dict[str, float]) -> Row:
        seconds = time.monotonic() - begun
        return Row(
            crowd=crowd,
            seconds=seconds,
            cpu=self.spent(before),
            peak_bytes=self.program.peak_bytes(),
            resident_bytes=self.program.resident_bytes(),
            requests=dict(self.tally.read().requests),
        )


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A new one, whose operator does not run yet."""
    with tempfile.TemporaryDirectory() as folder, temporary.control_plane(Path(folder, "plane")) as plane:
        access = Access.to(plane)
        api = with_crds(Api(access))
        operator = Operator(api, Path(folder, "operator"), install_rights(api))
        try:
            yield World(
                plane, operator, Maker(access), Tally(access.audit_log, AuditLog(access.audit_log).user)
            )
        finally:
            if operator.process is not None:
                operator.stop()


def report() -> str:
    """Measure, and say it in Markdown."""
    curve = [_curve_at(models) for models in SIZES[:-1]]
    crowd = Crowd(SIZES[-1])
    with world() as place:
        place.make(crowd)
        curve.append(_told("found", place.bring_up(crowd)))
        later = [
            _told("the controllers go on", place.calm(crowd)),
            _told("ten idle minutes", place.idle(crowd)),
            _told("restarted", place.restart(crowd)),
        ]
    with world() as place:
        later.append(_told("applied while it runs", place.keep_up(crowd)))
    return "\n".join([_found(curve), _asked(curve[-1].row), _later(crowd, later)])


@dataclass(frozen=True)
class Told:
    """A measurement and what it is of."""

    what: str
    row: Row


def _curve_at(models: int) -> Told:
    crowd = Crowd(models)
    with world() as place:
        place.make(crowd)
        return _told("found", place.bring_up(crowd))


def _told(what: str, row: Row) -> Told:
    print(f"{row.crowd.models} models, {what}: {row}", flush=True)
    return Told(what, row)


def _found(curve: Sequence[Told]) -> str:
    rows = [told.row for told in curve]
    return markdown.part(
        "From applied to settled",
        _FOUND,
        (
            "models",
            "keys",
            "seconds",
            "operator CPU s",
            "API server, etcd CPU s",
            "controllers CPU s",
            "peak MiB",
            "reads",
            "writes",
        ),
        [
            (
                f"{row.crowd.models:,}",
                f"{row.crowd.keys:,}",
                f"{row.seconds:.0f}",
                f"{row.cpu['operator']:.1f}",
                f"{row.cpu['kube-apiserver'] + row.cpu['etcd']:.0f}",
                f"{row.cpu['kube-controller-manager'] + row.cpu['kube-scheduler']:.0f}",
                f"{row.peak_bytes / 2**20:.0f}",
                f"{row.count(READS):,}",
                f"{row.count(WRITES):,}",
            )
            for row in rows
        ],
    )


def _asked(row: Row) -> str:
    asked = sorted(row.requests.items(), key=lambda item: -item[1])
    return markdown.part(
        f"What {row.crowd.models:,} models and {row.crowd.keys:,} keys took",
        _ASKED,
        ("verb", "resource", "requests", "for each model", "for each key"),
        [
            (verb, about, f"{count:,}", f"{count / row.crowd.models:.2f}", f"{count / row.crowd.keys:.2f}")
            for (verb, about), count in asked
        ],
    )


def _later(crowd: Crowd, later: Sequence[Told]) -> str:
    return markdown.part(
        f"{crowd.models:,} models and {crowd.keys:,} keys otherwise",
        _LATER,
        (
            "",
            "seconds",
            "operator CPU s",
            "API server, etcd CPU s",
            "peak MiB",
            "now MiB",
            "reads",
            "tries",
            "writes",
        ),
        [
            (
                told.what,
                f"{told.row.seconds:.0f}",
                f"{told.row.cpu['operator']:.1f}",
                f"{told.row.cpu['kube-apiserver'] + told.row.cpu['etcd']:.0f}",
                f"{told.row.peak_bytes / 2**20:.0f}",
                f"{told.row.resident_bytes / 2**20:.0f}",
                f"{told.row.count(READS):,}",
                f"{told.row.count(TRIES):,}",
                f"{told.row.count(WRITES):,}",
            )
            for told in later
        ],
    )
