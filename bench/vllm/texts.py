"""What is ranked: texts of ordinary length made of ordinary words. Pure."""

from __future__ import annotations

_TEXT = """
    panda bear bamboo forest mountain river climate habitat species mammal reserve keeper winter summer
    village market harvest recipe engine invoice contract payment delivery museum painter novel theatre
    planet orbit comet signal network server battery bridge tunnel harbour ferry railway station ticket
"""
_WORDS = _TEXT.split()
SHORT_QUERY = "where do pandas find bamboo in winter"
# With it what all prompts share is longer than a block of vLLM's cache, which is 128 tokens on a CPU.
LONG_QUERY = " ".join([SHORT_QUERY, *(_WORDS[7 * n % len(_WORDS)] for n in range(200))])


def documents(count: int) -> list[str]:
    """Texts of 70 to 110 words, each another."""
    return [
        " ".join(_WORDS[(number * 13 + place * (number % 7 + 3)) % len(_WORDS)] for place in range(length))
        for number, length in ((n, 70 + n * 17 % 41) for n in range(count))
    ]
