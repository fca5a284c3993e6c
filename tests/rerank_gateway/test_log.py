"""When log lines leave the process."""

import asyncio
import io

from rerank_gateway.log import Output


class File(io.BytesIO):
    """What has been flushed, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[bytes] = []
        self.out = asyncio.Event()

    def flush(self) -> None:
        self.flushed.append(self.getvalue())
        self.out.set()


async def test_lines_that_come_together_go_out_together_and_soon() -> None:
    file = File()
    output = Output(file)
    for line in (b"one\n", b"two\n"):
        output.write(line)
        output.flush()

    assert file.flushed == []
    async with asyncio.timeout(5):
        await file.out.wait()
    assert file.flushed == [b"one\ntwo\n"]


async def test_a_line_after_the_others_went_out_goes_out_too() -> None:
    file = File()
    output = Output(file)
    for line in (b"one\n", b"two\n"):
        file.out.clear()
        output.write(line)
        output.flush()
        async with asyncio.timeout(5):
            await file.out.wait()

    assert file.flushed == [b"one\n", b"one\ntwo\n"]


def test_a_line_goes_out_at_once_where_no_loop_runs() -> None:
    file = File()
    output = Output(file)
    output.write(b"one\n")
    output.flush()

    assert file.flushed == [b"one\n"]
