"""Progress lines on standard error: a watcher must see life while minutes of building pass."""

import sys
import threading
import time

_started = time.monotonic()
_lock = threading.Lock()


def say(topic: str, text: str) -> None:
    """Print one line with the seconds since the start. Safe from several threads.

    Args:
        topic: what the line is about, such as `build` or `node`.
        text: what happens now.
    """
    with _lock:
        print(f"[{time.monotonic() - _started:5.0f}s] {topic}: {text}", file=sys.stderr, flush=True)
