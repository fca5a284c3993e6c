"""Chat templates: the prompts of models that read query and document in one text of their own wording.

The texts are this package's (`templates/*.jinja`), written after the model cards and tested against them.
vLLM renders them with messages of the roles `query` and `document` and, where a request has one, with the
variable `instruction` (vllm/entrypoints/pooling/scoring/io_processor.py, 0.32.0: CrossEncoderIOProcessor).
`render` does the same, for counting tokens beforehand.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

# What may stand in a Jinja string as it is. All else is escaped, by Python's rules, which are Jinja's.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,;:!?()'-_/<>=|")


def load(name: str, instruction: str | None = None) -> str:
    """A template of this package with an instruction as its default, or without one.

    Args:
        name: File in `templates/` without `.jinja`.
        instruction: Any text; it cannot become part of the template's code.
    """
    text = (resources.files(__package__) / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    if instruction is None:
        return text
    return f"{{%- set default_instruction = {quote(instruction)} -%}}\n{text}"


def quote(text: str) -> str:
    """A text as a Jinja string literal that means exactly this text, newlines and all."""
    return '"' + "".join(c if c in _PLAIN else f"\\U{ord(c):08x}" for c in text) + '"'


def render(template: str, query: str, document: str, instruction: str | None = None) -> str:
    """The prompt that vLLM makes of a pair.

    Args:
        template: The template's text.
        query: The query.
        document: The document.
        instruction: As a request gives it; None takes the template's default.
    """
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    given = {} if instruction is None else {"instruction": instruction}
    return _compiled(template).render(messages=messages, **given)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    # As transformers compiles them for vLLM (transformers/utils/chat_template_utils.py, 5.19:
    # _cached_compile_jinja_template).
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 - slow, and few commands need it

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template)
