"""What docs/clients.md shows is what the tests run, line breaks aside."""

import ast
import re

from tests.clients.running import ROOT, SCRIPTS
from tests.clients.test_libraries import RUNS

PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1:]  # the first names what the others use


def statements(source: list[ast.stmt]) -> str:
    return "\n".join(ast.dump(statement) for statement in source)


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
