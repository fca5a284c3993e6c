"""Prompts that are tokenised in pieces, as some libraries do it: what ends at a seam never becomes one token
with what begins there.

mxbai-rerank and FlagEmbedding tokenise query, separator and document apart. vLLM tokenises one text, where a
`?` and the line break behind it are one token. So the templates of those models put SEAM between the pieces,
and vLLM gets a copy of the tokenizer that splits there first and drops the mark. The tokens are then those
of the pieces.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank_runtime import workspace
from rerank_runtime.failure import Failure, Reason

# A noncharacter of Unicode, which no text has a use for (Unicode 16, chapter 23.7).
SEAM = "\ufdd0"

_SPLIT = {"type": "Split", "pattern": {"String": SEAM}, "behavior": "Removed", "invert": False}
# transformers builds the classes that models name anew from their vocabulary; this one takes the file as it
# is (transformers 5.19, tokenization_utils_tokenizers.py).
_CLASS = "PreTrainedTokenizerFast"
_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"


def wanted(template: str | None) -> bool:
    """Whether a template's prompts are tokenised in pieces."""
    # Written as an escape in the template's file, where it would be invisible.
    return template is not None and "\\ufdd0" in template


def write_tokenizer(model: Path, directory: Path) -> Path:
    """Write the tokenizer of a model as one that splits at seams; returns its directory.

    Args:
        model: The model's directory.
        directory: Where a new directory may be made.

    Raises:
        Failure: `TokenizerInvalid` where the model's tokenizer cannot be read, else as workspace.write.
    """
    try:
        definition = split_at_seams(json.loads((model / _FILE).read_bytes()))
        config = json.loads((model / _CONFIG).read_bytes()) if (model / _CONFIG).is_file() else {}
        config |= {"tokenizer_class": _CLASS}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Failure(
            Reason.TOKENIZER_INVALID, f"The model's {_FILE} or {_CONFIG} cannot be used: {error}."
        ) from error
    found = directory / "tokenizer"
    found.mkdir()
    workspace.write(found / _FILE, json.dumps(definition))
    workspace.write(found / _CONFIG, json.dumps(config))
    return found


def split_at_seams(definition: dict[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer.json with a split at seams before all others."""
    before = definition.get("pre_tokenizer")
    steps = [_SPLIT] if before is None else [_SPLIT, before]
    return definition | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
