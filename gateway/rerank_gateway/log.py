"""Logs as JSON lines on standard output: ours through structlog, those of libraries through the same end.

Bodies, keys and tokens are never logged; an API key appears as its id alone.
"""

import asyncio
import logging
import sys
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog

_FLUSH_SECONDS: Final = 0.05


class Output:
    """Standard output, written to a few times a second instead of once a line, which costs a small request
    a tenth of its time. What is logged outside of the event loop goes out at once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting = False

    def write(self, line: bytes) -> None:
        self._file.write(line)

    def flush(self) -> None:
        if self._waiting:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._file.flush()
            return
        self._waiting = True
        loop.call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._waiting = False
        self._file.flush()


def configure(level: str = "info") -> None:
    """Set up logging for the process: lines of `level` and above, of libraries from "warning" on.

    Called by `main.py`, before anything is logged.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    output = Output(sys.stdout.buffer)
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", output)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(least, logging.WARNING))
