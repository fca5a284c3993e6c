"""The command line: `python3 -m dev.cluster COMMAND`. Needs nothing but Python's own library.

The variable CLUSTER chooses where: `native` (from source on this machine), `kind`, or `current`.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Protocol

from dev.cluster.adapters import CurrentCluster, KindCluster
from dev.cluster.errors import ClusterError
from dev.cluster.images import PRODUCTS
from dev.cluster.native import NativeCluster


class Cluster(Protocol):
    """What every kind of cluster can do."""

    def up(self) -> None: ...
    def up_with_images(self, targets: Sequence[str]) -> str: ...
    def down(self) -> None: ...
    def purge(self) -> None: ...
    def environment(self) -> dict[str, str]: ...
    def images(self, targets: Sequence[str]) -> str: ...
    def tag(self) -> str: ...
    def gpus(self, count: int, product_name: str, memory_mib: int) -> None: ...


def chosen() -> Cluster:
    """Return the cluster that CLUSTER names; by default kind where it and Docker are, else native."""
    kinds: dict[str, type[Cluster]] = {
        "native": NativeCluster,
        "kind": KindCluster,
        "current": CurrentCluster,
    }
    have_kind = shutil.which("docker") is not None and shutil.which("kind") is not None
    name = os.environ.get("CLUSTER") or ("kind" if have_kind else "native")
    if name not in kinds:
        raise ClusterError(f"CLUSTER={name}: choose one of {', '.join(kinds)}")
    return kinds[name]()


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    targets = [product.target for product in PRODUCTS]
    whole = argparse.ArgumentParser(prog="python3 -m dev.cluster", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the cluster up; returns at once where it is")
    up.add_argument(
        "--images", action="store_true", help="build and load all images meanwhile; print their tag"
    )
    down = commands.add_parser("down", help="take it down and leave nothing but the cache")
    down.add_argument("--purge", action="store_true", help="remove the cache too")
    commands.add_parser("env", help="print shell lines that point kubectl and helm at it")
    commands.add_parser("tag", help="print the tag of the images of this tree")
    images = commands.add_parser("images", help="build and load images; print their tag")
    images.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets)}; default all")
    gpu = commands.add_parser("gpu", help="pretend that the node has GPUs; 0 takes them away")
    gpu.add_argument("count", type=int)
    gpu.add_argument("--product", default="NVIDIA-L4")
    gpu.add_argument("--memory", type=int, default=23034, metavar="MiB")
    return whole


def perform(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Do what one command line says. Only what scripts read goes to standard output."""
    every = [product.target for product in PRODUCTS]
    match arguments.command:
        case "up" if arguments.images:
            print(cluster.up_with_images(every))
        case "up":
            cluster.up()
        case "down" if arguments.purge:
            cluster.purge()
        case "down":
            cluster.down()
        case "env":
            for name, text in cluster.environment().items():
                print(f"export {name}={shlex.quote(text)}")
        case "tag":
            print(cluster.tag())
        case "images":
            print(cluster.images(arguments.targets or every))
        case "gpu":
            cluster.gpus(arguments.count, arguments.product, arguments.memory)


def main() -> int:
    """Run one command and return the exit status: 1 with one clear message where it failed."""
    arguments = parser().parse_args()
    try:
        perform(chosen(), arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
