"""What stands for the program `vllm` in the suite: has a forked server of the running `forked_vllm` made, and
lives as long as it does.

For wrong configurations it changes the command on its way, as PARITY_CHANGES says: a JSON object of flags and
the values that they get instead; null takes a flag away.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

SOCKET = "PARITY_SOCKET"
CHANGES = "PARITY_CHANGES"
# A file for the prompts, see `forked_vllm`.
PROMPTS = "PARITY_PROMPTS"


def changed(arguments: list[str], changes: dict[str, str | None]) -> list[str]:
    """A command with other values of some flags.

    Args:
        arguments: `--flag=value` items and others.
        changes: Value of each flag to change; None removes the flag, "" gives it without a value.
    """
    kept = [item for item in arguments if item.partition("=")[0] not in changes]
    added = [f"{flag}={value}" if value else flag for flag, value in changes.items() if value is not None]
    return kept + added


def main() -> None:
    """Run `vllm` with this process's arguments."""
    changes = json.loads(os.environ.get(CHANGES, "{}"))
    order = {"arguments": changed(sys.argv, changes), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        signal.signal(signal.SIGTERM, lambda *_: connection.sendall(b"t"))
        socket.send_fds(connection, [json.dumps(order).encode()], [1, 2])
        answer = connection.recv(16)
    sys.exit(int(answer or b"1") & 0xFF)


if __name__ == "__main__":
    main()
