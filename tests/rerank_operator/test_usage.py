"""Adding up what gateways counted: nothing twice, nothing lost, whoever is cut off when."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_api.api_key import LISTED_MODELS, OTHER_MODELS, GatewayUsage, ModelUsage, Usage
from rerank_gateway import usage as gateway_usage
from rerank_gateway.records import KeyRecord, ModelRecord, ObjectId
from rerank_operator import usage_report
from rerank_operator.usage import MAX_GATEWAYS, Counts, Rows, fold, last_used
from rerank_operator.usage_ledger import GONE_ROUNDS, GONE_SECONDS, Ledger
from rerank_operator.usage_report import KeyRef, KeyReport

A, B, C = "a" * 16, "b" * 16, "c" * 16


def usage(models: dict[str, tuple[int, ...]], **gateways: dict[str, tuple[int, ...]]) -> Usage:
    def rows(found: dict[str, tuple[int, ...]]) -> list[ModelUsage]:
        return [ModelUsage(name=name, **Counts(*counts)._asdict()) for name, counts in found.items()]

    total = [sum(column) for column in zip(*models.values(), strict=True)]
    return Usage(
        **Counts(*total)._asdict(),
        models=rows(models),
        gateways=[GatewayUsage(id=name, models=rows(found)) for name, found in gateways.items()],
    )


ONE = usage({"m": (5, 50, 500, 1)}, a={"m": (2, 20, 200, 0)})


@pytest.mark.parametrize(
    ("reports", "gone", "wanted"),
    [
        pytest.param({}, "", ONE, id="nothing is told"),
        pytest.param({"a": {"m": (2, 20, 200, 0)}}, "", ONE, id="nothing new"),
        pytest.param({"a": {}, "b": {}}, "", ONE, id="no counts"),
        pytest.param({"b": {"m": (0, 0, 0, 0)}}, "", ONE, id="counts of nothing"),
        pytest.param({"a": {"m": (1, 20, 100, 0)}}, "", ONE, id="a count that went down"),
        pytest.param({}, "a", ONE, id="a gateway that is gone is no reason to write"),
        pytest.param(
            {"a": {"m": (3, 25, 250, 4)}},
            "",
            usage({"m": (6, 55, 550, 5)}, a={"m": (3, 25, 250, 4)}),
            id="what is new is added",
        ),
        pytest.param(
            {"a": {"m": (3, 10, 250, 0)}},
            "",
            usage({"m": (6, 50, 550, 1)}, a={"m": (3, 20, 250, 0)}),
            id="each count for itself",
        ),
        pytest.param(
            {"b": {"n": (1, 1, 1, 0)}},
            "",
            usage({"m": (5, 50, 500, 1), "n": (1, 1, 1, 0)}, a={"m": (2, 20, 200, 0)}, b={"n": (1, 1, 1, 0)}),
            id="another gateway and another model",
        ),
        pytest.param(
            {"b": {"m": (1, 1, 1, 0)}},
            "a",
            usage({"m": (6, 51, 501, 1)}, b={"m": (1, 1, 1, 0)}),
            id="one that is gone leaves its part in the totals",
        ),
        pytest.param(
            {"a": {"m": (3, 20, 200, 0)}},
            "a",
            usage({"m": (6, 50, 500, 1)}, a={"m": (3, 20, 200, 0)}),
            id="one that still tells is not gone",
        ),
    ],
)
def test_adding_up(reports: dict[str, dict[str, tuple[int, ...]]], gone: str, wanted: Usage) -> None:
    found = {name: {m: Counts(*counts) for m, counts in rows.items()} for name, rows in reports.items()}
    result = fold(ONE, found, set(gone))
    assert result == wanted
    assert (result is ONE) == (wanted is ONE)


def test_the_first_use() -> None:
    assert fold(None, {}, set()) is None
    assert fold(None, {"a": {"m": Counts(1, 2, 3)}}, set()) == usage(
        {"m": (1, 2, 3, 0)}, a={"m": (1, 2, 3, 0)}
    )


def test_models_beyond_the_bound_stand_together() -> None:
    rows = {f"m-{number}": Counts(1, 1, 1) for number in range(LISTED_MODELS)}
    first = fold(None, {"a": rows}, set())
    second = fold(first, {"b": {"late": Counts(2), "later": Counts(3), "m-0": Counts(1)}}, set())
    assert second is not None
    assert len(second.models) == LISTED_MODELS + 1
    assert [(m.name, m.requests) for m in second.models if m.name in ("m-0", OTHER_MODELS)] == [
        ("m-0", 2),
        (OTHER_MODELS, 5),
    ]
    assert second.requests == LISTED_MODELS + 6


def test_a_gateway_cannot_make_the_object_grow() -> None:
    flood = {f"m-{number}": Counts(1) for number in range(10 * LISTED_MODELS)}
    found = fold(None, {"a": flood}, set())
    assert found is not None
    assert len(found.gateways[0].models) == LISTED_MODELS + 1


def test_too_many_gateways_wait_and_lose_nothing() -> None:
    many = {f"g-{number}": {"m": Counts(1)} for number in range(MAX_GATEWAYS)}
    full = fold(None, many, set())
    assert fold(full, {"late": {"m": Counts(7)}}, set()) is full
    found = fold(full, {"late": {"m": Counts(9)}}, {"g-0"})
    assert found is not None
    assert (found.requests, len(found.gateways)) == (MAX_GATEWAYS + 9, MAX_GATEWAYS)


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("previous", "reported", "wanted"),
    [
        (None, [], None),
        (None, [0.0], None),
        (None, [5.9, 3.0], datetime.fromtimestamp(5, UTC)),
        (NOW, [5.9], NOW),
        (NOW, [NOW.timestamp() + 99], NOW),
        (None, [NOW.timestamp() + 99], NOW),
    ],
)
def test_the_last_use(previous: datetime | None, reported: list[float], wanted: datetime | None) -> None:
    assert last_used(previous, reported, NOW) == wanted


# What happens to gateways and operators, in any order


KEYS = [KeyRecord(ObjectId("team", name), f"uid-{name}", 0, name, (), None, 9e9, False) for name in "xy"]
MODELS = [ModelRecord(ObjectId("team", name), 0, (name,), (), None, None) for name in ("m", "n")]
PLACES = 3


@dataclass
class World:
    """Gateways at three places, the operator that leads, and the objects.

    A leader's memory ends with it (lease.py), but its last request may arrive after the next one began.
    """

    now: float = 0.0
    gateways: dict[int, gateway_usage.Usage] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(60.0))
    objects: dict[KeyRef, tuple[int, Usage | None]] = field(
        default_factory=lambda: {KeyRef(*key.id, key.uid): (0, None) for key in KEYS}
    )
    """With their resourceVersion."""
    late: tuple[KeyRef, int, Usage | None] | None = None
    used: Counter[str] = field(default_factory=Counter)
    """Requests by key."""
    may_be_lost: Counter[str] = field(default_factory=Counter)
    started: int = 0

    def use(self, place: int, key: KeyRecord, model: ModelRecord) -> None:
        if place not in self.gateways:
            self.started += 1
            self.gateways[place] = gateway_usage.Usage(f"{self.started:016x}", told_apart=1)
        self.gateways[place].record(key, model, 200, documents=2, tokens=3, now=self.now)
        self.used[key.id.name] += 1

    def ask(self, place: int) -> str | None:
        gateway = self.gateways.get(place)
        if gateway is None:
            return None
        heard, saved = map(str, self.ledger.position(gateway.process))
        query = {"process": gateway.process, "since": heard, "saved": saved}
        report = usage_report.parse(gateway.page(query, "serving"))
        assert report is not None
        self.ledger.hear(report, self.now)
        return report.process

    def round(self) -> None:
        answered = {process for place in range(PLACES) if (process := self.ask(place))}
        self.ledger.end_round(answered, self.now, complete=True)

    def write(self) -> None:
        for ref in self.ledger.due(self.now, everything=True):
            reports = self.ledger.reports(ref)
            self._store(ref, *self._fold(ref))
            self.ledger.settle(ref, reports, self.now, written=True)

    def die_before_write(self) -> None:
        """The request is on its way, and may still arrive."""
        for ref in self.ledger.due(self.now, everything=True)[:1]:
            self.late = (ref, *self._fold(ref))
        self.ledger = Ledger(60.0)

    def die_after_write(self) -> None:
        """The request was carried out, and nobody knows."""
        self.die_before_write()
        self.late_write()

    def late_write(self) -> None:
        if self.late is not None:
            self._store(*self.late)
        self.late = None

    def _fold(self, ref: KeyRef) -> tuple[int, Usage | None]:
        version, old = self.objects[ref]
        known = old.gateways if old else ()
        gone = {gateway.id for gateway in known if self.ledger.is_gone(gateway.id)}
        rows = {name: report.rows for name, report in self.ledger.reports(ref).items()}
        return version, fold(old, rows, gone)

    def _store(self, ref: KeyRef, version: int, usage: Usage | None) -> None:
        if version == self.objects[ref][0]:
            self.objects[ref] = (version + 1, usage)

    def kill(self, place: int) -> None:
        gateway = self.gateways.pop(place, None)
        for entry in gateway._keys.values() if gateway else ():
            counted = sum(counts.requests for counts in entry.models.values())
            usage = self.objects[KeyRef(*entry.key.id, entry.key.uid)][1] or Usage()
            found = [rows for rows in usage.gateways if gateway and rows.id == gateway.process]
            saved = sum(model.requests for rows in found for model in rows.models)
            self.may_be_lost[entry.key.id.name] += counted - saved

    def stop(self, place: int) -> None:
        """Gracefully: asked until its counts are saved."""
        gateway = self.gateways.get(place)
        if gateway is None:
            return
        for _ in range(2):
            self.ask(place)
            self.write()
        assert gateway._saved == gateway._version
        del self.gateways[place]

    def time_passes(self) -> None:
        for _ in range(GONE_ROUNDS + 1):
            self.round()
            self.now += GONE_SECONDS / GONE_ROUNDS

    def sleep(self) -> None:
        """The operator does nothing for long."""
        self.now += 3 * GONE_SECONDS

    def check(self, *, settled: bool = False) -> None:
        for key in KEYS:
            name = key.id.name
            usage = self.objects[KeyRef(*key.id, key.uid)][1] or Usage()
            assert usage.requests <= self.used[name], "nothing is counted twice"
            assert (usage.documents, usage.tokens) == (2 * usage.requests, 3 * usage.requests)
            assert usage.requests == sum(model.requests for model in usage.models)
            if settled:
                assert usage.requests >= self.used[name] - self.may_be_lost[name], "nothing else is lost"


places = st.integers(0, PLACES - 1)
operator_steps = [
    "round",
    "write",
    "die_before_write",
    "die_after_write",
    "late_write",
    "time_passes",
    "sleep",
]
steps = st.one_of(
    st.tuples(st.just("use"), places, st.sampled_from(KEYS), st.sampled_from(MODELS)),
    st.tuples(st.sampled_from(["ask", "kill", "stop"]), places),
    st.tuples(st.sampled_from(operator_steps)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whatever_is_cut_off_the_totals_are_exact(story: list[Any]) -> None:
    world = World()
    for verb, *details in story:
        getattr(world, verb)(*details)
        world.check()
    world.round()
    world.write()
    world.check(settled=True)


# What is kept in memory


def heard(
    ledger: Ledger, process: str, now: float, *, version: int = 1, phase: str = "serving", **used: int
) -> None:
    reports = tuple(
        KeyReport(KeyRef("team", name, "u"), now, {"m": Counts(requests)}) for name, requests in used.items()
    )
    ledger.hear(usage_report.Report(process, phase, version, False, reports), now)


def write(ledger: Ledger, now: float) -> list[str]:
    due = ledger.due(now)
    for key in due:
        ledger.settle(key, ledger.reports(key), now, written=True)
    return [key.name for key in due]


def test_a_key_is_written_at_once_and_then_once_a_minute() -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0, x=1)
    assert write(ledger, 0) == ["x"]
    heard(ledger, A, 10, version=2, x=2, y=1)
    assert write(ledger, 10) == ["y"]
    ledger.end_round({A}, 10, complete=True)
    assert write(ledger, 59) == []
    assert write(ledger, 60) == ["x"]
    assert len(ledger) == 0


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_what_a_leaving_gateway_told_is_written_first_and_at_once(how: str) -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0, x=1)
    write(ledger, 0)
    heard(ledger, B, 1, z=1)
    heard(ledger, A, 1, version=2, phase="stopped" if how == "stopped" else "serving", x=2)
    ledger.end_round({A, B} if how == "stopped" else {B}, 1, complete=True)
    assert write(ledger, 1) == ["x", "z"]


def test_saved_is_said_when_objects_hold_all_that_was_heard() -> None:
    ledger = Ledger(60.0)
    assert ledger.position(A) == (0, 0)
    heard(ledger, A, 0, version=7, x=1)
    assert ledger.position(A) == (7, 0)
    write(ledger, 0)
    assert ledger.position(A) == (7, 7)


def test_what_was_told_during_a_write_is_still_to_be_written() -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0, x=1)
    (key,) = ledger.due(0)
    taken = ledger.reports(key)
    heard(ledger, A, 1, version=2, x=2)
    ledger.settle(key, taken, 1, written=True)
    assert ledger.reports(key)[A].rows == {"m": Counts(2)}
    assert ledger.position(A) == (2, 0)


def rounds(ledger: Ledger, *answered: str, since: float, until: float, count: int = GONE_ROUNDS) -> None:
    """`count` complete rounds after `since`, the last at `until`."""
    for number in range(1, count + 1):
        now = since + (until - since) * number / count
        for process in answered:
            heard(ledger, process, now)
        ledger.end_round(set(answered), now, complete=True)


def test_a_gateway_is_gone_when_all_others_answered_for_long() -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0)
    ledger.end_round({A}, 0, complete=True)
    rounds(ledger, B, since=0, until=GONE_SECONDS - 1, count=50)
    assert not ledger.is_gone(A)
    rounds(ledger, B, since=GONE_SECONDS - 1, until=GONE_SECONDS, count=1)
    assert ledger.is_gone(A)
    assert ledger.is_gone(C)  # stands in an object, was never heard here
    assert not ledger.is_gone(B)
    ledger.end_round({B}, GONE_SECONDS + 1, complete=False)  # somebody did not answer: it may be A
    assert not ledger.is_gone(A)


def test_nobody_is_gone_for_an_operator_that_just_started_or_slept() -> None:
    ledger = Ledger(60.0)
    assert not ledger.is_gone(A)
    heard(ledger, A, 1000)
    ledger.end_round({A, B}, 1000, complete=True)
    rounds(ledger, B, since=1000, until=1000 + 100 * GONE_SECONDS, count=GONE_ROUNDS - 1)
    assert not ledger.is_gone(A)
    assert not ledger.is_gone(C)


def test_a_gateway_that_drains_is_asked_more_often_until_it_is_gone() -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0)
    assert not ledger.hurried
    heard(ledger, A, 1, phase="draining")
    assert ledger.hurried
    ledger.end_round(set(), 2, complete=True)
    assert not ledger.hurried


def test_memory_is_given_back() -> None:
    ledger = Ledger(60.0)
    for number in range(50):
        process = f"{number:016x}"
        heard(ledger, process, number * 100.0, x=number)
        ledger.end_round({process}, number * 100.0, complete=True)
        write(ledger, number * 100.0)
    assert len(ledger._processes) <= GONE_ROUNDS + 1
    assert len(ledger._not_before) <= 1
    assert ledger._unsaved == {}


def rows(report: usage_report.Report) -> Rows:
    return report.keys[0].rows


def test_a_report_is_read() -> None:
    gateway = gateway_usage.Usage(A, told_apart=1)
    gateway.record(KEYS[0], MODELS[0], 200, documents=2, tokens=3, now=5.0)
    gateway.record(
        KEYS[0],
        ModelRecord(ObjectId("other", "m"), 0, (), (), None, None),
        429,
        documents=0,
        tokens=0,
        now=6.5,
    )
    report = usage_report.parse(gateway.page({}, "draining"))
    assert report is not None
    assert (report.process, report.phase, report.version, report.more) == (A, "draining", 2, False)
    (key,) = report.keys
    assert (key.key, key.last_used) == (KeyRef("team", "x", "uid-x"), 6.5)
    assert rows(report) == {"m": Counts(1, 2, 3, 0), "other/m": Counts(0, 0, 0, 1)}


GOOD = b'{"process":"%s","phase":"serving","version":1,"more":false,"keys":[%s]}'
KEY = b'{"namespace":"n","name":"k","uid":"u","lastUsed":1.0,"models":[%s]}'
ROW = b'{"name":"m","requests":1,"documents":1,"tokens":1,"rejected":0}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"process":',
        b"\xff\xfe",
        GOOD % (b"short", b""),
        GOOD % (b"../../../../../../etc", b""),
        GOOD % (A.encode(), KEY % ROW.replace(b'"requests":1', b'"requests":-1')),
        GOOD % (A.encode(), KEY % ROW.replace(b'"requests":1', b'"requests":1e30')),
        GOOD % (A.encode(), KEY % ROW.replace(b'"requests":1', b'"requests":"1"')),
        GOOD % (A.encode(), KEY % ROW.replace(b'"requests":1', b'"requests":true')),
        GOOD % (A.encode(), KEY % ROW.replace(b'"m"', b'"M m"')),
        GOOD % (A.encode(), KEY % ROW.replace(b'"m"', b'"%s"' % (b"m" * 200))),
        GOOD % (A.encode(), (KEY % ROW).replace(b'"k"', b'"../k"')),
        GOOD % (A.encode(), (KEY % ROW).replace(b'"u"', b'""')),
        GOOD % (A.encode(), (KEY % ROW).replace(b"1.0", b"1e300")),
        GOOD % (A.encode(), (KEY % ROW).replace(b"1.0", b"NaN")),
        GOOD % (A.encode(), KEY % b",".join([ROW] * (LISTED_MODELS + 2))),
        (GOOD % (A.encode(), b"")).replace(b"serving", b"dancing"),
    ],
)
def test_garbage_is_no_report(body: bytes) -> None:
    assert usage_report.parse(GOOD % (A.encode(), KEY % ROW)) is not None
    assert usage_report.parse(body) is None
