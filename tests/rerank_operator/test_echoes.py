from rerank_operator import echoes
from rerank_operator.echoes import Echoes


def written(number: int) -> dict[str, dict[str, str]]:
    return {"metadata": {"uid": f"u{number}", "resourceVersion": str(number)}}


def test_another_version_of_the_same_object_is_news() -> None:
    own = Echoes()
    own.note(written(1))
    assert ("u1", "1") in own
    assert ("u1", "2") not in own
    assert ("u2", "1") not in own


def test_the_oldest_are_forgotten() -> None:
    own = Echoes()
    for number in range(echoes._REMEMBERED + 1):
        own.note(written(number))
    assert ("u0", "0") not in own
    assert ("u1", "1") in own
