"""A replica that costs almost nothing: it answers with prepared bytes of vLLM's shape and size."""

import asyncio
import json
import sys
from typing import cast

import uvloop

SIZES = {"10 KB": 10, "100 KB": 100, "1 MB": 1000}  # documents of about 1 KB each


def documents(count: int) -> list[str]:
    """Texts like those that people rank: words, about 1,000 characters each."""
    words = [
        "panda",
        "bear",
        "bamboo",
        "forest",
        "mountain",
        "river",
        "climate",
        "habitat",
        "species",
        "mammal",
    ]
    return [
        " ".join(f"{words[(number + place) % 10]}{place}" for place in range(118))[:990]
        for number in range(count)
    ]


def answer(count: int) -> bytes:
    """What vLLM answers for so many documents: every one of them comes back."""
    results = [
        {
            "index": index,
            "document": {"text": text, "multi_modal": None},
            "relevance_score": 1 / (index + 1.7),
        }
        for index, text in enumerate(documents(count))
    ]
    tokens = 300 * count
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = json.dumps({"id": "score-1", "model": "bench", "usage": usage, "results": results}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Engine(asyncio.Protocol):
    """One connection. Finds the prepared answer by the size of the request."""

    answers = [(count * 1000, answer(count)) for count in SIZES.values()]

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._missing:
            head, separator, _ = bytes(self._buffer[:4096]).partition(b"\r\n\r\n")
            if not separator:
                return
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self._missing = len(head) + 4 + length
        if len(self._buffer) >= self._missing:
            size = self._missing
            self._buffer.clear()
            self._missing = 0
            self._transport.write(min(self.answers, key=lambda entry: abs(entry[0] - size))[1])


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
