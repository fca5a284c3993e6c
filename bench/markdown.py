"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its final newline."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def part(title: str, text: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A titled table, with what it shows said before it."""
    return f"### {title}\n\n{text}\n\n{table(header, rows)}"
