"""The cluster's programs, built from their Go modules and cached by content."""

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from dev.cluster.commands import run
from dev.cluster.errors import ClusterError
from dev.cluster.locking import locked
from dev.cluster.packages import SEARCH_PATH
from dev.cluster.paths import SOURCE, cache_dir
from dev.cluster.progress import say

KUBERNETES_VERSION = "v1.34.4"
HELM = "helm.sh/helm/v3/cmd/helm"
NAMES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
"""What the one binary `kubernetes` can be called as."""
MINIMUM_GO = (1, 24)
REPORT_SECONDS = 10.0
KEPT_BUILDS = 2

# Without a version, the API server calls itself v0.0.0 and kubelets refuse to join it.
LINKER_FLAGS = " ".join(
    ["-s -w"]
    + [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in (
            ("gitVersion", KUBERNETES_VERSION),
            ("gitMajor", "1"),
            ("gitMinor", "34"),
            ("gitTreeState", "clean"),
        )
    ]
)
# Inlining costs a quarter of the compiler's time. Kubernetes' own code is not where a small cluster
# spends its time; the libraries below it (encoding, HTTP, gRPC, etcd) keep it.
COMPILER_FLAGS = tuple(f"-gcflags={packages}=-l" for packages in ("k8s.io/...", "helm.sh/..."))
ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def binaries() -> Path:
    """Return the folder of the programs, after building them where the cache has none.

    Raises:
        ClusterError: there is no fitting Go, or the build failed.
    """
    go = shutil.which("go", path=SEARCH_PATH)
    if go is None:
        raise ClusterError("missing on this machine: Go 1.24 or newer (it builds the cluster's programs)")
    version = run([go, "env", "GOVERSION"], cwd=SOURCE, environment=ENVIRONMENT).strip()
    if parse_version(version) < MINIMUM_GO:
        raise ClusterError(f"Go 1.24 or newer is needed to build the cluster's programs; {go} is {version}")
    folder = cache_dir() / "bin" / content_key(version, source_files())
    if not folder.exists():
        with locked("build"):
            if not folder.exists():  # whoever held the lock has built it
                _build(go, folder)
                _forget_old(folder)
    os.utime(folder)
    return folder


def source_files() -> list[Path]:
    """Return every file that the programs are built from."""
    return sorted([SOURCE / "go.mod", SOURCE / "go.sum", *(SOURCE / "cmd").rglob("*.go")])


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of Go's version, such as `go1.26.8`."""
    found = re.match(r"go(\d+)\.(\d+)", text)
    if found is None:
        raise ClusterError(f"this version of Go cannot be read: {text}")
    return int(found[1]), int(found[2])


def content_key(version: str, files: Iterable[Path]) -> str:
    """Return a name for what these files build with this compiler and our flags."""
    digest = hashlib.sha256(f"{version}\n{LINKER_FLAGS}\n{COMPILER_FLAGS}\n".encode())
    for path in files:
        digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(go: str, folder: Path) -> None:
    say("build", f"etcd, Kubernetes {KUBERNETES_VERSION}, CoreDNS and helm, once (minutes; then cached)")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    targets = ["./cmd/...", HELM]
    total = len(
        run([go, "list", "-deps", *targets], cwd=SOURCE, environment=ENVIRONMENT, seconds=900).split()
    )
    flags = ["-v", "-trimpath", "-ldflags", LINKER_FLAGS, *COMPILER_FLAGS]
    command = [go, "build", *flags, "-o", f"{unfinished}/", *targets]
    _compile(command, total)
    for name in NAMES:
        (unfinished / name).symlink_to("kubernetes")
    unfinished.replace(folder)
    say("build", f"done: {folder}")


def _compile(command: list[str], total: int) -> None:
    """Run the compiler, which names each package as it compiles it, and report how far it is."""
    process = subprocess.Popen(
        command,
        cwd=SOURCE,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    printed: list[str] = []
    reader = threading.Thread(target=printed.extend, args=(process.stderr,))
    reader.start()
    reported = time.monotonic()
    while reader.is_alive():
        reader.join(timeout=1)
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            compiled = sum(1 for line in printed if not line.startswith(("go: ", "#")))
            what = "linking" if compiled >= total - 1 else f"{compiled} of {total} packages"
            say("build", what)
    process.stderr.close()
    if process.wait() != 0:
        raise ClusterError("the build of the cluster's programs failed:\n" + "".join(printed[-20:]))


def _forget_old(current: Path) -> None:
    """Remove all but the newest builds: one is 200 MB."""
    builds = [path for path in current.parent.iterdir() if path.is_dir() and path != current]
    builds.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in builds[KEPT_BUILDS - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
