"""Where the gateway's objects come from: the cluster (`reflector.py`) or a folder (`folder.py`)."""

from typing import Protocol


class Source(Protocol):
    """Fills a State and keeps it up to date."""

    async def run(self) -> None:
        """Run until cancelled. Returning or raising ends the gateway."""

    def unsynced(self) -> list[str]:
        """What has not been read completely for the first time; empty when the state can be relied on."""

    def ages(self) -> dict[str, float]:
        """Seconds since each watch last heard that it is up to date."""

    def keys_age(self, namespace: str | None) -> float:
        """Seconds since it was last certain which APIKeys `namespace` holds; inf when it never was.

        None: since it was certain for any namespace.
        """
