"""The table of values in the chart's README, from `values.yaml` and its comments."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

BEGIN: Final = "<!-- values: written by `make manifests` from values.yaml -->\n"
END: Final = "<!-- end of values -->\n"


@dataclass(frozen=True, slots=True)
class Value:
    """A setting, its default, and what `values.yaml` says of it above the line."""

    path: tuple[str, ...]
    default: Any
    comment: str


def read(text: str) -> list[Value]:
    """Every value of the file, in its order. What a comment stands above is one value, with all below it.

    Raises:
        TypeError: the file holds no mapping.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("the values are no mapping")
    return list(_values(root, text.splitlines(), ()))


def with_table(readme: str, values: str) -> str:
    """The README with its table as `values` has it."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(read(values)) + END + after


def table(values: list[Value]) -> str:
    """The values as a Markdown table."""
    rows = [
        f"| `{'.'.join(value.path)}` | `{_cell(json.dumps(value.default))}` | {_cell(value.comment)} |\n"
        for value in values
    ]
    return "".join(["\n| value | default | what it is |\n|---|---|---|\n", *rows, "\n"])


def _values(node: yaml.MappingNode, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, key.value)
        # What is commented as a whole (resources) is one value; a group has comments inside.
        if isinstance(value, yaml.MappingNode) and _comments_inside(key, value, lines):
            yield from _values(value, lines, here)
        else:
            yield Value(here, _plain(value), _comment(key.start_mark.line, lines))


def _comments_inside(key: yaml.Node, value: yaml.Node, lines: list[str]) -> bool:
    last = key
    while isinstance(value, yaml.MappingNode) and value.value:
        last, value = value.value[-1]
    between = lines[key.start_mark.line + 1 : last.start_mark.line]
    return any(line.lstrip().startswith("#") for line in between)


def _comment(line: int, lines: list[str]) -> str:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(found)


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
