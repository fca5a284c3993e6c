"""Checks that several families make. Each raises a Failure that says what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Method, Options

# No number in a configuration that sizes anything is larger.
_MAX_INTEGER = 100_000_000
# Larger numbers in tokenizer_config.json mean "no limit" (transformers writes 1e30).
_NO_LENGTH_LIMIT = 1_000_000


def integer(config: dict[str, Any], key: str, default: int | None = None) -> int:
    """A positive number of the configuration.

    Raises:
        Failure: `FileMissing` where it is absent (and there is no default), no integer, or out of bounds.
    """
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_INTEGER:
        raise Failure(Reason.FILE_MISSING, f"config.json has no usable {key}.")
    return value


def cross_encoder(architecture: str, method: Method) -> None:
    """The method asked for is not cosine."""
    if method is Method.COSINE:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"{architecture} is a cross-encoder and has no embeddings to compare by cosine. "
            "Remove scoring.method, or set it to CrossEncoder.",
        )


def one_label(config: dict[str, Any]) -> None:
    """The classifier has one label, the relevance."""
    labels = _labels(config)
    if labels != 1:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The model is a classifier with {labels} labels; a reranker has one, the relevance.",
        )


def _labels(config: dict[str, Any]) -> int:
    # As transformers counts them (configuration_utils: num_labels follows id2label; 2 where nothing is said).
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    count = config.get("num_labels")
    return count if isinstance(count, int) and not isinstance(count, bool) else 2


def head(files: ModelFiles, *names: str) -> None:
    """The weights of the classification head are there under one of the names, for one label."""
    shape = next((files.shapes[name] for name in names if name in files.shapes), None)
    if shape is None or not shape or shape[0] != 1:
        what = "are not there" if shape is None else f"have shape {list(shape)}"
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The weights of the classification head ({names[0]}) {what}: the scores would be random.",
        )


def modules(files: ModelFiles, architecture: str, allowed: Iterable[tuple[str, ...]] = ()) -> None:
    """Nothing of sentence-transformers that vLLM does not run comes after the model itself."""
    kinds = tuple(files.module_kinds)
    if kinds and kinds != ("Transformer",) and kinds not in allowed:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model scores by modules of sentence-transformers behind {architecture} "
            f"({', '.join(kinds[1:]) or kinds[0]}), which vLLM does not run: its scores would be others.",
        )


def default_prompt(files: ModelFiles) -> str | None:
    """What sentence-transformers puts before queries of this cross-encoder by default, or None."""
    settings = files.sentence_transformers
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if (
        settings.get("model_type") != "CrossEncoder"
        or not isinstance(prompts, dict)
        or not isinstance(name, str)
    ):
        return None
    prompt = prompts.get(name)
    return prompt if isinstance(prompt, str) and prompt else None


def no_prompt(files: ModelFiles, architecture: str) -> None:
    """The model wants no prompt before queries."""
    if default_prompt(files) is not None:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model was trained with a prompt before queries, which {architecture} is not given yet: its "
            "scores would be wrong.",
        )


def no_code(config: dict[str, Any], architecture: str) -> None:
    """The model brings no Python code of its own."""
    if config.get("auto_map"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model brings its own Python code for {architecture} (auto_map), which is not run.",
        )


def allowed_code(files: ModelFiles, options: Options, architecture: str) -> None:
    """The Python code that vLLM needs for the model's configuration is there, and may be run."""
    auto_map = files.config.get("auto_map")
    reference = auto_map.get("AutoConfig") if isinstance(auto_map, dict) else None
    if not isinstance(reference, str) or "." not in reference:
        raise Failure(
            Reason.FILE_MISSING,
            f"{architecture} needs configuration code, and config.json names none (auto_map.AutoConfig).",
        )
    repository, _, module = reference.rpartition("--")
    if repository:
        raise Failure(
            Reason.REMOTE_CODE_REQUIRED,
            f"{architecture} takes its configuration code from another repository, {repository}, which a "
            f"serving pod cannot reach. Use a copy of the model with {module.split('.')[0]}.py beside "
            f"config.json, and {module} in its auto_map.",
        )
    if not options.trust_remote_code:
        raise Failure(
            Reason.REMOTE_CODE_REQUIRED,
            f"{architecture} needs Python code of the model's repository ({reference}). An administrator "
            "must allow this repository and revision, and then engine.trustRemoteCode: true runs it.",
        )
    path = f"{module.split('.')[0]}.py"
    if path not in files.python:
        raise Failure(Reason.FILE_MISSING, f"{architecture} needs {path}, which is not there.")


def words(files: ModelFiles, wanted: Iterable[str]) -> None:
    """The tokenizer knows the words whose probabilities are the score, and the marks of the prompt."""
    absent = sorted(set(wanted) - files.words.keys())
    if absent:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The tokenizer has no token {', '.join(absent)}, which the prompt and the score need: "
            "this is not the tokenizer that belongs to the model.",
        )


def answers(files: ModelFiles, expected: tuple[str, str], models: str) -> None:
    """The score is read from these two words, the true one first: the tokenizer has them, and where
    sentence-transformers recorded the words (its LogitScore) they are these.
    """
    if files.score_tokens not in (None, expected):
        found = " and ".join(word for word in files.score_tokens if word) or "of other ids"
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model scores by its tokens {found}, not by {' and '.join(expected)} as {models} does: its "
            "prompt is another one, which is not known here.",
        )
    words(files, expected)


def identified(files: ModelFiles, method: Method, *, name: str, sentence: str) -> bool:
    """Whether a language model is the reranker whose prompt is known here, for nothing in its architecture
    tells.

    Args:
        files: The model.
        method: `CrossEncoder` says so outright.
        name: Pattern of the repository's name, which fine-tunes keep in theirs or in their model card.
        sentence: A sentence of the prompt, which the chat template or the model card quotes.
    """
    if method is Method.CROSS_ENCODER or sentence in files.chat_template or sentence in files.card:
        return True
    pattern = re.compile(name, re.IGNORECASE)
    if any(pattern.search(known) for known in files.names):
        return True
    return bool(
        pattern.search(files.card) and re.search(r"^pipeline_tag: *text-ranking", files.card, re.MULTILINE)
    )


def generator(architecture: str, models: str) -> Failure:
    """The refusal of a language model that nothing shows to be a reranker."""
    return Failure(
        Reason.NOT_A_RERANKER,
        f"{architecture} is a language model, and nothing in its files shows that it is a reranker "
        f"({models}). If it is one, or was tuned from one, set scoring.method: CrossEncoder.",
    )


def longest(files: ModelFiles, positions: int) -> int:
    """The shortest of what the positions, the tokenizer and sentence-transformers allow. Beyond the last two
    the model was not trained; its own library truncates there.
    """
    limits = [positions]
    tokenizer = files.tokenizer_config.get("model_max_length")
    if isinstance(tokenizer, int) and not isinstance(tokenizer, bool) and 0 < tokenizer < _NO_LENGTH_LIMIT:
        limits.append(tokenizer)
    if files.max_sequence_length is not None:
        limits.append(files.max_sequence_length)
    return min(limits)
