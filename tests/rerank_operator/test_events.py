"""Posting events: in order of time, bounded, not twice, and never in the way."""

from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice, Recorder
from rerank_operator.resources import Object
from tests.rerank_operator.samples import model


class Posts(Cluster):
    """Takes events, or refuses them."""

    def __init__(self, *, refusing: bool = False) -> None:
        self.posted: list[Object] = []
        self.refusing = refusing

    async def create_event(self, event: Object) -> None:
        if self.refusing:
            raise ApiError(403, "Forbidden", "")
        self.posted.append(event)


async def test_an_event_as_it_is_posted() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="rerank-operator-0")
    await recorder.record(model(), [Notice("Warning", "RepositoryGated", "ask for access")])
    (event,) = posts.posted
    assert event["regarding"] == {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "minilm",
        "namespace": "team",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "RepositoryGated", "ask for access")
    assert event["metadata"]["namespace"] == "team"
    assert event["eventTime"].endswith("Z")


async def test_names_sort_by_time() -> None:
    """Kubectl describe shows events without a series in the order of their names."""
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    await recorder.record(model(), [Notice("Normal", f"R{n}", "") for n in range(20)])
    names = [event["metadata"]["name"] for event in posts.posted]
    assert names == sorted(names)
    assert len(set(names)) == 20


async def test_the_same_is_not_told_twice_in_a_row() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    notice = Notice("Warning", "Unschedulable", "no node")
    await recorder.record(model(), [notice])
    await recorder.record(model(), [notice, Notice("Warning", "Unschedulable", "another node")])
    assert [event["note"] for event in posts.posted] == ["no node", "another node"]


async def test_a_long_note_is_cut_between_characters() -> None:
    posts = Posts()
    await Recorder(api=posts, instance="i").record(model(), [Notice("Normal", "R", "熊猫" * 1000)])
    note = posts.posted[0]["note"]
    assert len(note.encode()) in range(1021, 1025)
    assert set(note) == set("熊猫")


async def test_an_event_that_is_refused_stops_nothing() -> None:
    posts = Posts(refusing=True)
    await Recorder(api=posts, instance="i").record(model(), [Notice("Normal", "R", "n")])
    assert posts.posted == []
