"""Rerankers converted from GGUF files: what fetch makes of them is served, and compared with the originals.

The files are written by llama.cpp's layout (tests/rerank_runtime/gguf_layout.py). In F16 the reference is
the original itself; quantised, it is the original with the weights that quantising leaves, dequantised to 16
bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from parity.models.base import SEED, Family, Reference
from parity.models.causal import LENGTH
from parity.models.encoders import LongReference
from parity.models.qwen3 import INSTRUCTED, PROMPT, InstructedReference, OriginalReference
from rerank_runtime.gguf import convert
from tests.rerank_runtime import gguf_layout, gguf_models
from tests.rerank_runtime.gguf_layout import Quantisation

_NOTE = "against the original with the same weights quantised, and dequantised to 16 bits"


class _Converted(Reference):
    """A reference in a folder of its own beside the served one, which is converted from it in the end."""

    quantisation: Quantisation

    def __init__(self, directory: Path) -> None:
        self.served = directory
        beside = directory.parent
        quantised = beside / "quantised"
        super().__init__(quantised if quantised.is_dir() else beside / "original")

    def save(self) -> None:
        """Write the weights back, and the file, and what is made of it."""
        config = self.directory / "config.json"
        # transformers would write it in its newest form.
        content = config.read_bytes()
        super().save()
        config.write_bytes(content)
        beside = self.served.parent
        file = gguf_layout.write_gguf(self.directory, beside / "model.gguf", self.quantisation)
        convert(file, self.served)
        if self.quantisation != "F16":
            gguf_layout.as_quantised(self.directory, beside / "quantised", self.quantisation)


class _Encoder(_Converted, LongReference):
    pass


class _Decoder(_Converted, OriginalReference):
    pass


class _InstructedDecoder(_Converted, InstructedReference):
    quantisation: Quantisation = "Q8_0"


def _encoder(directory: Path, texts: Sequence[str]) -> None:
    gguf_models.xlm_roberta(directory.parent / "original", texts, seed=SEED, length=LENGTH)


def _decoder(directory: Path, texts: Sequence[str]) -> None:
    gguf_models.qwen3(directory.parent / "original", texts, seed=SEED)


def _families() -> Iterable[Family]:
    quantisations: tuple[Quantisation, ...] = ("F16", "Q8_0", "Q4_K")
    for name, card, build, base, prompt in (
        ("xlm-roberta", "gpustack/bge-reranker-v2-m3-GGUF", _encoder, _Encoder, ""),
        ("qwen3", "Qwen/Qwen3-Reranker-0.6B as GGUF", _decoder, _Decoder, PROMPT),
    ):
        for kind in quantisations:
            reference = type(f"{base.__name__}{kind}", (base,), {"quantisation": kind})
            yield Family(
                f"{name}-gguf-{kind.lower()}",
                f"{card} ({kind})",
                LENGTH,
                build,
                reference,
                prompt,
                note=_NOTE if kind != "F16" else "",
            )
    yield Family(
        "qwen3-gguf-instruction",
        "Qwen/Qwen3-Reranker-0.6B as GGUF (Q8_0) with an instruction",
        LENGTH,
        _decoder,
        _InstructedDecoder,
        PROMPT,
        options=INSTRUCTED,
        note=_NOTE,
    )


FAMILIES = tuple(_families())
