"""How many bytes of requests and answers the process holds at once, bounded so that its memory is."""

from typing import Final

from rerank_gateway import errors

# One key may hold this many times what is still free: alone four fifths of all, and whoever comes next finds
# room. The rule by which switches share a buffer between ports (Choudhury and Hahne, "Dynamic queue length
# thresholds for shared-memory packet switches", 1998).
TIMES_FREE: Final = 4
_RETRY_SECONDS: Final = 1


class InFlight:
    """The bytes held now: bodies being read and served, answers until clients have taken them.

    Args:
        max_bytes: of all together. Answers are never refused for it, so they may exceed it; bodies are.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._held: dict[str, int] = {}

    def take(self, size: int, holder: str) -> None:
        """Hold `size` more bytes for the key `holder`.

        Raises:
            ApiError: 503, there is no room for them now.
        """
        if self._held.get(holder, 0) + size > TIMES_FREE * (self._max_bytes - self.bytes - size):
            raise errors.unavailable(
                "The gateway holds as many bytes of requests as it may at once.",
                code="too_many_bytes",
                retry_after=_RETRY_SECONDS,
            )
        self.add(size, holder)

    def add(self, size: int, holder: str) -> None:
        """Hold what must be held."""
        if not size:
            return  # a holder of nothing would be remembered for good
        self.bytes += size
        self._held[holder] = self._held.get(holder, 0) + size

    def give_back(self, size: int, holder: str) -> None:
        self.bytes -= size
        left = self._held[holder] - size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]
