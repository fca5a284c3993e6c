"""The command line: `python3 -m dev.cluster up|down|env`. Needs nothing but Python's own library."""

import argparse
import shlex
import sys

from dev.cluster.errors import ClusterError
from dev.cluster.native import NativeCluster


def main() -> int:
    """Run one command and return the exit status: 1 with one clear message where it failed."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the cluster up; returns at once where it is")
    commands.add_parser("down", help="take it down and leave nothing but the cache")
    commands.add_parser("env", help="print shell lines that point kubectl and helm at it")
    arguments = parser.parse_args()
    cluster = NativeCluster()
    try:
        match arguments.command:
            case "up":
                cluster.up()
            case "down":
                cluster.down()
            case "env":
                for name, value in cluster.environment().items():
                    print(f"export {name}={shlex.quote(value)}")
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
