"""Who has a name that several claim, and who is to hear of a change."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from rerank_operator.claims import Claims, ObjectId, Strength

A, B, C = ("team", "a"), ("team", "b"), ("team", "c")


async def nothing() -> AsyncIterator[tuple[ObjectId, Mapping[str, Strength]]]:
    for _ in ():
        yield A, {}


def test_the_strongest_has_it_and_the_others_are_told_who() -> None:
    claims: Claims[str] = Claims(nothing)
    assert claims.note(B, {"x": (2,), "y": (2,)}) == set()
    assert claims.note(A, {"x": (1,)}) == {B}
    assert claims.lost(A) == {}
    assert claims.lost(B) == {"x": A}


def test_who_lets_go_wakes_the_others() -> None:
    claims: Claims[str] = Claims(nothing)
    claims.note(A, {"x": (1,)})
    claims.note(B, {"x": (2,)})
    claims.note(C, {"z": (3,)})
    assert claims.note(A, {}) == {B}
    assert claims.lost(B) == {}
    assert claims.note(B, {}) == set()
    assert claims.note(C, {}) == set()
    assert not claims._claimants, "nothing is left behind"
    assert not claims._claimed


def test_who_comes_last_wakes_nobody() -> None:
    claims: Claims[str] = Claims(nothing)
    claims.note(A, {"x": (1,)})
    assert claims.note(B, {"x": (2,)}) == set()
    assert claims.note(C, {"x": (0,)}) == {A, B}
    assert claims.note(B, {}) == set()


def test_the_same_again_concerns_nobody() -> None:
    claims: Claims[str] = Claims(nothing)
    claims.note(A, {"x": (1,)})
    claims.note(B, {"x": (2,)})
    assert claims.note(A, {"x": (1,)}) == set()


def test_it_is_filled_once_and_a_look_knows_better_than_the_list() -> None:
    asked = []

    async def known() -> AsyncIterator[tuple[ObjectId, Mapping[str, Strength]]]:
        asked.append(1)
        yield A, {"x": (1,)}
        yield B, {"x": (2,), "old": (2,)}

    async def fill() -> Claims[str]:
        claims: Claims[str] = Claims(known)
        claims.note(B, {"x": (2,)})
        await asyncio.gather(claims.fill(), claims.fill())
        return claims

    claims = asyncio.run(fill())
    assert len(asked) == 1
    assert claims.lost(B) == {"x": A}
    assert claims.note(C, {"old": (3,)}) == set()
