"""The engine's process: its log is passed on, kept and counted."""

from __future__ import annotations

import asyncio
import os

from rerank_runtime.engine_process import EngineProcess

SAYS = r"""
printf '(EngineCore pid=7) INFO 11-22 19:21:06 [x.py:1] loading\n'
printf '(Worker-0 pid=7) ERROR 11-22 19:21:06 [x.py:1] RuntimeError: no\n'
printf 'ERROR:    Exception in ASGI application\n'
printf '(APIServer pid=7) INFO 11-22 19:21:06 [x.py:1] said an ERROR before\n'
printf 'No available shared memory broadcast block found in 60 seconds.\n'
printf 'last words'
exit 3
"""


async def test_lines_and_errors_are_counted() -> None:
    process = await EngineProcess.start(["sh", "-c", SAYS], os.environ)
    assert await asyncio.wait_for(process.wait(), 30) == 3
    # A process that says it waits does no work.
    assert (process.lines, process.error_lines) == (4, 2)
    assert process.tail[-1] == "last words"
    assert len(process.tail) == 6


async def test_what_it_started_ends_with_it() -> None:
    process = await EngineProcess.start(["sh", "-c", "sleep 600 & echo $!; exit 0"], os.environ)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    child = int(process.tail[0])
    async with asyncio.timeout(30):
        while True:
            try:
                with open(f"/proc/{child}/stat") as stat:  # noqa: ASYNC230, PTH123 - a file of the kernel's
                    if stat.read().rpartition(")")[2].split()[0] == "Z":
                        break
            except FileNotFoundError:
                break
            await asyncio.sleep(0.02)
