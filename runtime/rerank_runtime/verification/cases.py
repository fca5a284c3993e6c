"""Pairs of texts whose order is known: built in, and a user's own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A query with a text that answers it and one that does not.

    Args:
        query: The query.
        relevant: The text that must score higher.
        irrelevant: The text that must score lower.
        language: ISO 639-1 code; empty for a user's own cases.
    """

    query: str
    relevant: str
    irrelevant: str
    language: str = ""

    @property
    def own(self) -> bool:
        """Whether a user wrote it."""
        return not self.language


# Plain facts, one of them clearly off the topic: easy for the smallest trained model. The relevant text
# shares a content word with the query, the other shares none.
ENGLISH = (
    Case(
        "What is a panda?",
        "The giant panda is a bear species that lives in the mountains of China.",
        "Our invoice for March was paid by bank transfer.",
        "en",
    ),
    Case(
        "capital of France",
        "Paris is the capital and largest city of France.",
        "Knead the dough for ten minutes and let it rest.",
        "en",
    ),
    Case(
        "How do vaccines protect against disease?",
        "Vaccines train the immune system to recognise a disease before it spreads.",
        "The train to the airport leaves every fifteen minutes.",
        "en",
    ),
    Case(
        "python list sort",
        "In Python, sort() orders a list in place and sorted() returns a new list.",
        "Whales are mammals and breathe air.",
        "en",
    ),
    Case(
        "Who wrote Romeo and Juliet?",
        "Romeo and Juliet is a tragedy that William Shakespeare wrote about 1595.",
        "Store the batteries in a cool and dry place.",
        "en",
    ),
)
# Facts of the same kind in other scripts and languages. Nobody promised that a model knows them: see
# ranking.languages.
OTHER_LANGUAGES = (
    Case(
        "法国的首都是哪里?",
        "巴黎是法国的首都和最大的城市。",
        "把面团揉十分钟,然后静置。",
        "zh",
    ),
    Case(
        "パンダは何を食べますか?",
        "パンダは主に竹を食べます。",
        "請求書は銀行振込で支払われた。",
        "ja",
    ),
    Case(
        "ما هي عاصمة مصر؟",
        "القاهرة هي عاصمة مصر وأكبر مدنها.",
        "اعجن العجين لمدة عشر دقائق واتركه يرتاح.",
        "ar",
    ),
    Case(
        "भारत की राजधानी क्या है?",
        "नई दिल्ली भारत की राजधानी है।",
        "बैटरियों को ठंडी और सूखी जगह पर रखें।",
        "hi",
    ),
    Case(
        "Кто написал роман «Война и мир»?",
        "Роман «Война и мир» написал Лев Толстой.",
        "Храните батарейки в сухом прохладном месте.",
        "ru",
    ),
    Case(
        "Wie hoch ist der Mount Everest?",
        "Der Mount Everest ist 8849 Meter hoch.",
        "Die Rechnung wurde per Überweisung bezahlt.",
        "de",
    ),
    Case(
        "¿Cuál es la capital de España?",
        "Madrid es la capital de España.",
        "Amase la masa durante diez minutos y déjela reposar.",
        "es",
    ),
)
BUILT_IN = ENGLISH + OTHER_LANGUAGES

# English cases of a quick round.
_QUICK = 2


def full(own: Sequence[Case]) -> tuple[Case, ...]:
    """Every case, a user's own first."""
    return (*own, *BUILT_IN)


def quick(own: Sequence[Case], number: int) -> tuple[Case, ...]:
    """A few cases for looking again at a model that passed: a user's own, two English ones and one of another
    language, others each time.

    Args:
        own: A user's own cases.
        number: Counts the rounds.
    """
    english = [ENGLISH[(number * _QUICK + i) % len(ENGLISH)] for i in range(_QUICK)]
    return (*own, *english, OTHER_LANGUAGES[number % len(OTHER_LANGUAGES)])
