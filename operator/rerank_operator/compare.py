"""Whether a live object already is what we want. Pure; used by plan and by the status writers.

Server-side apply would answer the same question, but each question would be a write request. The API
server adds defaults and others add fields of their own: what is there may be more than what we want, never
less or different.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rerank_operator import quantity

# The lists that the API server merges by a key: others may add entries, order means nothing.
_MERGE_KEYS: Final = {
    "ownerReferences": "uid",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "resourceClaims": "name",
    "claims": "name",
}
# The same, but ours alone: an entry or a field too many is a difference.
_OURS: Final = {"hashes": "keyId"}
_QUANTITIES: Final = frozenset({"requests", "limits"})
_QUANTITY: Final = "sizeLimit"


def satisfied(wanted: Any, live: Any, *, field: str = "") -> bool:
    """Whether `live` has everything that `wanted` has. `field` is the name that both stand under.

    Both are plain JSON: dicts and lists are not taken for any mapping and sequence, which costs much more.
    """
    if wanted == live:
        return True
    match wanted:
        case dict():
            return _mapping(wanted, live, field)
        case str() if field == _QUANTITY:
            return _same_quantity(wanted, live)
        case list() | tuple() if field in _OURS:
            return _by(_OURS[field], wanted) == _by(_OURS[field], live or ())
        case list() | tuple():
            return _sequence(wanted, live, field)
        case _:
            return False


def _mapping(wanted: dict[str, Any], live: Any, field: str) -> bool:
    if not wanted and live is None:
        return True  # the API server drops empty maps
    if not isinstance(live, dict):
        return False
    if field in _QUANTITIES:
        return all(name in live and _same_quantity(value, live[name]) for name, value in wanted.items())
    return all(satisfied(value, live.get(name), field=name) for name, value in wanted.items())


def _sequence(wanted: Sequence[Any], live: Any, field: str) -> bool:
    if not wanted and live is None:
        return True
    if not isinstance(live, list | tuple):
        return False
    key = _MERGE_KEYS.get(field)
    if key is None:
        return len(wanted) == len(live) and all(map(satisfied, wanted, live))
    by_key = {item.get(key): item for item in live if isinstance(item, dict)}
    return all(item[key] in by_key and satisfied(item, by_key[item[key]]) for item in wanted)


def _by(key: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {item[key]: item for item in items}


def _same_quantity(wanted: Any, live: Any) -> bool:
    """Compared as numbers: the API server writes 1000m as 1."""
    try:
        return quantity.parse(wanted) == quantity.parse(live)
    except ValueError:
        return bool(wanted == live)
