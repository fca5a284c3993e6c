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
from rerank_operator.usage_ledger import GONE_SECONDS, Ledger
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
    """Gateways at three places, two operators that may both believe to lead, and the objects."""

    now: float = 0.0
    gateways: dict[int, gateway_usage.Usage] = field(default_factory=dict)
    operators: list[Ledger] = field(default_factory=lambda: [Ledger(60.0), Ledger(60.0)])
    objects: dict[KeyRef, Usage | None] = field(
        default_factory=lambda: {KeyRef(*key.id, key.uid): None for key in KEYS}
    )
    used: Counter[str] = field(default_factory=Counter)
    """Requests by key."""
    may_be_lost: Counter[str] = field(default_factory=Counter)
    started: int = 0

    def gateway(self, place: int) -> gateway_usage.Usage:
        if place not in self.gateways:
            self.started += 1
            self.gateways[place] = gateway_usage.Usage(f"{self.started:016x}", told_apart=1)
        return self.gateways[place]

    def use(self, place: int, key: KeyRecord, model: ModelRecord) -> None:
        self.gateway(place).record(key, model, 200, documents=2, tokens=3, now=self.now)
        self.used[key.id.name] += 1

    def ask(self, operator: int, place: int) -> str | None:
        gateway, ledger = self.gateways.get(place), self.operators[operator]
        if gateway is None:
            return None
        position = ledger.position(gateway.process)
        query = {
            "process": gateway.process,
            "since": str(position.heard),
            "saved": str(position.saved),
        }
        report = usage_report.parse(gateway.page(query, "serving"))
        assert report is not None
        ledger.hear(report, self.now)
        return report.process

    def write(self, operator: int, *, cut: bool) -> None:
        """`cut`: the operator is killed after its first write, before it knows that it was carried out."""
        ledger = self.operators[operator]
        for ref in ledger.due(self.now, everything=True):
            reports = ledger.reports(ref)
            old = self.objects[ref]
            known = old.gateways if old else ()
            gone = {gateway.id for gateway in known if ledger.is_gone(gateway.id, self.now)}
            self.objects[ref] = fold(old, {name: report.rows for name, report in reports.items()}, gone)
            if cut:
                self.operators[operator] = Ledger(60.0)
                return
            ledger.settle(ref, reports, self.now, written=True)

    def round(self, operator: int) -> None:
        answered = {process for place in range(PLACES) if (process := self.ask(operator, place))}
        self.operators[operator].end_round(answered, self.now, complete=True)

    def kill(self, place: int) -> None:
        gateway = self.gateways.pop(place, None)
        if gateway is None:
            return
        for entry in gateway._keys.values():
            counted = sum(counts.requests for counts in entry.models.values())
            saved = self._saved(KeyRef(*entry.key.id, entry.key.uid), gateway.process)
            self.may_be_lost[entry.key.id.name] += counted - saved

    def _saved(self, ref: KeyRef, process: str) -> int:
        usage = self.objects[ref]
        found = [gateway for gateway in usage.gateways if gateway.id == process] if usage else []
        return sum(model.requests for gateway in found for model in gateway.models)

    def stop(self, place: int, operator: int) -> None:
        """Gracefully: asked until its counts are saved, which may take another operator than the first."""
        gateway = self.gateways.get(place)
        if gateway is None:
            return
        for _ in range(2):
            self.ask(operator, place)
            self.write(operator, cut=False)
        assert gateway._saved == gateway._version
        del self.gateways[place]

    def check(self, *, settled: bool = False) -> None:
        for key in KEYS:
            name = key.id.name
            usage = self.objects[KeyRef(*key.id, key.uid)] or Usage()
            assert usage.requests <= self.used[name], "nothing is counted twice"
            assert (usage.documents, usage.tokens) == (2 * usage.requests, 3 * usage.requests)
            assert usage.requests == sum(model.requests for model in usage.models)
            if settled:
                assert usage.requests >= self.used[name] - self.may_be_lost[name], "nothing else is lost"


places, operators = st.integers(0, PLACES - 1), st.integers(0, 1)
steps = st.one_of(
    st.tuples(st.just("use"), places, st.sampled_from(KEYS), st.sampled_from(MODELS)),
    st.tuples(st.just("ask"), operators, places),
    st.tuples(st.just("write"), operators, st.booleans()),
    st.tuples(st.just("round"), operators),
    st.tuples(st.just("kill operator"), operators),
    st.tuples(st.just("kill"), places),
    st.tuples(st.just("stop"), places, operators),
    st.tuples(st.just("time passes"), operators),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whatever_is_cut_off_the_totals_are_exact(story: list[Any]) -> None:
    world = World()
    for verb, *details in story:
        match verb:
            case "write":
                world.write(details[0], cut=details[1])
            case "kill operator":
                world.operators[details[0]] = Ledger(60.0)
            case "time passes":
                for _ in range(2):
                    world.round(details[0])
                    world.now += GONE_SECONDS
            case _:
                getattr(world, verb)(*details)
        world.check()
    for operator in (0, 1):
        world.round(operator)
        world.write(operator, cut=False)
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


def test_a_gateway_is_gone_when_all_others_answered_for_long() -> None:
    ledger = Ledger(60.0)
    heard(ledger, A, 0)
    ledger.end_round({A}, 0, complete=True)
    heard(ledger, B, 100)
    ledger.end_round({B}, 100, complete=True)
    assert not ledger.is_gone(A, GONE_SECONDS - 1)
    assert ledger.is_gone(A, GONE_SECONDS)
    assert ledger.is_gone(C, GONE_SECONDS)  # stands in an object, was never heard here
    assert not ledger.is_gone(B, GONE_SECONDS)
    ledger.end_round({B}, GONE_SECONDS, complete=False)  # somebody did not answer: it may be A
    assert not ledger.is_gone(A, 10 * GONE_SECONDS)


def test_nobody_is_gone_for_an_operator_that_just_started() -> None:
    ledger = Ledger(60.0)
    assert not ledger.is_gone(A, 10 * GONE_SECONDS)
    ledger.end_round({B}, 1000, complete=True)
    assert not ledger.is_gone(A, 1000 + GONE_SECONDS - 1)


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
    assert len(ledger._processes) < 5
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
