"""Running kubectl and helm as a user would."""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CommandFailedError(AssertionError):
    """A program failed; the message holds what it printed."""


@dataclass(frozen=True)
class Shell:
    """Programs run with the environment that points them at the cluster."""

    environment: Mapping[str, str]

    def run(self, *words: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Run a program to its end and return its standard output.

        Raises:
            CommandFailedError: its exit status was not 0.
        """
        done = self.attempt(*words, stdin=stdin, seconds=seconds)
        if done.returncode != 0:
            raise CommandFailedError(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def attempt(
        self, *words: str, stdin: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program whose failure is an answer."""
        return subprocess.run(
            words,
            input="" if stdin is None else stdin,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@dataclass(frozen=True)
class Kubectl:
    """kubectl, as the administrator."""

    shell: Shell

    def __call__(self, *words: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Run kubectl and return what it prints."""
        return self.shell.run("kubectl", *words, stdin=stdin, seconds=seconds)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects as `kubectl apply -f -` does."""
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def apply_file(self, *files: Path) -> None:
        """Apply files as they are."""
        self("apply", *(f"--filename={file}" for file in files))

    def patch(self, kind: str, name: str, namespace: str, patch: Mapping[str, Any]) -> None:
        """Change an object by a JSON merge patch (null removes a field)."""
        self("patch", kind, name, f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps(patch)}")

    def delete(self, kind: str, name: str, namespace: str, *words: str) -> None:
        """Delete an object, and do not wait for what hangs on it."""
        self("delete", kind, name, f"--namespace={namespace}", "--wait=false", *words)

    def table(self, *words: str) -> list[dict[str, str]]:
        """Run `kubectl get` and return its rows by the printed headers. An empty cell is ''."""
        lines = self("get", *words).rstrip("\n").splitlines()
        return parse_table(lines)


def parse_table(lines: list[str]) -> list[dict[str, str]]:
    """Split kubectl's columns, which begin below their headers; three blanks part two headers.

    >>> parse_table(["NAME   LAST USED   AGE", "a                  5s"])
    [{'NAME': 'a', 'LAST USED': '', 'AGE': '5s'}]
    """
    header = lines[0]
    names = re.split(r" {3,}", header.strip())
    starts: list[int] = []
    for name in names:
        starts.append(header.index(name, starts[-1] + 1 if starts else 0))
    ends: list[int | None] = [*starts[1:], None]
    return [
        {name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)}
        for line in lines[1:]
    ]
