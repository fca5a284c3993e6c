"""All families, by name, in the order of the table."""

from __future__ import annotations

from parity.models import (
    embedding,
    encoders,
    ettin,
    gemma,
    gguf,
    gte_new,
    jina_v2,
    jina_v3,
    mxbai,
    nemotron,
    qwen3,
)
from parity.models.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for module in (encoders, ettin, qwen3, mxbai, gemma, nemotron, gte_new, jina_v2, jina_v3, embedding, gguf)
    for family in module.FAMILIES
}
