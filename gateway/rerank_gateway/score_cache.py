"""Scores that were computed before, for models whose owner wants them kept. Off unless asked for.

A score is kept under all that it depends on: what the replica that computed it serves
(`backend.PLAN_HEADER`), query, document and options. And under the namespace of the key that asked: how fast
an answer comes must tell nobody what another namespace asked of a model that they share.
"""

import hashlib
from collections import OrderedDict
from typing import Final

from rerank_gateway.records import ObjectId
from rerank_gateway.rerank_request import RerankRequest

# Of one score, key and places in the table included; measured on CPython 3.11.
ENTRY_BYTES: Final = 192


class Keys:
    """The keys of one request's documents.

    Args:
        model: the model.
        namespace: of the APIKey.
        plan: what is served.
        request: whose query and options count; not its `top_n`, which changes no score.
    """

    __slots__ = ("_base",)

    def __init__(self, model: ObjectId, namespace: str, plan: bytes, request: RerankRequest) -> None:
        self._base = hashlib.blake2b(digest_size=16)
        texts = (*model, namespace, str(request.max_tokens_per_doc), request.query)
        for part in (plan, *(text.encode("utf-8", "surrogatepass") for text in texts)):
            self._base.update(b"%d:" % len(part) + part)

    def of(self, document: str) -> bytes:
        """The key of a document's score."""
        found = self._base.copy()
        found.update(document.encode("utf-8", "surrogatepass"))
        return found.digest()


class ScoreCache:
    """All scores of the process. What was not looked up for longest goes first.

    Args:
        max_bytes: about so much memory; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = max_bytes // ENTRY_BYTES
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: bytes) -> float | None:
        """The score, if it is known."""
        score = self._scores.get(key)
        if score is not None:
            self._scores.move_to_end(key)
        return score

    def put(self, key: bytes, score: float) -> None:
        """Keep a score."""
        self._scores[key] = score
        self._scores.move_to_end(key)
        if len(self._scores) > self._most:
            self._scores.popitem(last=False)
