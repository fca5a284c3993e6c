"""Keys are made, handed out and taken back in an order that a crash at any point leaves sound."""

import asyncio
import base64
import copy
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rerank_api import keys
from rerank_api.api_key import APIKey
from rerank_operator.api_error import ApiError
from rerank_operator.claims import Claims
from rerank_operator.events import Notice
from rerank_operator.key_lifecycle import MAX_HASHES
from rerank_operator.key_reconciler import (
    CHECK_SECONDS,
    SECRET_SECONDS,
    KeyReconciler,
    known_hashes,
)
from rerank_operator.key_secret import refusal
from rerank_operator.listed import Listed
from rerank_operator.resources import Object, Resource

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Crash(Exception):  # noqa: N818  # an end, not an error
    """The process died."""


class Server:
    """APIKeys and Secrets as an API server keeps them.

    Attributes:
        crash: at which write the process dies, and whether before or after it.
        stale: what is read in place of what is there.
    """

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], Object] = {}
        self.secrets: dict[str, Object] = {}
        self.crash: tuple[int, bool] | None = None  # before or after which write
        self.writes = 0
        self.refusal: ApiError | None = None
        self.stale: dict[tuple[str, str], Object] = {}
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)

    def apply_key(self, name: str = "k", *, namespace: str = "team", created: int = 0, **spec: Any) -> None:
        old = self.keys.get((namespace, name))
        fresh: Object = {"name": name, "namespace": namespace, "uid": f"key-{name}"}
        metadata = old["metadata"] if old else fresh
        metadata["creationTimestamp"] = (START + timedelta(seconds=created)).isoformat()
        metadata["generation"] = metadata.get("generation", 0) + 1
        metadata["resourceVersion"] = str(next(self._versions))
        status = old["status"] if old else {}
        self.keys[namespace, name] = {"metadata": metadata, "spec": spec, "status": status}

    def parsed(self, name: str = "k", namespace: str = "team") -> APIKey:
        return APIKey.parse(self.keys[namespace, name])

    def in_secret(self, name: str = "k") -> str:
        return base64.b64decode(self.secrets[name]["data"]["key"]).decode()

    # What the reconciler uses of Cluster

    async def get(self, _: Resource, namespace: str, name: str) -> Object | None:
        return copy.deepcopy((self.keys | self.stale).get((namespace, name)))

    async def pages(self, _: Resource, namespace: str | None) -> Any:
        for body in list((self.keys | self.stale).values()):
            yield copy.deepcopy(body)

    async def confirm(self, _: Resource, live: Object) -> None:
        there = self.keys[live["metadata"]["namespace"], live["metadata"]["name"]]
        if live["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")

    async def apply_status(self, resource: Resource, live: Object, status: Object) -> Object:
        there = self.keys[live["metadata"]["namespace"], live["metadata"]["name"]]

        def write() -> None:
            there["status"] = status
            there["metadata"]["resourceVersion"] = str(next(self._versions))

        await self.confirm(resource, live)
        self._write(write)
        return copy.deepcopy(there)

    async def apply_secret(
        self, intent: Object, *, field_manager: str, resource_version: str | None, dry_run: bool = False
    ) -> Object:
        if self.refusal is not None:
            raise self.refusal
        name = intent["metadata"]["name"]
        found = self.secrets.get(name) or {"uid": f"secret-{next(self._uids)}"}
        if resource_version is not None and resource_version != found.get("resourceVersion", ""):
            raise ApiError(409, "Conflict", "the object has been modified")
        if not dry_run:
            found = {**found, "data": intent["data"], "resourceVersion": str(next(self._versions))}
            self._write(lambda: self.secrets.update({name: found}))
        return {key: found[key] for key in ("uid", "resourceVersion") if key in found}

    async def delete_secret(
        self, namespace: str, name: str, *, uid: str, resource_version: str | None
    ) -> None:
        def write() -> None:
            there = self.secrets.get(name, {})
            if (there.get("uid"), there.get("resourceVersion")) == (uid, resource_version):
                del self.secrets[name]

        self._write(write)

    def _write(self, write: Any) -> None:
        self.writes += 1
        at, before = self.crash or (0, False)
        if at == self.writes and before:
            raise Crash
        write()
        if at == self.writes:
            raise Crash


class Told:
    """A recorder that keeps what it was told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def record(self, _: APIKey, found: list[Notice]) -> None:
        self.reasons += [notice.reason for notice in found]


class World:
    """A server, and the process that looks at its APIKeys."""

    def __init__(self) -> None:
        self.server = Server()
        self.now = START
        self.told = Told()
        self.start()

    def start(self) -> None:
        self.woken: list[tuple[str, str]] = []
        self.listed = Listed(self.server, ())  # type: ignore[arg-type]  # plays what of a Cluster is asked here
        self.reconciler = KeyReconciler(
            api=self.server,  # type: ignore[arg-type]
            listed=self.listed,
            recorder=self.told,  # type: ignore[arg-type]
            claims=Claims(known_hashes(self.listed)),
            wake=lambda namespace, name: self.woken.append((namespace, name)),
            clock=lambda: self.now,
        )

    def look(self, name: str = "k", namespace: str = "team", *, after: float = 0) -> float | None:
        self.now += timedelta(seconds=after)
        return asyncio.run(self.reconciler.reconcile(namespace, name))

    def accepts(self, text: str, name: str = "k") -> bool:
        key = self.server.parsed(name)
        known = [entry for entry in key.status.hashes if entry.sha256 == keys.digest(text)]
        return any(
            e.not_before <= self.now and (e.expires_at is None or self.now < e.expires_at) for e in known
        )

    def reason(self, kind: str, name: str = "k", namespace: str = "team") -> str:
        status = self.server.parsed(name, namespace).status
        (found,) = [c.reason for c in status.conditions if c.type == kind]
        return found

    def message(self, kind: str) -> str:
        (found,) = [c.message for c in self.server.parsed().status.conditions if c.type == kind]
        return found


@pytest.fixture
def world() -> World:
    return World()


SCENARIO: list[tuple[str, dict[str, Any], float]] = [
    ("a first key", {}, 0),
    ("a second version", {"version": 2}, 10),
    ("another Secret", {"version": 2, "secret": {"name": "other"}}, 10),
    ("both at once", {"version": 3, "secret": {"name": "third"}}, 10),
    ("shown for a while", {"version": 4, "secret": {"name": "third", "ttlSeconds": 60}}, 10),
    ("its end", {"version": 4, "secret": {"name": "third", "ttlSeconds": 60}}, 60),
    ("the overlap's end", {"version": 4, "secret": {"name": "third", "ttlSeconds": 60}}, 86_400),
]


def test_a_crash_before_or_after_any_write_leaves_keys_that_work() -> None:
    """And the same end: what can be read is accepted at every moment, and no Secret is left over."""
    writes = run(World(), None).server.writes
    assert writes == 2 + 3 + 4 + 4 + 3 + 2 + 1
    for crash in itertools.product(range(1, writes + 1), (True, False)):
        world = run(World(), crash)
        status = world.server.parsed().status
        assert status.version == 4
        assert world.server.secrets == {}, crash
        assert world.reason("Ready") == "Active"
        alive = [entry for entry in status.hashes if entry.expires_at is None or entry.expires_at > world.now]
        assert 1 <= len(alive) <= 2, crash


def run(world: World, crash: tuple[int, bool] | None) -> World:
    server, held = world.server, ""
    server.crash = crash
    for what, spec, seconds in SCENARIO:
        server.apply_key(**spec)
        world.now += timedelta(seconds=seconds)
        for _ in range(3):
            try:
                world.look()
            except Crash:
                world.start()
            known = server.parsed().status.hashes
            for secret in server.secrets:
                if known:  # the first key is read before it is known, and there is no other to fall back to
                    assert world.accepts(server.in_secret(secret)), (what, crash)
            if held and what != "the overlap's end":
                assert world.accepts(held), (what, crash)
        held = held or server.in_secret()
    return world


SHOWN: dict[str, Any] = {"secret": {"name": "k", "ttlSeconds": 60}}
OVERTAKEN: list[tuple[list[dict[str, Any]], dict[str, Any], float]] = [
    ([{}], {}, 0),
    ([{}, {"version": 2}], {"version": 2}, 0),
    ([{}, {"secret": {"name": "other"}}], {"secret": {"name": "third"}}, 0),
    ([SHOWN, SHOWN], {"version": 2, **SHOWN}, 61),
]


@pytest.mark.parametrize(
    ("before", "after", "seconds"), OVERTAKEN, ids=["the first", "a new version", "another Secret", "the end"]
)
def test_a_look_that_was_overtaken_touches_no_secret(
    world: World, before: list[dict[str, Any]], after: dict[str, Any], seconds: float
) -> None:
    """It saw an older APIKey than there is: of an API server behind the others, or long ago."""
    *earlier, last = before
    for spec in earlier:
        world.server.apply_key(**spec)
        world.look()
    world.server.apply_key(**last)
    stale = copy.deepcopy(world.server.keys)
    world.look()
    world.server.apply_key(**after)
    world.look(after=seconds)
    secrets = copy.deepcopy(world.server.secrets)
    world.server.stale = stale
    with pytest.raises(ApiError, match="modified"):
        world.look()
    assert world.server.secrets == secrets
    world.server.stale = {}
    world.look()
    assert all(world.accepts(world.server.in_secret(name)) for name in world.server.secrets)


def test_a_first_key_whose_apikey_changes_meanwhile_is_taken_back(world: World) -> None:
    """The next look hands one out where it is wanted then, and would not know of this one."""
    world.server.apply_key(secret={"name": "first"})
    world.server.stale = copy.deepcopy(world.server.keys)
    world.server.apply_key(secret={"name": "second"})
    with pytest.raises(ApiError, match="modified"):
        world.look()
    assert world.server.secrets == {}
    world.server.stale = {}
    world.look()
    assert list(world.server.secrets) == ["second"]
    assert world.accepts(world.server.in_secret("second"))


def test_a_look_at_a_settled_key_writes_nothing(world: World) -> None:
    world.server.apply_key()
    world.look()
    writes = world.server.writes
    for _ in range(5):
        world.look(after=CHECK_SECONDS + 1)
    assert world.server.writes == writes
    assert world.told.reasons == ["KeyWritten"]


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"version": 2},
        {"version": 2, "secret": {"name": "other"}},
        {"secret": {"name": "other"}},
        {"secret": {"ttlSeconds": 60}},
        {"hashes": [{"sha256": "a" * 64}]},
        {"disabled": True},
        {"expiresAt": (START - timedelta(days=1)).isoformat()},
    ],
    ids=str,
)
def test_one_look_does_all_that_there_is_to_do(world: World, edit: dict[str, Any]) -> None:
    """So the events of its own writes need no other."""
    for spec in ({}, edit):
        world.server.apply_key(**spec)
        world.look()
        writes, told = world.server.writes, list(world.told.reasons)
        world.look()
        assert (world.server.writes, world.told.reasons) == (writes, told)


def test_a_secret_that_vanished_comes_back_with_another_key(world: World) -> None:
    world.server.apply_key()
    world.look()
    former = world.server.in_secret()
    world.server.secrets.clear()
    assert world.look(after=CHECK_SECONDS - 1) is None
    assert not world.server.secrets, "asked for no oftener"
    world.look(after=1)
    assert world.server.in_secret() != former
    assert world.accepts(world.server.in_secret())
    assert world.accepts(former), "whoever took it over elsewhere is not locked out"
    assert world.told.reasons == ["KeyWritten", "SecretLost"]


def test_a_secret_of_somebody_else_in_its_place_is_told_until_it_is_gone(world: World) -> None:
    world.server.apply_key()
    world.look()
    world.server.secrets.clear()
    world.server.refusal = ApiError(422, "Invalid", "type: field is immutable")
    for _ in range(3):
        assert world.look(after=CHECK_SECONDS) == SECRET_SECONDS
        assert world.message("Provisioned") == (
            "the Secret was refused: type: field is immutable; take back what was changed, or remove Secret"
            ' "k": a new key is made'
        )
    assert world.reason("Ready") == "Active", "the key works on"
    writes = world.server.writes
    world.start()
    assert world.look(after=1) == SECRET_SECONDS
    assert world.server.writes == writes
    world.server.refusal = None
    world.look(after=SECRET_SECONDS)
    assert world.reason("Provisioned") == "SecretWritten"


def test_a_secret_that_vanishes_again_and_again_leaves_a_way_out_that_works(world: World) -> None:
    world.server.apply_key()
    world.look()
    for _ in range(MAX_HASHES):
        world.server.secrets.clear()
        world.look(after=CHECK_SECONDS)
    assert world.server.secrets == {}
    assert world.reason("Provisioned") == "TooManyKeys"
    assert world.message("Provisioned") == (
        "7 keys are accepted already: raise spec.version, which makes a new one and gives the former ones an"
        " end"
    )
    world.server.apply_key(version=2, overlapSeconds=60)
    world.look()
    assert world.accepts(world.server.in_secret())
    assert world.reason("Provisioned") == "SecretWritten"
    world.look(after=60)
    assert world.message("Ready") == "1 key is accepted"


def test_a_new_version_that_cannot_be_written_changes_nothing(world: World) -> None:
    world.server.apply_key()
    world.look()
    former = world.server.in_secret()
    world.server.apply_key(version=2)
    world.server.refusal = ApiError(403, "Forbidden", "exceeded quota")
    assert world.look() == SECRET_SECONDS
    assert world.reason("Provisioned") == "SecretRefused"
    assert [entry.sha256 for entry in world.server.parsed().status.hashes] == [keys.digest(former)]
    writes = world.server.writes
    world.look(after=SECRET_SECONDS)
    assert world.server.writes == writes, "not even an attempt"
    world.server.refusal = None
    world.look(after=SECRET_SECONDS)
    assert world.server.in_secret() != former


def test_of_two_keys_with_one_hash_the_newer_says_so_until_the_older_goes(world: World) -> None:
    own = [{"sha256": "a" * 64}]
    world.server.apply_key("new", created=-5, hashes=own)
    world.server.apply_key("old", created=-60, hashes=own)
    world.look("new")
    world.look("old")
    assert world.woken == [("team", "new")]
    world.look("new")
    assert world.reason("Ready", "new") == "HashTaken"
    assert world.reason("Ready", "old") == "Active"

    world.start()
    world.look("new")
    assert world.reason("Ready", "new") == "HashTaken", "a restart does not forget"

    del world.server.keys["team", "old"]
    world.look("new")  # the end of the older one went unseen
    assert world.reason("Ready", "new") == "Active"


def test_the_end_of_the_older_key_wakes_the_newer(world: World) -> None:
    own = [{"sha256": "a" * 64}]
    world.server.apply_key("new", created=-5, hashes=own)
    world.server.apply_key("old", created=-60, namespace="elsewhere", hashes=own)
    world.look("old", "elsewhere")
    world.look("new")
    del world.server.keys["elsewhere", "old"]
    world.woken.clear()
    world.look("old", "elsewhere")
    assert world.woken == [("team", "new")]


def refused(error: ApiError, **status: Any) -> tuple[str, str] | None:
    body = {"metadata": {"name": "search", "namespace": "team"}, "spec": {"secret": {"name": "search-key"}}}
    verdict = refusal(APIKey.parse(body | {"status": status}), error)
    assert verdict is None or (verdict.type, verdict.status) == ("Provisioned", "False")
    return (verdict.reason, verdict.message) if verdict else None


CLAIMED = ApiError(
    409, "Conflict", "conflict with kubectl: .data.key", causes=frozenset({"FieldManagerConflict"})
)
FROZEN = ApiError(422, "Invalid", "data: field is immutable")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CLAIMED, "SecretNameTaken"),
        (FROZEN, "SecretNameTaken"),
        (ApiError(403, "Forbidden", "exceeded quota"), "SecretRefused"),
        (ApiError(403, "Forbidden", "", causes=frozenset({"NamespaceTerminating"})), None),
        (ApiError(409, "Conflict", "the object has been modified"), None),
        (ApiError(500, "InternalError", ""), None),
        (ApiError(0, "Unreachable", ""), None),
    ],
)
def test_which_refusals_are_told(error: ApiError, reason: str | None) -> None:
    told = refused(error)
    assert (told and told[0]) == reason


@pytest.mark.parametrize("error", [CLAIMED, FROZEN])
def test_a_secret_of_ours_is_not_called_somebody_else_s(error: ApiError) -> None:
    told = refused(error, secretName="search-key", secretUID="u")
    assert told is not None
    assert told[0] == "SecretRefused"
    assert error.message in told[1]
    elsewhere = refused(error, secretName="former", secretUID="u")
    assert elsewhere is not None
    assert elsewhere[0] == "SecretNameTaken"
