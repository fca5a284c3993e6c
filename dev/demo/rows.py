"""Resources as one line each: pure, from the JSON that kubectl prints."""

from dataclasses import dataclass
from typing import Any, Final

UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Row:
    """A resource's name and state, for people."""

    name: str
    phase: str
    detail: str = ""

    @property
    def ready(self) -> bool:
        return self.phase == "Ready"

    @property
    def failed(self) -> bool:
        return self.phase == "Failed"

    def text(self) -> str:
        """The whole line."""
        return f"{self.name}: {self.phase}" + (f" - {self.detail}" if self.detail else "")


def row_of(resource: dict[str, Any]) -> Row:
    """The row of a ModelDeployment or an APIKey."""
    name = f"{resource['kind'].lower()}/{resource['metadata']['name']}"
    status = resource.get("status", {})
    if status.get("observedGeneration") != resource["metadata"].get("generation"):
        return Row(name, "Pending", "the operator has not seen it yet")
    if resource["kind"] == "ModelDeployment":
        return model_row(name, status)
    return key_row(name, status)


def model_row(name: str, status: dict[str, Any]) -> Row:
    """A model: its phase, and the download's progress or the status message."""
    phase = status.get("phase", "Pending")
    if phase == "Ready":
        return Row(name, phase, str(status.get("endpoint", "")))
    download = status.get("download")
    if phase == "Downloading" and download:
        return Row(name, phase, progress(download))
    return Row(name, phase, status.get("message", ""))


def key_row(name: str, status: dict[str, Any]) -> Row:
    """A key: Ready, or why not."""
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return Row(name, "Ready", f"in Secret {status['secretName']}")
            return Row(name, condition["reason"], condition["message"])
    return Row(name, "Pending")


def progress(download: dict[str, Any]) -> str:
    """The download in words: `43 % of 91 MB, 5 s left`."""
    done, total, left = download.get("bytes", 0), download.get("totalBytes", 0), download.get("etaSeconds")
    if not total:
        return size(done)
    text = f"{100 * done // total} % of {size(total)}"
    return text if left is None else f"{text}, {left} s left"


def size(count: float) -> str:
    """A number of bytes in the unit that a hub's web page would show (powers of 1000)."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} {UNITS[-1]}"
