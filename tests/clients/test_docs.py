"""What docs/clients.md shows is what the tests run."""

import re
import textwrap

from tests.clients.test_libraries import ROOT, RUNS, SCRIPTS

PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1:]  # the first names what the others use
RUN = {path: path.read_text() for path in SCRIPTS.glob("with_*.py")}


def test_every_snippet_runs_in_a_test() -> None:
    for snippet in SNIPPETS:
        lines = textwrap.indent(snippet, "    ")
        assert any(lines in source for source in RUN.values()), snippet


def test_every_script_runs_and_has_a_snippet() -> None:
    assert {path.stem for path in RUN} == {script for _, script in RUNS}
    for path, source in RUN.items():
        assert any(textwrap.indent(snippet, "    ") in source for snippet in SNIPPETS), path
