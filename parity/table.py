"""docs/parity.md from what was measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.measure import Row
from parity.sensitivity import BOUND
from parity.wrong import Wrong


@dataclass(frozen=True)
class Outcome:
    """What came of a wrong configuration: the reason that the runtime gave; empty where it served."""

    wrong: Wrong
    reason: str
    caught_by: str
    difference: float | None
    """Largest difference of scores to the card, where the engine answered."""

    @property
    def caught(self) -> bool:
        return self.reason in self.wrong.reasons


@dataclass(frozen=True)
class Ignored:
    """A field of a client that would change how a model scores, and by how much it did."""

    field: str
    difference: float


def failures(family: Mapping[str, Any], row: Row) -> list[str]:
    """What is wrong with a row; empty where nothing is."""
    found = list(row.errors)
    if row.verified:
        found.append(f"verification failed: {row.verified}")
    for key, name in (("context_length", "length"), ("score_range", "scale")):
        if row.plan[key] != family[name]:
            found.append(f"the plan's {key} is {row.plan[key]}, the card's is {family[name]}")
    found += row.sensitivity.failures()
    if family["exact"]:
        if row.worst > BOUND:
            found.append(f"scores differ by {row.worst:.2g}")
        # NaN, where nothing had an order, is no agreement.
        if not row.tau >= 1:
            found.append(f"the order differs, tau {row.tau:.3f}")
        if row.tokens[0] != row.tokens[1]:
            found.append(f"{row.tokens[0]} of {row.tokens[1]} requests have the card's prompts")
    return found


def page(
    rows: Sequence[tuple[Mapping[str, Any], Row]],
    outcomes: Sequence[Outcome],
    ignored: Sequence[Ignored],
    versions: Mapping[str, str],
) -> str:
    """The whole page."""
    stated = ", ".join(f"{name} {version}" for name, version in versions.items())
    pairs = sum(row.pairs for _, row in rows)
    return _PAGE.format(
        versions=stated,
        families=len(rows),
        pairs=pairs,
        bound=f"{BOUND:g}",
        rows="\n".join(_row(family, row) for family, row in rows),
        notes="".join(f"- {family['name']}: {family['note']}.\n" for family, _ in rows if family["note"]),
        outcomes="\n".join(map(_outcome, outcomes)),
        ignored="\n".join(f"| `{entry.field}` | {entry.difference:.1e} |" for entry in ignored),
    )


_PAGE = """\
# Parity with the model cards

<!-- Written by `make parity`; do not edit by hand. -->

Each family is served as in a pod: `rerank-runtime serve` plans from the files of the model, starts a real
vLLM with those flags (on the CPU, in float32), guards it and verifies it; requests go through the gateway.
The reference is `transformers` on the same files, computing what the model card computes (`parity/models/`,
each with its source). The models are tiny and random, with the real architecture and the real kind of
tokenizer, and were taught only the order of the pairs that verification asks for, with numbers near 0. So
this proves prompt, tokenisation, truncation, flags, pooling, head and activation. It does not say how well a
trained model ranks, and nothing about the kernels of a GPU.

Command: `make parity`. Versions: {versions}. {families} families, {pairs} pairs.

## Scores: largest difference to the card

Accepted is {bound}, in the same order.

- *varied*: 60 pairs; queries and documents in a dozen languages and six scripts, empty, one letter to
  hundreds of tokens, control whitespace, trailing newlines, emoji, code.
- *control*: documents that hold the tokenizer's own special-token strings. The reference scores the text in
  which they are made inert, with a space after their first character.
- *overlong*: one document that is longer than the model, between two short ones. The reference cuts it as the
  card does.
- *sensitive*: scores of the reference that would show an error, because they lie where the sigmoid still
  rises (by 0.01 a logit and more; for cosines 1 − c² ≥ 0.01; logits as they are always do). Two thirds of
  *varied* and of *control* must, and all of *overlong*.
- *order*: how far documents stand in the reference's order (Kendall's τ; 1 is the same order), and how many
  pairs of documents have one: two thirds must differ by more than twice what is accepted.
- *tokens*: requests whose prompts, as vLLM's engine got them, are the reference's, token for token.

| family | card | length | range | varied | control | overlong | sensitive | order | tokens | verified |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

{notes}
## Wrong configurations, and what catches them

Each was run. *The plan* refuses before anything starts. *vLLM* does not start, and the pod says why. Where it
is *verification*, vLLM runs and is healthy, and the pod never becomes ready; the last column says how wrong
its answers with status 200 were ("–": it has no route for scores, or was not started).

| family | wrong in | caught by | reason | scores off by |
|---|---|---|---|---|
{outcomes}

Fields of a request that vLLM itself would obey never reach it, neither through the gateway nor past it. With
them, scores differ from the card by:

| field | largest difference |
|---|---|
{ignored}
"""


def _row(family: Mapping[str, Any], row: Row) -> str:
    sensitive, order = row.sensitivity.total, row.sensitivity.order
    cells = [
        row.family,
        str(family["card"]),
        str(row.plan["context_length"]),
        str(row.plan["score_range"]),
        *(_difference(row, kind) for kind in ("varied", "control", "overlong")),
        f"{sensitive[0]}/{sensitive[1]}",
        f"{row.tau:.3f} of {order[0]}/{order[1]}",
        f"{row.tokens[0]}/{row.tokens[1]}",
        row.verified or "yes",
    ]
    return f"| {' | '.join(cells)} |"


def _difference(row: Row, kind: str) -> str:
    return f"{row.difference[kind]:.1e}" if kind in row.difference else "–"


def _outcome(outcome: Outcome) -> str:
    reason = f"`{outcome.reason}`" if outcome.reason else "nothing"
    off = "–" if outcome.difference is None else f"{outcome.difference:.2g}"
    return f"| {outcome.wrong.family} | {outcome.wrong.what} | {outcome.caught_by} | {reason} | {off} |"
