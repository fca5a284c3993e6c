"""Building images with buildah, without a daemon and without pulling anything.

Results stand in one OCI layout folder in the cache, uncompressed, each layer once.
"""

import json
import os
import platform
import shutil
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.commands import run, succeeds
from dev.cluster.dockerfile import mounted_stages, with_mounted_images
from dev.cluster.errors import ClusterError
from dev.cluster.images import stage_key
from dev.cluster.leftovers import unmount_below
from dev.cluster.oci import Image, read_layout
from dev.cluster.paths import SOURCE, cache_dir
from dev.cluster.progress import say
from dev.cluster.pruning import old_stages, prune_layout

BASE_PACKAGES = ("ca-certificates", "libnuma1", "python3", "python3-venv")
IMAGE_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian's images keep the certificates of authorities."""
PREFIX = "localhost/rerank-"
BASE = f"{PREFIX}base"
REPORT_SECONDS = 15.0


def base_key() -> str:
    """Return the name of the base image: it changes with what is asked for, not with Debian's updates."""
    return f"{suite()}-{'-'.join(BASE_PACKAGES)}"


def suite() -> str:
    """Return the code name of this machine's Debian, from which the base image is made."""
    release = platform.freedesktop_os_release()
    try:
        return release["VERSION_CODENAME"]
    except KeyError as error:
        raise ClusterError("images are built on Debian or Ubuntu, by the release's code name") from error


@dataclass(frozen=True)
class Builder:
    """buildah with its own storage in the cache."""

    folder: Path

    @classmethod
    def in_cache(cls) -> "Builder":
        return cls(cache_dir() / "images")

    @property
    def layout(self) -> Path:
        """The OCI layout folder of everything built."""
        return self.folder / "layout"

    @property
    def _storage(self) -> Path:
        return self.folder / "storage"

    @property
    def _run(self) -> Path:
        return Path("/run/rerank-operator/buildah")

    def image(self, context: Path, target: str) -> Image:
        """Return the image of a target, built where the cache has none of the same content.

        Args:
            context: the folder with the Dockerfile.
            target: one of its stages.

        Raises:
            ClusterError: the build failed; with the end of what it printed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{target}-{stage_key(context, target, base_key())}"
        if not self._exported(name):
            started = time.monotonic()
            built = self._stage(context, target)
            say("images", f"exporting {target}")
            source = f"containers-storage:[overlay@{self._storage}+{self._run}]{built}"
            copy = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
            run([*copy, source, f"oci:{self.layout}:{name}"], seconds=900)
            self._prune()
            say("images", f"built {target} in {time.monotonic() - started:.0f} s")
        return read_layout(self.layout, name)

    def release(self) -> None:
        """Remove what buildah keeps outside of the cache: mounts, and its folder under /run. Idempotent."""
        unmount_below(self.folder)
        unmount_below(self._run)
        shutil.rmtree(self._run.parent, ignore_errors=True)

    def _exported(self, name: str) -> bool:
        try:
            index = json.loads((self.layout / "index.json").read_text())
        except FileNotFoundError:
            return False
        refs = [entry.get("annotations", {}) for entry in index["manifests"]]
        return any(ref.get("org.opencontainers.image.ref.name") == name for ref in refs)

    def _prune(self) -> None:
        prune_layout(self.layout)
        images = json.loads(run(self._buildah("images", "--json")))
        old = [name for name in old_stages(images, PREFIX) if not name.startswith(f"{BASE}:")]
        if old:
            succeeds(self._buildah("rmi", *old))
            succeeds(self._buildah("rmi", "--prune"))

    def _stage(self, context: Path, stage: str) -> str:
        """Return the name in buildah's storage of a stage's image, built where there is none."""
        image = f"{PREFIX}{stage}:{stage_key(context, stage, base_key())}"
        if succeeds(self._buildah("inspect", "--type", "image", image)):
            return image
        base = self._base()
        text = (context / "Dockerfile").read_text()
        mounted = {name: self._stage(context, name) for name in mounted_stages(text, stage)}
        say("images", f"building {stage}")
        file = self.folder / f"{stage}.Dockerfile"
        file.write_text(with_mounted_images(text, mounted))
        bundle = ssl.get_default_verify_paths().cafile
        trust = ["--volume", f"{Path(bundle).resolve()}:{IMAGE_BUNDLE}:ro"] if bundle else []
        words = ["build", "--layers", "--force-rm", "--isolation", "chroot", "--network", "host", *trust]
        words += ["--pull=never", "--ignorefile", str(SOURCE / "dockerignore")]
        words += ["--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"SSL_CERT_FILE={IMAGE_BUNDLE}"]
        words += ["--target", stage, "--tag", image, "--file", str(file), str(context)]
        self._follow(stage, self._buildah(*words))
        return image

    def _base(self) -> str:
        """Return the name of the base image, made from Debian's packages where there is none yet."""
        image = f"{BASE}:{base_key()}"
        if succeeds(self._buildah("inspect", "--type", "image", image)):
            return image
        say("images", f"making the base image from Debian {suite()}")
        archive = self.folder / "base.tar"
        include = f"--include={','.join(BASE_PACKAGES)}"
        run(["mmdebstrap", "--mode=root", "--variant=minbase", include, suite(), archive], seconds=900)
        container = run(self._buildah("from", "scratch")).strip()
        run(self._buildah("add", "--quiet", container, str(archive), "/"))
        run(self._buildah("commit", "--quiet", "--rm", container, image))
        archive.unlink()
        return image

    def _buildah(self, *words: str) -> list[str]:
        storage = ["--root", str(self._storage), "--runroot", str(self._run), "--storage-driver", "overlay"]
        return ["buildah", *storage, *words]

    def _follow(self, target: str, command: list[str]) -> None:
        """Run a build, keep its output in a log, and report its last line now and then."""
        log = self.folder / f"{target}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            waiter = threading.Thread(target=process.wait)
            waiter.start()
            while waiter.is_alive():
                waiter.join(timeout=REPORT_SECONDS)
                if waiter.is_alive():
                    say("images", f"building {target}: {last_line(log)}")
        if process.returncode != 0:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise ClusterError(f"building {target} failed; all of it is in {log}\n{end}")


def last_line(log: Path, limit: int = 100) -> str:
    """Return the last line that says something, cut to a limit in characters."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip()[:limit] for line in reversed(lines) if line.strip()), "")
