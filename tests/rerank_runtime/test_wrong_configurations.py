"""Wrong configurations that answer 200 with plausible scores, each with the check that catches it.

An engine is played that serves a model in another way than its plan says: other routes, another prompt, other
scores. Which of these the real vLLM does for which mistake was measured; here it is enough that each is seen.
The tokenizer is a real one, though not the family's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from tokenizers import Tokenizer

from rerank_runtime import chat_template
from rerank_runtime.expectation import of_built_in_cases
from rerank_runtime.failure import Reason
from rerank_runtime.families import jina_v3
from rerank_runtime.options import Method
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification.cases import BUILT_IN
from rerank_runtime.verification.observation import Answer, Observation, Surroundings
from rerank_runtime.verification.verdict import judge
from tests.rerank_runtime.conftest import MINILM
from tests.rerank_runtime.support import serve_plan

CLASSIFIER = frozenset({"/v1/rerank", "/classify"})
EMBEDDER = frozenset({"/v1/rerank", "/v1/embeddings"})
NEITHER = frozenset({"/v1/rerank", "/pooling"})
Prompts = Callable[[str, list[str]], int]

TASK = "Given a web search query, retrieve relevant passages that answer the query"
QWEN3 = serve_plan(template=chat_template.load("qwen3_reranker", TASK), instruction=TASK)
MXBAI = serve_plan(template=chat_template.load("mxbai_rerank_v2"))
GEMMA = serve_plan(template=chat_template.load("bge_reranker_v2_gemma"))
NEMOTRON = serve_plan(template=chat_template.load("nemotron_rerank"))
JINA_V3 = serve_plan(pointwise=False, score_range="[-1,1]")
BERT = serve_plan(score_range="logits")
EMBEDDING = serve_plan(Method.COSINE, score_range="[-1,1]")

_TOKENIZER = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
_TOKENIZER.no_truncation()
_TOKENIZER.no_padding()


def count(text: str, pair: str | None = None) -> int:
    return len(_TOKENIZER.encode(text, pair).ids)


def rendered(template: str) -> Prompts:
    return lambda query, documents: sum(
        count(chat_template.render(template, query, document)) for document in documents
    )


def pairs(query: str, documents: list[str]) -> int:
    return sum(count(query, document) for document in documents)


def joined(query: str, documents: list[str]) -> int:
    """Without a template vLLM puts query and document together as they are."""
    return sum(count(query + document) for document in documents)


def apart(query: str, documents: list[str]) -> int:
    return count(query) + sum(count(document) for document in documents)


def cut(template: str) -> Prompts:
    """The prompt's end is cut off, as truncate_prompt_tokens does."""
    return lambda query, documents: sum(
        count(chat_template.render(template, query, document)[:-40]) for document in documents
    )


@dataclass(frozen=True)
class Engine:
    """How the engine really serves; `template` is the text in the file that it was handed."""

    prompts: Prompts
    template: str | None = None
    routes: frozenset[str] = CLASSIFIER
    scores: tuple[float, float] = (0.9, 0.1)
    length: int = 512

    def observe(self, plan: ServePlan) -> Observation:
        expected = of_built_in_cases(MINILM, plan)
        answers = tuple(
            Answer(
                case,
                *self.scores,
                prompt_tokens=self.prompts(case.query, [case.irrelevant, case.relevant]),
                expected=expected[case],
            )
            for case in BUILT_IN
        )
        handed = None if self.template is None else serve_plan(template=self.template).template_sha256
        return Observation(answers, handed, Surroundings(self.routes, self.length))


def right(plan: ServePlan) -> Engine:
    """The engine serves as the plan says."""
    if not plan.pointwise:
        whole = lambda query, documents: count(jina_v3.prompt(query, documents))  # noqa: E731
        return Engine(whole, routes=NEITHER)
    if plan.template is not None:
        return Engine(rendered(plan.template), plan.template)
    if plan.method is Method.COSINE:
        return Engine(apart, routes=EMBEDDER)
    return Engine(pairs)


PLANS = {
    "Qwen3": QWEN3,
    "mxbai v2": MXBAI,
    "Gemma": GEMMA,
    "Nemotron": NEMOTRON,
    "Jina v3": JINA_V3,
    "BERT": BERT,
    "embedding": EMBEDDING,
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_right_configuration_passes(plan: ServePlan) -> None:
    assert judge(plan, right(plan).observe(plan)).failure is None


def text(plan: ServePlan) -> str:
    assert plan.template is not None
    return plan.template


OTHER_TASK = chat_template.load("qwen3_reranker", "Find code")
LOST_NEWLINE = text(QWEN3).replace("\\n\\n' -}}", "\\n' -}}")
WRONG = [
    ("Qwen3 without overrides", QWEN3, Engine(joined, text(QWEN3), EMBEDDER), Reason.WRONG_ROUTES),
    ("no pooling runner", QWEN3, replace(right(QWEN3), routes=frozenset({"/classify"})), Reason.WRONG_ROUTES),
    ("Qwen3 without a template", QWEN3, Engine(joined), Reason.TEMPLATE_DIFFERS),
    ("template told and not used", QWEN3, Engine(joined, text(QWEN3)), Reason.PROMPT_TOKENS_DIFFER),
    (
        "one newline of the template lost",
        QWEN3,
        Engine(rendered(LOST_NEWLINE), LOST_NEWLINE),
        Reason.TEMPLATE_DIFFERS,
    ),
    ("answers yes and no swapped", QWEN3, replace(right(QWEN3), scores=(0.1, 0.9)), Reason.SCORES_INVERTED),
    ("suffix cut off", QWEN3, Engine(cut(text(QWEN3)), text(QWEN3)), Reason.PROMPT_TOKENS_DIFFER),
    (
        "instruction ignored",
        QWEN3,
        Engine(rendered(text(QWEN3).replace(chat_template.quote(TASK), '""')), text(QWEN3)),
        Reason.INSTRUCTION_IGNORED,
    ),
    ("another instruction", QWEN3, Engine(rendered(OTHER_TASK), text(QWEN3)), Reason.PROMPT_TOKENS_DIFFER),
    ("mxbai without overrides", MXBAI, Engine(joined, text(MXBAI), EMBEDDER), Reason.WRONG_ROUTES),
    ("mxbai without a template", MXBAI, Engine(joined, text(MXBAI)), Reason.PROMPT_TOKENS_DIFFER),
    ("Gemma without overrides", GEMMA, Engine(joined, text(GEMMA), EMBEDDER), Reason.WRONG_ROUTES),
    ("Gemma without a template", GEMMA, Engine(joined, text(GEMMA)), Reason.PROMPT_TOKENS_DIFFER),
    ("Nemotron without a template", NEMOTRON, Engine(joined, text(NEMOTRON)), Reason.PROMPT_TOKENS_DIFFER),
    (
        "Nemotron read one way only",
        NEMOTRON,
        replace(right(NEMOTRON), scores=(0.48, 0.47)),
        Reason.SCORES_TOO_CLOSE,
    ),
    ("Jina v3 as a classifier", JINA_V3, replace(right(JINA_V3), routes=CLASSIFIER), Reason.WRONG_ROUTES),
    ("Jina v3 as an embedder", JINA_V3, replace(right(JINA_V3), routes=EMBEDDER), Reason.WRONG_ROUTES),
    (
        "Jina v3 one text a prompt",
        JINA_V3,
        Engine(
            lambda query, documents: sum(count(jina_v3.prompt(query, [document])) for document in documents),
            routes=NEITHER,
        ),
        Reason.PROMPT_TOKENS_DIFFER,
    ),
    ("BERT with a template", BERT, Engine(rendered(text(GEMMA)), text(GEMMA)), Reason.TEMPLATE_DIFFERS),
    ("BERT taken for an embedder", BERT, Engine(apart, routes=EMBEDDER), Reason.WRONG_ROUTES),
    ("pair not told apart", BERT, Engine(joined), Reason.PROMPT_TOKENS_DIFFER),
    ("embedder taken for a classifier", EMBEDDING, Engine(pairs), Reason.WRONG_ROUTES),
    ("head is not trained", BERT, replace(right(BERT), scores=(0.5, 0.5)), Reason.SCORES_CONSTANT),
    ("everything rounds to 0", QWEN3, replace(right(QWEN3), scores=(0.0, 0.0)), Reason.SCORES_SATURATED),
    (
        "everything rounds to 1",
        NEMOTRON,
        replace(right(NEMOTRON), scores=(1.0, 1.0)),
        Reason.SCORES_SATURATED,
    ),
    (
        "overflow in half precision",
        BERT,
        replace(right(BERT), scores=(float("inf"), 0.1)),
        Reason.SCORES_NOT_FINITE,
    ),
    ("514 positions", BERT, replace(right(BERT), length=514), Reason.ENGINE_ERROR),
]


@pytest.mark.parametrize(
    ("plan", "engine", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_configuration_is_caught(plan: ServePlan, engine: Engine, reason: Reason) -> None:
    failure = judge(plan, engine.observe(plan)).failure
    assert failure is not None
    assert failure.reason == reason


def test_the_lost_newline_leaves_the_number_of_tokens_as_it_was() -> None:
    """Which is why the template's hash is compared."""
    assert QWEN3.template != LOST_NEWLINE
    assert rendered(LOST_NEWLINE)("q", ["d"]) == rendered(text(QWEN3))("q", ["d"])
