"""What docs/clients.md shows is what the tests run, line breaks aside."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from tests.clients.running import ROOT, SCRIPTS
from tests.clients.test_libraries import RUNS

PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1:]  # the first names what the others use


def statements(source: list[ast.stmt]) -> str:
    return "\n".join(ast.dump(statement) for statement in source)


ERRORS = re.findall(r"^\| ([\d, ]+) \| (`[a-z_`, ]+`) \|", PAGE, re.MULTILINE)
# What makes an error, and its status where the call names none.
MAKERS = {"ApiError": None, "invalid": 400, "unauthorized": 401, "unavailable": 503}

SHOWN = {snippet: statements(ast.parse(snippet).body) for snippet in SNIPPETS}
RUN = {
    path.stem: [
        statements(node.body)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    ]
    for path in SCRIPTS.glob("with_*.py")
}


def test_every_snippet_runs_in_a_test() -> None:
    functions = [function for script in RUN.values() for function in script]
    for snippet, shown in SHOWN.items():
        assert any(shown in function for function in functions), snippet


def test_every_script_runs_and_has_a_snippet() -> None:
    assert set(RUN) == {script for _, script in RUNS}
    for script, functions in RUN.items():
        assert any(shown in function for shown in SHOWN.values() for function in functions), script


def constants(node: ast.expr | None) -> set[Any]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} if node else set()


def raised() -> Iterator[tuple[set[Any], str]]:
    """Each error that the gateway makes: its status, where the call says it, and its code."""
    for path in (ROOT / "gateway" / "rerank_gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in MAKERS:
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            first = node.args[0] if name == "ApiError" else given.get("status")
            statuses = constants(first) if first else {MAKERS[name]}
            codes = constants(given["code"]) if "code" in given else {"invalid_request"}
            for code in codes:
                yield statuses, code


def test_the_table_of_errors_has_each_with_its_status_and_no_other() -> None:
    shown = {
        (int(status), code.strip("`"))
        for statuses, codes in ERRORS
        for status in statuses.split(", ")
        for code in codes.split(", ")
    }
    found = list(raised())
    assert {code for _, code in shown} == {code for _, code in found}
    missing = [
        (status, code) for statuses, code in found for status in statuses if (status, code) not in shown
    ]
    assert missing == []
