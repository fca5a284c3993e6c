"""`python -m parity.build DIRECTORY FAMILY…` in the runtime's environment: builds models, writes references.

Under DIRECTORY each family gets a folder: `model/` is what a repository would hold, `reference.json` what
the card's computation says of every pair, `family.json` how the family is asked for; `families.json` lists
them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from parity import fitting, pairs
from parity.models import catalog
from parity.models.base import Family, Reference
from rerank_runtime.verification.cases import BUILT_IN

# What fitting aims at on each scale: a margin, and how far from 0 the numbers may lie on average.
_AIMS = {"[0,1]": (1.0, 1.0), "logits": (1.0, 1.0), "[-1,1]": (0.05, 0.5)}


# What the suite, which runs without torch, must know of a family.
_ABOUT = ("name", "card", "length", "options", "scale", "exact", "note")
# By its name and tag the runtime knows whose prompt a language model is to be asked with.
CARD = "---\npipeline_tag: text-ranking\n---\n# A tiny random model with the architecture of {card}\n"


def build(family: Family, directory: Path) -> None:
    """Write a family's model and reference, unless an earlier run has."""
    if (directory / "reference.json").is_file():
        return
    shutil.rmtree(directory, ignore_errors=True)
    model = directory / "model"
    model.mkdir(parents=True)
    texts = [
        *pairs.texts(),
        family.prompt,
        *(text for c in BUILT_IN for text in (c.query, c.relevant, c.irrelevant)),
    ]
    family.build(model, texts * 3 + ["yes", "no", "Yes", "No", "0", "1"] * 40)
    (model / "README.md").write_text(CARD.format(card=family.card), encoding="utf-8")
    long = [pairs.overlong(family.length)] if family.overlong else []
    fitting.fit(family.reference(model), BUILT_IN, long, *_AIMS[family.scale])
    about = {name: getattr(family, name) for name in _ABOUT}
    (directory / "family.json").write_text(json.dumps(about), encoding="utf-8")
    # Read again from the files, as the engine reads them.
    (directory / "reference.json").write_text(
        json.dumps(_references(family, family.reference(model))), encoding="utf-8"
    )


def _references(family: Family, reference: Reference) -> list[dict[str, Any]]:
    requests = [*pairs.varied(), pairs.control(_control_tokens(reference))]
    if family.overlong:
        requests.append(pairs.overlong(family.length))
    tokens = _inert(reference, family)
    answers = []
    with torch.inference_mode():
        for request in requests:
            query, documents = request.query, list(request.documents)
            if request.kind == "control":
                documents = [_escaped(document, tokens) for document in documents]
            answers.append(
                {
                    "kind": request.kind,
                    "query": request.query,
                    "documents": request.documents,
                    "scores": reference.score(query, documents).tolist(),
                    "prompts": reference.prompts(query, documents),
                }
            )
    return answers


def _added(reference: Reference) -> list[dict[str, Any]]:
    content = json.loads((reference.directory / "tokenizer.json").read_bytes())
    added: list[dict[str, Any]] = content["added_tokens"]
    return added


def _control_tokens(reference: Reference) -> list[str]:
    """At most six special tokens, for the documents."""
    return [t["content"] for t in _added(reference) if t["special"]][:6]


def _inert(reference: Reference, family: Family) -> list[str]:
    """What the runtime must make inert: special tokens, and others that the family's prompt uses."""
    return [t["content"] for t in _added(reference) if t["special"] or t["content"] in family.prompt]


def _escaped(text: str, tokens: list[str]) -> str:
    """The rule of the runtime: a space after the first character of such a string."""
    for token in sorted(tokens, key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def main() -> None:
    """Build what the command line names, or every family."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    root = Path(sys.argv[1])
    names = sys.argv[2:] or list(catalog.FAMILIES)
    for name in names:
        build(catalog.FAMILIES[name], root / name)
        print(f"built {name}", flush=True)
    (root / "families.json").write_text(json.dumps(names), encoding="utf-8")


if __name__ == "__main__":
    main()
