"""The pure parts: what is kept of objects, how names resolve."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_api import keys
from rerank_gateway import records
from rerank_gateway.balancer import Replica
from rerank_gateway.limits import Limits
from rerank_gateway.records import Kind, ObjectId
from rerank_gateway.state import State
from tests.rerank_gateway import objects
from tests.rerank_gateway.objects import Object

MODEL = ObjectId("default", "minilm")
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def state_of(*bodies: Object) -> State:
    state = State()
    put(state, *bodies)
    return state


def put(state: State, *bodies: Object) -> None:
    for body in bodies:
        kind = records.kind_of(body)
        state.put(kind, records.parse(kind, body))


def hosts(state: State, model: ObjectId = MODEL) -> list[str]:
    return sorted(replica.address.host for replica in state.replicas(model))


# Names


@pytest.mark.parametrize(
    ("models", "name", "found"),
    [
        ([objects.model("a", repo="o/r")], "a", "a"),
        ([objects.model("a", repo="o/r")], "o/r", "a"),
        ([objects.model("a", repo=None)], "o/r", None),
        ([objects.model("a", repo="o/r", catalog="entry")], "o/r", "a"),
        ([objects.model("a", repo="o/r", catalog="entry")], "entry", None),
        ([objects.model("a", repo=None, catalog="entry")], "o/r", None),
        ([objects.model("a", aliases=["b"]), objects.model("b")], "b", "b"),
        ([objects.model("a", repo="o/r"), objects.model("b", aliases=["o/r"])], "o/r", "b"),
        (
            [objects.model("b", repo="o/r", created=OLD), objects.model("a", repo="o/r", created=NEW)],
            "o/r",
            "b",
        ),
        ([objects.model("b", repo="o/r"), objects.model("a", repo="o/r")], "o/r", "a"),
        ([objects.model("a", repo="o/r", aliases=["o/r"]), objects.model("b", aliases=["o/r"])], "o/r", "a"),
        ([objects.model("a", aliases=["a", "a"])], "a", "a"),
        ([objects.model("a", namespace="other")], "a", None),
    ],
)
def test_how_names_resolve(models: list[Object], name: str, found: str | None) -> None:
    for order in (models, models[::-1]):
        model = state_of(*order).resolve("default", name)
        assert (model and model.id.name) == found


def test_a_name_goes_to_the_next_claim_when_its_model_goes() -> None:
    first, second = objects.model("a", aliases=["best"]), objects.model("b", aliases=["best"], created=NEW)
    state = state_of(second, first)
    state.remove(Kind.MODEL, ObjectId("default", "a"))
    model = state.resolve("default", "best")
    assert model is not None
    assert model.id.name == "b"
    put(state, objects.model("b", created=NEW))
    assert state.resolve("default", "best") is None


TEAM_A, TEAM_B = "team-a", "team-b"


def shared(name: str = "m", namespace: str = TEAM_A, **more: Any) -> Object:
    """A model of another namespace that keys of `default` may call."""
    return objects.model(name, namespace=namespace, shared_with=["default"], **{"repo": "o/r", **more})


@pytest.mark.parametrize(
    ("models", "name", "found"),
    [
        ([shared()], "m", "team-a/m"),
        ([shared()], "team-a/m", "team-a/m"),
        ([shared()], "o/r", "team-a/m"),
        ([shared(aliases=["best"])], "best", "team-a/m"),
        ([objects.model("m", namespace=TEAM_A)], "m", None),
        ([objects.model("m", namespace=TEAM_A)], "team-a/m", None),
        ([objects.model("m", namespace=TEAM_A, shared_with=[TEAM_B])], "team-a/m", None),
        ([objects.model("m", repo=None)], "default/m", "default/m"),
        # One's own come first, however they are named and however young they are.
        ([shared("m", created=OLD), objects.model("x", aliases=["m"], created=NEW)], "m", "default/x"),
        ([shared("x", created=OLD), objects.model("y", repo="o/r", created=NEW)], "o/r", "default/y"),
        (
            [shared("m", created=OLD), objects.model("x", repo="team-a/m", created=NEW)],
            "team-a/m",
            "default/x",
        ),
        ([shared("m"), objects.model("m")], "team-a/m", "team-a/m"),
        # Among shared ones: name, alias, repository; then age; then namespace.
        ([shared("x", aliases=["m"], created=OLD), shared("m", TEAM_B, created=NEW)], "m", "team-b/m"),
        ([shared("m", created=NEW), shared("m", TEAM_B, created=OLD)], "m", "team-b/m"),
        ([shared("m"), shared("m", TEAM_B)], "m", "team-a/m"),
        ([shared("m"), shared("m", TEAM_B)], "team-b/m", "team-b/m"),
        # Nobody takes another's qualified name.
        ([shared("m", TEAM_B), shared("x", aliases=["team-b/m"], created=OLD)], "team-b/m", "team-b/m"),
    ],
)
def test_how_names_of_shared_models_resolve(models: list[Object], name: str, found: str | None) -> None:
    for order in (models, models[::-1]):
        model = state_of(*order).resolve("default", name)
        assert (model and "/".join(model.id)) == found


def test_a_model_that_is_not_shared_any_more_is_gone_for_the_others_alone() -> None:
    state = state_of(shared())
    put(state, objects.model("m", namespace=TEAM_A))
    assert state.resolve("default", "m") is None
    assert state.models("default") == []
    assert state.resolve(TEAM_A, "m") is not None


def test_shared_models_are_listed_after_one_s_own() -> None:
    state = state_of(shared("a", TEAM_B), shared("z"), objects.model("m"))
    assert ["/".join(model.id) for model in state.models("default")] == ["default/m", "team-a/z", "team-b/a"]


@pytest.mark.parametrize(
    ("models", "own", "other"),
    [
        (None, True, True),
        ([], False, False),
        (["m"], True, False),
        (["o/r"], True, False),
        (["default/m"], True, False),
        (["team-a/m"], False, True),
        (["m", "team-a/m"], True, True),
    ],
)
def test_a_key_that_lists_models_names_whose_they_are(
    models: list[str] | None, own: bool, other: bool
) -> None:
    limited: dict[str, Any] = {} if models is None else {"models": models}
    key = records.parse(Kind.API_KEY, objects.api_key(keys.mint(), **limited))
    assert isinstance(key, records.KeyRecord)
    for body, allowed in ((objects.model("m", repo="o/r"), own), (shared("m"), other)):
        model = records.parse(Kind.MODEL, body)
        assert isinstance(model, records.ModelRecord)
        assert key.allows(model) is allowed


# Endpoints


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "terminating": True}, False),
    ],
)
def test_only_ready_endpoints_get_requests(conditions: Object, ready: bool) -> None:
    state = state_of(objects.endpoint_slice(["10.0.0.1"], conditions=conditions or None))
    assert bool(hosts(state)) == ready


@pytest.mark.parametrize(
    "change",
    [
        {"addressType": "FQDN"},
        {"ports": None},
        {"ports": [{"name": "status", "port": 1}]},
        {"endpoints": None},
    ],
)
def test_slices_that_lead_nowhere(change: Object) -> None:
    assert hosts(state_of({**objects.endpoint_slice(["10.0.0.1"]), **change})) == []


def test_replicas_keep_their_load_while_slices_change() -> None:
    state = state_of(objects.endpoint_slice(["10.0.0.1", "10.0.0.2"]))
    before = {replica.address.host: replica for replica in state.replicas(MODEL)}
    put(state, objects.endpoint_slice(["10.0.0.1", "10.0.0.3"]))
    after = {replica.address.host: replica for replica in state.replicas(MODEL)}
    assert set(after) == {"10.0.0.1", "10.0.0.3"}
    assert after["10.0.0.1"] is before["10.0.0.1"]


def test_an_address_that_moves_between_slices_stays() -> None:
    removed: list[Replica] = []
    state = State(removed.append)
    put(state, objects.endpoint_slice(["10.0.0.1"], name="a"))
    replica = state.replicas(MODEL)[0]
    moved = records.parse(Kind.SLICE, objects.endpoint_slice(["10.0.0.1"], name="b"))
    state.replace(Kind.SLICE, [moved])
    assert state.replicas(MODEL) == (replica,)
    assert removed == []
    state.replace(Kind.SLICE, [])
    assert removed == [replica]


# Replace


def test_a_relist_drops_what_vanished_in_its_namespace_only() -> None:
    minted = [keys.mint() for _ in range(3)]
    names = (("a", "one"), ("a", "two"), ("b", "three"))
    bodies = [
        objects.api_key(key, name=name, namespace=namespace)
        for key, (namespace, name) in zip(minted, names, strict=True)
    ]
    state = state_of(*bodies)
    state.replace(Kind.API_KEY, [records.parse(Kind.API_KEY, bodies[0])], namespace="a")
    assert [bool(state.keys(key.sha256)) for key in minted] == [True, False, True]
    state.replace(Kind.API_KEY, [])
    assert [bool(state.keys(key.sha256)) for key in minted] == [False] * 3


def test_a_hash_that_two_keys_list_belongs_to_the_older() -> None:
    minted = keys.mint()
    thief = objects.api_key(minted, name="a-thief", namespace="evil", created=NEW)
    owner = objects.api_key(minted, name="owner", namespace="good", created=OLD)
    for order in ((thief, owner), (owner, thief)):
        state = state_of(*order)
        assert [known.key.id.namespace for known in state.keys(minted.sha256)] == ["good", "evil"]
        state.remove(Kind.API_KEY, ObjectId("evil", "a-thief"))
        assert [known.key.id.namespace for known in state.keys(minted.sha256)] == ["good"]


def test_a_key_is_named_by_the_hash_that_was_used() -> None:
    former, newest = keys.mint(), keys.mint()
    body = objects.api_key(newest)
    body["status"]["hashes"] += objects.api_key(former)["status"]["hashes"]
    state = state_of(body)
    used = [state.keys(minted.sha256)[0].key.key_id for minted in (former, newest)]
    assert used == [former.key_id, newest.key_id]


def test_an_unchanged_object_changes_nothing() -> None:
    state = state_of(objects.endpoint_slice(["10.0.0.1"]))
    before = state.replicas(MODEL)
    put(state, objects.endpoint_slice(["10.0.0.1"]))
    assert state.replicas(MODEL) is before


MINTED = [keys.mint() for _ in range(3)]
bodies = st.one_of(
    st.builds(
        lambda key, name, created: objects.api_key(key, name=name, created=created),
        st.sampled_from(MINTED),
        st.sampled_from("abc"),
        st.sampled_from([OLD, NEW]),
    ),
    st.builds(
        lambda name, namespace, aliases, repo, shared_with: objects.model(
            name, namespace=namespace, aliases=aliases, repo=repo, shared_with=shared_with
        ),
        st.sampled_from("abc"),
        st.sampled_from(["default", TEAM_A]),
        st.lists(st.sampled_from([*"abcd", "team-a/a"]), max_size=3),
        st.sampled_from(["o/r", "o/s", "default/a", None]),
        st.lists(st.sampled_from(["default", TEAM_A, TEAM_B]), max_size=3, unique=True),
    ),
    st.builds(
        lambda name, of, addresses: objects.endpoint_slice(addresses, name=name, of=of),
        st.sampled_from("abc"),
        st.sampled_from("ab"),
        st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), max_size=2),
    ),
)


def answers(state: State) -> Any:
    """Everything that the data path could ask."""
    return (
        [[known.key.id for known in state.keys(key.sha256)] for key in MINTED],
        [
            state.resolve(namespace, name)
            for namespace in ("default", TEAM_A, TEAM_B)
            for name in (*"abcd", "o/r", "o/s", "default/a", "team-a/a", "team-a/b")
        ],
        [state.models(namespace) for namespace in ("default", TEAM_A, TEAM_B)],
        [hosts(state, ObjectId("default", name)) for name in "ab"],
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), bodies), max_size=20))
def test_any_history_ends_in_the_same_answers_as_its_last_state(events: list[tuple[bool, Object]]) -> None:
    changing = State()
    alive: dict[tuple[str, ObjectId], Object] = {}
    for deleted, body in events:
        identity = (body["kind"], records.object_id(body))
        if deleted:
            alive.pop(identity, None)
            changing.remove(records.kind_of(body), records.object_id(body))
        else:
            alive[identity] = body
            put(changing, body)
    fresh = state_of(*alive.values())
    assert answers(changing) == answers(fresh)
    for kind in Kind:
        changing.replace(kind, [])
    assert answers(changing) == answers(State())
    indexes = (changing._keys, changing._names, changing._models, changing._slices, changing._replicas)
    assert not any(indexes)  # nothing is left behind


# What objects that make no sense do


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.API_KEY, {}),
        (Kind.API_KEY, {"metadata": {"name": "a", "namespace": "b"}, "status": {"hashes": [{}]}}),
        (Kind.API_KEY, {"metadata": {"name": "a", "namespace": "b"}, "spec": {"expiresAt": "soon"}}),
        (Kind.MODEL, {"metadata": {"name": "a", "namespace": "b"}}),
        (Kind.SLICE, {"metadata": {"name": "a"}}),
        (Kind.SLICE, {"metadata": None}),
    ],
)
def test_an_object_that_makes_no_sense_is_a_value_error(kind: Kind, body: Object) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        records.parse(kind, body)


def test_a_key_that_is_not_minted_yet_has_no_hash() -> None:
    body = {"metadata": {"name": "a", "namespace": "b"}}
    record = records.parse(Kind.API_KEY, body)
    assert isinstance(record, records.KeyRecord)
    assert record.hashes == ()


# Gateways


def test_gateways_are_known_from_their_own_slices_alone() -> None:
    state = state_of(
        objects.peers_slice(1),
        objects.peers_slice(2, serving=False),
        objects.peers_slice(3, terminating=True),
        objects.endpoint_slice(["10.0.0.1"]),
    )
    here = [(peer.address.port, peer.serving) for peer in state.peers()]
    assert here == [(1, True), (2, False), (3, False)]
    assert hosts(state) == ["10.0.0.1"]
    state.remove(Kind.PEERS, records.object_id(objects.peers_slice(1)))
    state.replace(Kind.SLICE, [])
    assert [peer.address.port for peer in state.peers()] == [2, 3]
    state.replace(Kind.PEERS, [])
    assert state.peers() == ()


def test_limits_are_read_with_their_key() -> None:
    key = records.parse(Kind.API_KEY, objects.api_key(keys.mint(), limits={"requestsPerMinute": 7}))
    assert isinstance(key, records.KeyRecord)
    assert key.limits == Limits((7, None, None))
    with pytest.raises(ValueError, match="requestsPerMinute"):
        records.parse(Kind.API_KEY, objects.api_key(keys.mint(), limits={"requestsPerMinute": 0}))
