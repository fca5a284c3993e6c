"""Damaged and hostile GGUF files: refused in words, in bounded memory, and never a crash."""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import convert, reader
from tests.rerank_runtime import gguf_layout, gguf_models

HEADROOM = 512 * 2**20


@pytest.fixture(scope="module", params=["xlm_roberta", "qwen3"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "qwen3":
        original = gguf_models.qwen3(folder / "original", width=128, blocks=1)
    else:
        original = gguf_models.xlm_roberta(folder / "original", width=64, blocks=1, small=True)
    return gguf_layout.write_gguf(original, folder / "m.gguf", "Q8_0").read_bytes()


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """What would take more memory than any head may is stopped by the kernel, as a MemoryError."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def attempt(content: bytes, folder: Path) -> Failure | None:
    """What a conversion ends with; anything but a Failure or success goes through."""
    folder.mkdir(exist_ok=True)
    (folder / "m.gguf").write_bytes(content)
    try:
        convert(folder / "m.gguf", folder / "model")
    except Failure as failure:
        assert not list((folder / "model").glob("*.partial"))
        return failure
    return None


def test_the_whole_file_is_converted(whole: bytes, tmp_path: Path) -> None:
    assert attempt(whole, tmp_path) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_anywhere_is_damaged(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "whole.gguf").write_bytes(whole)
    tensors = reader.read(tmp_path / "whole.gguf").tensors.values()
    end = max(tensor.offset + tensor.size for tensor in tensors)
    # Half of the cuts in the head, which is small beside the weights.
    start = min(tensor.offset for tensor in tensors)
    cut = data.draw(st.integers(0, start) | st.integers(0, end - 1))
    failure = attempt(whole[:cut], tmp_path)
    assert failure is not None
    assert failure.reason is Reason.WEIGHTS_TRUNCATED
    assert "damaged" in failure.message


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_the_head_are_refused_or_converted(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    (tmp_path / "whole.gguf").write_bytes(whole)
    start = min(tensor.offset for tensor in reader.read(tmp_path / "whole.gguf").tensors.values())
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, start - 1))
        new = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))
        content[at : at + len(new)] = new
    failure = attempt(bytes(content[: len(whole)]), tmp_path)
    assert failure is None or failure.message


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=300), headed=st.booleans())
def test_noise_is_no_gguf_file(tmp_path: Path, noise: bytes, headed: bool) -> None:
    failure = attempt((b"GGUF\x03\0\0\0" if headed else b"") + noise, tmp_path)
    assert failure is not None


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def head(*, version: int = 3, tensors: int = 0, pairs: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


HUGE = 2**62
CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "does not begin"),
    "version 1": (head(version=1), "version is 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
    "no metadata": (head(), "architecture 'none'"),
    "huge tensor count": (head(tensors=HUGE), f"{HUGE} tensors"),
    "huge pair count": (head(pairs=HUGE), f"{HUGE} metadata pairs"),
    "more pairs than bytes": (head(pairs=4000), "its head ends"),
    "huge key": (head(pairs=1) + struct.pack("<Q", HUGE), "bytes of one text"),
    "huge text": (head(pairs=1) + text(b"k") + struct.pack("<IQ", 8, HUGE), "bytes of one text"),
    "huge list of bytes": (head(pairs=1) + text(b"k") + struct.pack("<IIQ", 9, 0, HUGE), "its head ends"),
    "huge list of texts": (head(pairs=1) + text(b"k") + struct.pack("<IIQ", 9, 8, HUGE), "lists of"),
    "list of lists": (head(pairs=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "lists of lists"),
    "unknown type": (head(pairs=1) + text(b"k") + struct.pack("<I", 77), "type 77"),
    "no UTF-8": (head(pairs=1) + text(b"\xff\xfe") + struct.pack("<IB", 0, 1), "not UTF-8"),
    "same key twice": (head(pairs=2) + 2 * (text(b"k") + struct.pack("<IB", 0, 1)), "'k' twice"),
    "alignment": (head(pairs=1) + text(b"general.alignment") + struct.pack("<II", 4, 3), "alignment is 3"),
    "huge alignment": (
        head(pairs=1) + text(b"general.alignment") + struct.pack("<II", 4, 2**31),
        "alignment",
    ),
    "five dimensions": (head(tensors=1) + tensor(b"t", (1,) * 5), "5 dimensions"),
    "no dimensions": (head(tensors=1) + tensor(b"t", ()) + bytes(64), "shape []"),
    "zero dimension": (head(tensors=1) + tensor(b"t", (4, 0)) + bytes(64), "shape [0, 4]"),
    "huge dimensions": (head(tensors=1) + tensor(b"t", (HUGE, HUGE)) + bytes(64), "tensors reach"),
    "huge offset": (head(tensors=1) + tensor(b"t", (4,), offset=HUGE) + bytes(64), "tensors reach"),
    "half a block": (head(tensors=1) + tensor(b"t", (33,), 8) + bytes(64), "Q8_0"),
    "unknown tensor type": (head(tensors=1) + tensor(b"t", (4,), 999) + bytes(64), "type 999"),
    "removed tensor type": (head(tensors=1) + tensor(b"t", (4,), 4) + bytes(64), "type 4"),
    "same tensor twice": (
        head(tensors=2) + tensor(b"t", (4,)) + tensor(b"t", (4,), 0, 32) + bytes(99),
        "twice",
    ),
    "tensor upon tensor": (
        head(tensors=2) + tensor(b"a", (16,)) + tensor(b"b", (4,), 0, 32) + bytes(99),
        "lies upon",
    ),
    "nonsense name": (head(tensors=1) + tensor(b"\x1b]0;\n" * 100, (4,)) + bytes(64), "architecture 'none'"),
    "huge name": (head(tensors=1) + tensor(b"n" * 2000, (4,)) + bytes(64), "bytes of one text"),
}


@pytest.mark.parametrize("name", CASES)
def test_hostile_heads(name: str, tmp_path: Path) -> None:
    content, words = CASES[name]
    failure = attempt(content, tmp_path)
    assert failure is not None
    assert words in failure.message
    assert "\x1b" not in failure.message
    assert len(failure.message) < 600
    json.dumps(failure.as_json())


def test_a_list_of_empty_texts_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Eight bytes of file for each, which a list of objects would make many of."""
    count = 8 * 2**20
    content = (
        head(pairs=1) + text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count) + bytes(8 * count)
    )
    failure = attempt(content, tmp_path)
    assert failure is not None
    assert "more than any vocabulary" in failure.message


def test_names_in_a_refusal_are_shown_harmless(tmp_path: Path) -> None:
    name = b"\x1b]0;owned\x07\nReady=True"
    path = gguf_layout.write_gguf(
        gguf_models.qwen3(tmp_path / "original", width=128, blocks=1),
        tmp_path / "m.gguf",
        "F16",
        change=lambda _, tensors: tensors.update({name.decode(): tensors["output_norm.weight"]}),
    )
    with pytest.raises(Failure) as caught:
        convert(path, tmp_path / "model")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "key", ["general.architecture", "general.name", "general.source.url", "tokenizer.ggml.pre"]
)
def test_metadata_in_a_refusal_is_shown_harmless(tmp_path: Path, key: str) -> None:
    path = gguf_layout.write_gguf(
        gguf_models.qwen3(tmp_path / "original", width=128, blocks=1),
        tmp_path / "m.gguf",
        "F16",
        change=lambda pairs, _: pairs.update(
            {"tokenizer.ggml.pre": "other", key: "https://x/\x1b]0;owned\x07\n" + "long" * 1000}
        ),
    )
    with pytest.raises(Failure) as caught:
        convert(path, tmp_path / "model")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
