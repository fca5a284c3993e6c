"""What ties a request's attempts at replicas to it: an id of ours and, where it sent one, the client's trace.

The client's own request id goes nowhere: before vLLM 0.30 one that another request has too mixes their texts
(PYSEC-2026-4198). A trace is checked and written anew by W3C Trace Context, https://www.w3.org/TR/trace-context-2/.
Its parent stays the client's span: we record none, and one that nobody recorded would tear the trace apart.
"""

import re
from typing import Final

from rerank_gateway import request_ids

_ID_BYTES: Final = 8
_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_KNOWN_FLAGS: Final = 0x03  # sampled, random; others must be sent as 0
_STATE_BYTES: Final = 512
_STATE_MEMBERS: Final = 32
_MEMBER: Final = re.compile(
    rb"[ \t]*(?:([a-z0-9][a-z0-9_\-*/@]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~][ \t]*)?"
)


class Trace:
    """Of one request; `id` is ours.

    Args:
        traceparent: the header as sent. One that is not valid is as good as none.
        tracestate: the header as sent, several of them joined by commas. It goes with a valid traceparent.
    """

    __slots__ = ("_attempts", "_parent", "_state", "id")

    def __init__(self, traceparent: bytes = b"", tracestate: bytes = b"") -> None:
        self.id = request_ids.draw(_ID_BYTES)
        self._attempts = 0
        self._parent = self._state = b""
        found = _PARENT.fullmatch(traceparent) if traceparent else None
        if found is not None and _valid(found):
            self._parent = b"00-%s-%s-%02x" % (found[2], found[3], int(found[4], 16) & _KNOWN_FLAGS)
            self._state = _state(tracestate)

    def attempt(self) -> bytes:
        """The lines of a head that name the next attempt, which no other has been named."""
        self._attempts += 1
        lines = b"X-Request-Id: %s-%d\r\n" % (self.id.encode("ascii"), self._attempts)
        if self._parent:
            lines += b"traceparent: %s\r\n" % self._parent
        if self._state:
            lines += b"tracestate: %s\r\n" % self._state
        return lines


def _valid(found: re.Match[bytes]) -> bool:
    version, trace_id, parent_id, _, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest):
        return False
    return trace_id.strip(b"0") != b"" and parent_id.strip(b"0") != b""


def _state(tracestate: bytes) -> bytes:
    """What other vendors passed along; nothing where any of it is wrong or it is too much."""
    members = [found for member in tracestate.split(b",") if (found := _MEMBER.fullmatch(member))]
    keys = [found[1] for found in members if found[1]]
    if (
        len(members) != tracestate.count(b",") + 1
        or len(set(keys)) != len(keys)
        or len(keys) > _STATE_MEMBERS
    ):
        return b""
    state = b",".join(found[0].strip() for found in members if found[1])
    return state if len(state) <= _STATE_BYTES else b""
