import pytest

from rerank_api import backend_token

MASTER = bytes(range(32))


def test_each_namespace_has_its_own_token() -> None:
    tokens = {backend_token.token(MASTER, namespace) for namespace in ("a", "b")}
    assert len(tokens) == 2
    assert backend_token.token(MASTER, "a") in tokens


def test_a_new_master_is_read_back() -> None:
    text = backend_token.new_master()
    assert backend_token.read_master(text + "\n") == bytes.fromhex(text)


@pytest.mark.parametrize(("text", "reason"), [("", "got 0"), ("ab", "got 2"), ("zz" * 32, "not hex")])
def test_a_bad_master_is_refused_without_being_shown(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        backend_token.read_master(text)
