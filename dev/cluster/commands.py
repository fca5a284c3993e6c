"""Running a program to its end, with an error that says what it said."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.cluster.errors import ClusterError


def run(
    arguments: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
) -> str:
    """Run a program and return its standard output.

    Args:
        arguments: the program and its arguments. Never a secret: they are visible to everyone.
        stdin: text for its standard input, else none.
        cwd: the folder that it runs in.
        environment: variables added to ours.
        seconds: the time that it may take.

    Raises:
        ClusterError: it is absent, failed, or took too long; with the end of what it printed.
    """
    words = [str(word) for word in arguments]
    try:
        done = subprocess.run(
            words,
            input="" if stdin is None else stdin,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"program not found: {error.filename}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"took more than {seconds:.0f} s: {' '.join(words)}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError(f"exit status {done.returncode}: {' '.join(words)}\n{said}")
    return done.stdout


def succeeds(arguments: Sequence[str | Path]) -> bool:
    """Run a program whose failure is an answer, such as a look-up. Return whether it exited 0."""
    try:
        run(arguments)
    except ClusterError:
        return False
    return True
