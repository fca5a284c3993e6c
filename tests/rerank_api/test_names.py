import pytest

from rerank_api import names


@pytest.mark.parametrize(
    ("model", "child"),
    [
        ("minilm", "rerank-minilm"),
        ("0-starts-with-a-digit", "rerank-0-starts-with-a-digit"),
        ("m" * 56, "rerank-" + "m" * 56),
        ("m" * 57, "rerank-" + "m" * 47 + "-e46253b9"),
    ],
)
def test_children_are_named_after_the_model(model: str, child: str) -> None:
    assert names.child_name(model) == child
    assert len(child) <= 63


def test_shortened_names_stay_apart() -> None:
    assert names.child_name("m" * 60 + "a") != names.child_name("m" * 60 + "b")
