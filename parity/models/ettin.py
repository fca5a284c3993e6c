"""Rerankers whose head lies in folders of sentence-transformers beside the weights: what fetch makes of them
is served, and compared with the originals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import ModernBertConfig, ModernBertModel

from parity import tokenizer_types
from parity.models.base import HIDDEN, Family, randomised
from parity.models.encoders import SMALL, LongReference
from rerank_runtime import scoring_head
from tests.rerank_runtime import head_models

# Each module's folder, and what its tensors' names begin with.
_FOLDERS = {"2_Dense": "linear", "3_LayerNorm": "norm", "4_Dense": "linear"}


def _chain(body: Any) -> Any:
    """The modules that the card lists."""
    dense, norm = torch.nn.Linear(HIDDEN, HIDDEN, bias=False), torch.nn.LayerNorm(HIDDEN)
    last = torch.nn.Linear(HIDDEN, 1)
    return torch.nn.ModuleDict({"body": body, "2_Dense": dense, "3_LayerNorm": norm, "4_Dense": last})


def _score(chain: Any, encoded: Any) -> torch.Tensor:
    first = chain["body"](**encoded).last_hidden_state[:, 0]
    hidden = torch.nn.functional.gelu(chain["2_Dense"](first))
    score: torch.Tensor = chain["4_Dense"](chain["3_LayerNorm"](hidden)).view(-1)
    return score


class EttinReference(LongReference):
    """Card: cross-encoder/ettin-reranker-150m-v1 (Full Model Architecture; `predict` by its activation, which
    is the identity). `CrossEncoder.predict` of sentence-transformers 6.2.0 gives the same on the same files,
    but for an empty document, behind which it has another [SEP].
    """

    sigmoid = False

    def __init__(self, directory: Path) -> None:
        self.served = directory
        super().__init__(directory.parent / "original")

    def load(self, directory: Path) -> Any:
        chain = _chain(ModernBertModel.from_pretrained(directory, dtype=torch.float32))
        for folder, prefix in _FOLDERS.items():
            stored = load_file(directory / folder / "model.safetensors")
            tensors = {name.removeprefix(f"{prefix}."): tensor for name, tensor in stored.items()}
            chain[folder].load_state_dict(tensors)
        return chain

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        return torch.cat([_score(self.model, self._encoded(query, d)) for d in documents])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        for folder in _FOLDERS:
            yield from self.model[folder].parameters()

    def save(self) -> None:
        """Write the head back, and what fetch makes of it all."""
        _save_head(self.model, self.directory)
        scoring_head.put_in(self.directory, self.served)


def _save_head(chain: Any, directory: Path) -> None:
    for folder, prefix in _FOLDERS.items():
        tensors = {f"{prefix}.{name}": tensor for name, tensor in chain[folder].state_dict().items()}
        save_file(tensors, directory / folder / "model.safetensors")


def _ettin(directory: Path, texts: Sequence[str]) -> None:
    original = directory.parent / "original"
    tokenizer = tokenizer_types.modernbert(texts)
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=1024,
        global_attn_every_n_layers=3,
        local_attention=128,
        pad_token_id=ids["pad"],
        bos_token_id=ids["cls"],
        cls_token_id=ids["cls"],
        eos_token_id=ids["sep"],
        sep_token_id=ids["sep"],
        **{name: value for name, value in SMALL.items() if name != "num_labels"} | {"num_hidden_layers": 4},
    )
    chain = randomised(_chain(ModernBertModel(config)))
    # Training would leave the bias at nothing, for it moves the scores of all texts alike.
    torch.nn.init.normal_(chain["3_LayerNorm"].bias)
    chain["body"].save_pretrained(original)
    for name, content in head_models.settings(HIDDEN).items():
        (original / name).parent.mkdir(exist_ok=True)
        (original / name).write_text(json.dumps(content), encoding="utf-8")
    _save_head(chain, original)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer_types.save(tokenizer, original, "PreTrainedTokenizerFast", model_max_length=1024, **names)


FAMILIES = (
    Family("ettin", "cross-encoder/ettin-reranker-150m-v1", 1024, _ettin, EttinReference, scale="logits"),
)
