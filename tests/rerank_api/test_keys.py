import pytest

from rerank_api import keys

MINTED = keys.mint()


def test_a_minted_key_is_recognised_by_its_id() -> None:
    assert keys.key_id(MINTED.text) == MINTED.key_id
    assert len(MINTED.text) == 66


def test_two_keys_differ_in_every_part() -> None:
    other = keys.mint()
    assert {other.text, other.key_id, other.sha256}.isdisjoint({MINTED.text, MINTED.key_id, MINTED.sha256})


def test_the_repr_shows_no_secret() -> None:
    assert MINTED.text not in repr(MINTED)


def test_the_digest_is_sha256_of_the_whole_key() -> None:
    assert keys.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert MINTED.sha256 == keys.digest(MINTED.text)


# Named, for a random key in a test's name would make every collection another.
DAMAGED = {
    "empty": "",
    "prefix": "rk_",
    "cut": MINTED.text[:-1],
    "longer": MINTED.text + "0",
    "newline": MINTED.text + "\n",
    "another-prefix": MINTED.text.replace("rk_", "sk_"),
    "typo": MINTED.text[:20] + ("a" if MINTED.text[20] != "a" else "b") + MINTED.text[21:],
    "dashes": MINTED.text.replace("_", "-"),
    "not-ascii": "rk_" + "é" * 63,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_key_has_no_id(text: str) -> None:
    assert keys.key_id(text) is None
