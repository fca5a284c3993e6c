"""Rerankers whose head lies in folders of sentence-transformers beside the weights: the Ettin rerankers.

Published they are a bare ModernBertModel and four modules: CLS pooling, a dense layer without bias and a
GELU, a layer norm, and a dense layer to the score. That is what ModernBertForSequenceClassification computes
(vLLM's models/modernbert.py, ModernBertPooler), so fetch writes them as one. That class has no bias in the
head's norm where the model's norms have none; it goes into the last layer's: W(n + b) + c = Wn + (c + Wb).

Sources: the model cards (https://huggingface.co/cross-encoder/ettin-reranker-150m-v1, Full Model
Architecture) and sentence-transformers' modules Dense and LayerNorm.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rerank_runtime import model_files, safetensors_header, volume
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.safetensors_header import Tensor

log = logging.getLogger(__name__)

# The files that are written anew; all others stay as they were fetched.
MADE = ("config.json", "model.safetensors")

_ARCHITECTURE = "ModernBertModel"
_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dense")
_FOLDER = re.compile(r"\d+_[A-Za-z]+")
_PART = re.compile(r"\d+_(Dense|LayerNorm)/model\.safetensors")
# torch.nn.LayerNorm's, which sentence-transformers' module has no word for.
_EPS = 1e-5
_GELU = "torch.nn.modules.activation.GELU"
_IDENTITY = "torch.nn.modules.linear.Identity"
_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class _Stored:
    """A tensor and the file it lies in, or its bytes."""

    tensor: Tensor
    content: Path | bytes


def parts(names: Iterable[str]) -> set[str]:
    """The weights of a head beside the weights, among a repository's files. A dense layer alone is none: some
    embedding models end in one.
    """
    found = {name: part[1] for name in names if (part := _PART.fullmatch(name))}
    return set(found) if "LayerNorm" in found.values() else set()


def beside(files: ModelFiles) -> bool:
    """Whether a model's head lies beside its weights."""
    return (
        files.config.get("architectures") == [_ARCHITECTURE]
        and tuple(files.module_kinds) == _MODULES
        and files.sentence_transformers.get("model_type") == "CrossEncoder"
    )


def put_in(source: Path, target: Path) -> None:
    """Write a model with its head in its weights.

    Args:
        source: The model as it is published.
        target: A directory, which gets everything but the modules' own files.

    Raises:
        Failure: `UnsupportedArchitecture` where the head is another than the class computes; `FileMissing`
            and `WeightsTruncated` as the files are; `DiskFull` where the weights have no room.
        OSError: As the disk says.
    """
    files = model_files.read(source)
    _check_model(files)
    tensors = dict(_body(source)) | _head(source, files)
    header = safetensors_header.encode((name, stored.tensor) for name, stored in tensors.items())
    size = len(header) + sum(stored.tensor.size for stored in tensors.values())
    volume.check_converted(target, size)
    replaced = {path.name for path in model_files.weights(source)} | {*MADE, "modules.json"}
    replaced.add("model.safetensors.index.json")
    for path in source.iterdir():
        if path.is_file() and path.name not in replaced:
            shutil.copyfile(path, target / path.name)
    (target / "config.json").write_text(json.dumps(_config(files.config), indent=2), encoding="utf-8")
    with (target / "model.safetensors").open("wb") as out:
        out.write(header)
        for stored in tensors.values():
            out.writelines(_content(stored))
    log.info("The head beside the weights is put into them: %s tensors, %s bytes", len(tensors), size)


def _check_model(files: ModelFiles) -> None:
    eps, bias = files.config.get("norm_eps", _EPS), files.config.get("norm_bias", False)
    if eps != _EPS or bias is not False:
        raise _refusal(
            f"the norms of the model (norm_eps {eps}, norm_bias {bias}) are others than its head's"
        )
    if files.pooling_modes != ["cls"]:
        raise _refusal(f"it pools by {' and '.join(files.pooling_modes) or 'nothing known'}, not by cls")


def _body(source: Path) -> Iterator[tuple[str, _Stored]]:
    found = False
    for path in model_files.weights(source):
        for name, tensor in safetensors_header.read(path).tensors.items():
            found = found or name == "embeddings.tok_embeddings.weight"
            yield f"model.{name}", _Stored(tensor, path)
    if not found:
        raise _refusal("its weights are not named as those of a bare model")


def _head(source: Path, files: ModelFiles) -> dict[str, _Stored]:
    width = files.config.get("hidden_size")
    _, _, hidden, norm, last = files.modules or ()
    inputs = {"module_input_name": "sentence_embedding"}
    dense = _module(
        source,
        hidden,
        {"in_features": width, "out_features": width, "bias": False, "activation_function": _GELU}
        | inputs
        | {"module_output_name": "sentence_embedding"},
        {"linear.weight": (width, width)},
    )
    normed = _module(source, norm, {"dimension": width}, {"norm.weight": (width,), "norm.bias": (width,)})
    scored = _module(
        source,
        last,
        {"in_features": width, "out_features": 1, "bias": True, "activation_function": _IDENTITY}
        | inputs
        | {"module_output_name": "scores"},
        {"linear.weight": (1, width), "linear.bias": (1,)},
    )
    weight, bias = _numbers(scored["linear.weight"]), _numbers(scored["linear.bias"])
    folded = (bias + weight @ _numbers(normed["norm.bias"])).astype("<f4")
    return {
        "head.dense.weight": dense["linear.weight"],
        "head.norm.weight": normed["norm.weight"],
        "classifier.weight": scored["linear.weight"],
        "classifier.bias": _Stored(Tensor("F32", (1,), folded.nbytes), folded.tobytes()),
    }


def _module(
    source: Path, module: dict[str, Any], settings: dict[str, Any], shapes: dict[str, tuple[Any, ...]]
) -> dict[str, _Stored]:
    """A module's tensors. Every sentence-transformers that makes cross-encoders of modules (5.4 and later)
    writes all of these settings, and no other while it has its default.
    """
    folder = str(module.get("path", ""))
    if not _FOLDER.fullmatch(folder):
        raise Failure(Reason.FILE_MISSING, "modules.json names no folder for a part of the model's head.")
    found = model_files.read_json(source / folder / "config.json")
    path = source / folder / "model.safetensors"
    if found is None or not path.is_file():
        raise Failure(Reason.FILE_MISSING, f"The model's head is incomplete: {folder} lacks a file.")
    if found != settings:
        differing = sorted(
            key for key in found.keys() | settings.keys() if found.get(key) != settings.get(key)
        )
        shown = ", ".join(f"{key}: {found.get(key)}"[:80] for key in differing[:4])
        raise _refusal(f"{folder} is set otherwise ({shown})")
    header = safetensors_header.read(path)
    if header.shapes != shapes:
        raise _refusal(f"{folder} holds other tensors ({', '.join(sorted(header.shapes))[:200]})")
    return {name: _Stored(tensor, path) for name, tensor in header.tensors.items()}


def _config(config: dict[str, Any]) -> dict[str, Any]:
    return config | {
        "architectures": ["ModernBertForSequenceClassification"],
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_pooling": "cls",
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }


def _numbers(stored: _Stored) -> NDArray[np.float64]:
    raw, dtype = b"".join(_content(stored)), stored.tensor.dtype
    if dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F16", "F32"):
        values = np.frombuffer(raw, "<f2" if dtype == "F16" else "<f4")
    else:
        raise _refusal(f"its head is kept as {dtype[:20]}")
    return values.astype(np.float64).reshape(stored.tensor.shape)


def _content(stored: _Stored) -> Iterator[bytes]:
    if isinstance(stored.content, bytes):
        yield stored.content
        return
    with stored.content.open("rb") as file:
        yield from _chunks(file, stored.tensor)


def _chunks(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    file.seek(tensor.start)
    left = tensor.size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise Failure(Reason.WEIGHTS_TRUNCATED, "The weights became shorter while they were read.")
        left -= len(chunk)
        yield chunk


def _refusal(what: str) -> Failure:
    return Failure(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"The model's head, in folders of sentence-transformers beside its weights, is not the one that "
        f"ModernBertForSequenceClassification computes: {what}. Its scores would be others.",
    )
