"""`python -m bench.vllm.causal_model DIRECTORY` in the runtime's environment: a random Qwen3-Reranker of 29
million parameters, large enough that computing costs more than what surrounds it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.vllm import texts
from parity.build import CARD
from parity.models import qwen3

_SIZES = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1536,
    "max_position_embeddings": 2048,
}


def main() -> None:
    """Write the model."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    words = [texts.LONG_QUERY, *texts.documents(50), qwen3.PROMPT]
    qwen3.original(directory, [*words, *["yes", "no"] * 40], tied=True, **_SIZES)
    (directory / "README.md").write_text(CARD.format(card="Qwen/Qwen3-Reranker-0.6B"), encoding="utf-8")


if __name__ == "__main__":
    main()
