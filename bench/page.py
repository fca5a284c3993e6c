"""`bench/RESULTS.md` as sections: a run replaces those that it measured and leaves the others. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_HEAD: Final = """\
# Benchmarks

Each section says when it was measured, on what, and by which command; a run replaces its own sections alone.
Client, engines and servers share the machine: compare within one table.
"""


def compose(page: str, measured: Mapping[str, str], *, order: Iterable[str]) -> str:
    """The page with the sections that were measured in place of their former text.

    Args:
        page: as it was, "" for none. What is under no heading of `order` is dropped.
        measured: text by title.
        order: the titles of all sections.
    """
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)
    former = dict(zip(parts[1::2], parts[2::2], strict=True))
    known = {**former, **measured}
    return "\n".join(
        [_HEAD, *(f"## {title}\n\n{known[title].strip()}\n" for title in order if title in known)]
    )
