"""What becomes of a request before vLLM sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_runtime.families import jina_v3
from rerank_runtime.intake import Admitted, Intake, IntakeSettings, Refused, Report
from rerank_runtime.options import Method, OnOverflow
from rerank_runtime.serve_plan import Truncation
from tests.rerank_runtime import tokenizer_kinds as kinds
from tests.rerank_runtime.support import serve_plan

LONG = "The giant panda lives in China. " * 100
CONTEXT = {"pairs": 64, "embeddings": 64, "prompts": 256, "listwise": 1800}


@pytest.fixture(scope="module")
def intakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Intake]:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("intake")
    template = folder / "template.jinja"
    template.write_text(kinds.QWEN_TEMPLATE)
    bert, xlm_r, qwen = (kinds.write(folder / kind, kind) for kind in kinds.KINDS)
    cross = Method.CROSS_ENCODER
    return {
        "pairs": Intake(IntakeSettings(bert, cross, CONTEXT["pairs"])),
        "embeddings": Intake(IntakeSettings(xlm_r, Method.COSINE, CONTEXT["embeddings"])),
        "prompts": Intake(IntakeSettings(qwen, cross, CONTEXT["prompts"], template)),
        "listwise": Intake(
            IntakeSettings(qwen, cross, CONTEXT["listwise"], pointwise=False, max_documents=4)
        ),
        "strict": Intake(IntakeSettings(bert, cross, 64, on_overflow=OnOverflow.REJECT)),
    }


KINDS = tuple(CONTEXT)


def taken(made: Intake, **fields: Any) -> tuple[dict[str, Any], Report]:
    outcome = made.whole(json.dumps({"query": "a panda", "documents": ["hi"], **fields}).encode())
    assert isinstance(outcome, Admitted), outcome
    body: dict[str, Any] = json.loads(outcome.body)
    return body, outcome.report


def refused(made: Intake, **fields: Any) -> Refused:
    outcome = made.whole(json.dumps({"query": "a panda", "documents": ["hi"], **fields}).encode())
    assert isinstance(outcome, Refused)
    return outcome


def test_settings_survive_the_file(tmp_path: Path) -> None:
    plan = serve_plan(
        context_length=900,
        pointwise=False,
        max_documents=64,
        truncation=Truncation(7, 5, OnOverflow.REJECT),
    )
    made = IntakeSettings.of(plan, tmp_path, tmp_path / "t.jinja", "abc")
    assert made == IntakeSettings(
        tmp_path,
        Method.CROSS_ENCODER,
        900,
        tmp_path / "t.jinja",
        max_tokens_per_document=7,
        max_tokens_per_query=5,
        on_overflow=OnOverflow.REJECT,
        pointwise=False,
        max_documents=64,
        identity="abc",
    )
    assert IntakeSettings.from_json(made.to_json()) == made
    plain = IntakeSettings.of(serve_plan(Method.COSINE), tmp_path, None)
    assert IntakeSettings.from_json(plain.to_json()) == plain


@pytest.mark.parametrize(
    ("kind", "added"),
    [
        ("pairs", {"truncate_prompt_tokens": -1}),
        ("embeddings", {"truncate_prompt_tokens": -1}),
        # With a template vLLM would cut off its end, and with it the score.
        ("prompts", {}),
        ("listwise", {}),
        # Longer pairs must be refused, not cut behind everybody's back.
        ("strict", {}),
    ],
)
def test_a_few_fields_reach_the_engine(intakes: dict[str, Intake], kind: str, added: dict[str, Any]) -> None:
    sent = {
        "model": "m",
        "query": "a panda",
        "documents": ["hi", "a bear"],
        "top_n": 2,
        "max_tokens_per_doc": 900,
        "max_tokens_per_query": 900,
        "use_activation": False,
        "truncate_prompt_tokens": 9,
        "instruction": "x",
        "chat_template_kwargs": {},
        "cache_salt": "x",
        "padding": "max_length",
        "return_documents": True,
    }
    body, report = taken(intakes[kind], **sent)
    assert body == {name: sent[name] for name in ("model", "query", "documents", "top_n")} | added
    assert report == Report()


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"model": None, "top_n": None, "max_tokens_per_doc": None}, {}),
        ({"top_n": 0}, {}),
        ({"documents": "a bear"}, {"documents": ["a bear"]}),
    ],
)
def test_what_says_nothing_is_left_out(intakes: dict[str, Intake], fields: Any, sent: Any) -> None:
    body, _ = taken(intakes["prompts"], **fields)
    assert body == {"query": "a panda", "documents": ["hi"], **sent}


def test_a_repeated_key_is_sent_once(intakes: dict[str, Intake]) -> None:
    outcome = intakes["prompts"].whole(b'{"query":"a","documents":["x"],"query":"b","documents":["y"]}')
    assert isinstance(outcome, Admitted)
    assert outcome.body == b'{"query":"b","documents":["y"]}'


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_become_text(intakes: dict[str, Intake], kind: str) -> None:
    mark = {"pairs": "[SEP]", "embeddings": "</s>"}.get(kind, "<|im_end|>")
    broken = f"{mark[0]} {mark[1:]}"
    body, report = taken(intakes[kind], query=f"a {mark}", documents=["a bear", f"{mark}b"])
    assert (body["query"], body["documents"]) == (f"a {broken}", ["a bear", f"{broken}b"])
    assert report == Report()


def test_ten_thousand_control_strings_are_the_same_text_escaped(intakes: dict[str, Intake]) -> None:
    hostile, escaped = "<|im_end|>" * 10_000, "< |im_end|>" * 10_000
    others = ["a bear", "hi"]
    first = taken(intakes["prompts"], documents=[others[0], hostile, others[1]])
    assert first == taken(intakes["prompts"], documents=[others[0], escaped, others[1]])
    assert [first[0]["documents"][i] for i in (0, 2)] == others
    assert first[1] == Report((1,))


@pytest.mark.parametrize("kind", KINDS)
def test_one_long_document_fails_nothing_and_is_told(intakes: dict[str, Intake], kind: str) -> None:
    long = LONG * 10
    body, report = taken(intakes[kind], documents=["hi", long, "a bear"])
    assert report == Report((1,))
    assert [body["documents"][i] for i in (0, 2)] == ["hi", "a bear"]
    assert long.startswith(body["documents"][1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_own_limit_cuts(intakes: dict[str, Intake], kind: str) -> None:
    body, report = taken(intakes[kind], documents=["panda " * 9, "hi"], max_tokens_per_doc=3)
    assert report == Report((0,))
    assert len(body["documents"][0]) < len("panda " * 9)
    body, report = taken(intakes[kind], query="panda " * 9, max_tokens_per_query=3)
    assert report == Report((), query=True)


@pytest.mark.parametrize("wish", [0, 63, 64, 4096])
def test_a_limit_that_the_model_does_not_reach_is_no_wish_to_cut(
    intakes: dict[str, Intake], wish: int
) -> None:
    # Cohere's clients send 4096 to every model.
    assert refused(intakes["strict"], documents=[LONG], max_tokens_per_doc=wish).param == "documents[0]"


def test_a_smaller_limit_lets_a_strict_model_answer(intakes: dict[str, Intake]) -> None:
    body, report = taken(intakes["strict"], documents=["hi", LONG], max_tokens_per_doc=40)
    assert report == Report((1,))
    assert "truncate_prompt_tokens" not in body


def test_a_strict_model_refuses_by_name(intakes: dict[str, Intake]) -> None:
    found = refused(intakes["strict"], documents=["hi", LONG])
    assert found.param == "documents[1]"
    assert "documents[1] has" in found.message


def test_a_listwise_model_takes_so_many_documents(intakes: dict[str, Intake]) -> None:
    taken(intakes["listwise"], documents=["hi"] * 4)
    found = refused(intakes["listwise"], documents=["hi"] * 5)
    assert found.param == "documents"
    assert "5 texts" in found.message
    assert "takes 4 at most" in found.message


def test_short_texts_are_not_tokenised(intakes: dict[str, Intake]) -> None:
    for kind in KINDS:
        assert isinstance(intakes[kind].begin(b'{"query":"a panda","documents":["hi"]}'), Admitted)
        assert callable(intakes[kind].begin(json.dumps({"query": "a", "documents": [LONG * 9]}).encode()))


@pytest.mark.parametrize(
    ("report", "header"),
    [
        (Report(), ""),
        (Report((0, 4, 7)), "3;0,4,7"),
        (Report((), query=True), "0;;query"),
        (Report((2,), query=True), "1;2;query"),
        (Report(tuple(range(250))), "250;" + ",".join(map(str, range(100)))),
    ],
)
def test_the_header(report: Report, header: str) -> None:
    assert report.header() == header


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text(max_size=30) | anything,
        "documents": st.lists(st.text(max_size=80) | st.just(LONG), max_size=6) | anything,
        "top_n": st.integers(-2, 9) | anything,
        "max_tokens_per_doc": st.integers(-2, 90) | anything,
        "max_tokens_per_query": st.integers(-2, 90) | anything,
        "model": st.text(max_size=5) | anything,
    },
)


@pytest.mark.parametrize("kind", [*KINDS, "strict"])
@settings(max_examples=80, deadline=None)
@given(body=bodies)
def test_whatever_comes_is_refused_or_fits_the_engine(
    intakes: dict[str, Intake], kind: str, body: dict[str, Any]
) -> None:
    outcome = intakes[kind].whole(json.dumps(body).encode())
    if isinstance(outcome, Refused):
        assert outcome.message
        return
    sent = json.loads(outcome.body)
    assert isinstance(sent["query"], str)
    count = len(body["documents"]) if isinstance(body["documents"], list) else 1
    assert [type(text) for text in sent["documents"]] == [str] * count
    assert all(0 <= place < len(sent["documents"]) for place in outcome.report.documents)
    tokenizer = kinds.tokenizer("qwen")
    if kind == "listwise":
        prompt = jina_v3.prompt(sent["query"], sent["documents"])
        assert len(tokenizer.encode(prompt).ids) <= CONTEXT[kind]


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=200))
def test_bytes_are_taken_or_refused(intakes: dict[str, Intake], body: bytes) -> None:
    assert isinstance(intakes["pairs"].whole(body), Admitted | Refused)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"template_path": null}', '{"template_path": null, "directory": "x"}']
)
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        IntakeSettings.from_json(text)


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a JSON object"):
        Intake(IntakeSettings(tmp_path, Method.CROSS_ENCODER, 64))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        Intake(IntakeSettings(tmp_path, Method.CROSS_ENCODER, 64))


@pytest.mark.parametrize("kind", CONTEXT)
def test_the_querys_own_tokens_are_told_where_it_is_read_once(intakes: dict[str, Intake], kind: str) -> None:
    def told(query: str, documents: list[str]) -> int | None:
        body = json.dumps({"query": query, "documents": documents}).encode()
        admitted = intakes[kind].whole(body)
        assert isinstance(admitted, Admitted)
        return admitted.query_tokens

    short, long = told("a panda", ["hi"]), told("panda " * 500, ["hi"])
    if kind != "embeddings":
        assert (short, long) == (None, None)
        return
    assert short is not None
    assert told("a panda", ["hi"] * 3) == told("a panda", ["bear " * 500]) == short
    assert 2 < short < CONTEXT[kind]
    assert long == CONTEXT[kind]  # as vLLM cuts it
