"""The tokenizer of a converted file encodes every text as the original does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_runtime.gguf import convert
from tests.rerank_runtime import gguf_layout, gguf_models

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "xlm_roberta": gguf_models.xlm_roberta,
    "qwen3": gguf_models.qwen3,
}

TEXTS = [
    "",
    " ",
    "hi",
    "What is a panda?",
    "  two  spaces   three \t tab\r\nline\n\n\nlines ",
    "Ｗｉｄｅ ﬁ ligature ½ ① ㍿ e\u0301 é \u0085 next \u200b zero \u00a0 hard \u3000 wide",
    "大熊猫是中国特有的熊科动物。",
    "東京は日本の首都 カタカナ ｶﾀｶﾅ 한국어 ไทย हिन्दी",
    "الباندا العملاقة עברית Большая панда ёлка Ελληνικά",
    "\U0001f43c\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji \U0001f1e9\U0001f1ea",
    "3.755.251 1e-5 0x7f 12345678901234567890",
    "it's they'RE I'll don't 'tis",
    "def f(x):\n\treturn x  # comment\n",
    "<s> </s> <pad> <unk>[PAD3]<|im_end|><|im_start|>user <think>\n\n</think>\n\n a<|endoftext|>b",
    "▁ ▁a Ġ ĠĠ ##ing \x00 \x7f \ufeff \ufffd \U0010fffd",
    "a" * 500,
]


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Tokenizer]:
    """The original's tokenizer and the converted file's."""
    folder = tmp_path_factory.mktemp(request.param)
    original = FAMILIES[request.param](folder / "original")
    convert(gguf_layout.write_gguf(original, folder / "m.gguf", "Q8_0"), folder / "model")
    return tuple(Tokenizer.from_file(str(path / "tokenizer.json")) for path in (original, folder / "model"))  # type: ignore[return-value]


def check(pair: tuple[Tokenizer, Tokenizer], query: str, document: str | None) -> None:
    original, result = (tokenizer.encode(query, document) for tokenizer in pair)
    assert result.ids == original.ids
    assert result.offsets == original.offsets
    assert result.type_ids == original.type_ids
    assert result.special_tokens_mask == original.special_tokens_mask


@pytest.mark.parametrize("text", TEXTS)
def test_known_difficulties(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    check(pair, text, None)
    check(pair, text, TEXTS[3])
    check(pair, TEXTS[3], text)


@settings(deadline=None)
@given(query=st.text(max_size=60), document=st.text(max_size=200) | st.none())
def test_any_text(pair: tuple[Tokenizer, Tokenizer], query: str, document: str | None) -> None:
    check(pair, query, document)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*TEXTS, *gguf_models.CORPUS[:10]]), max_size=5).map(" ".join))
def test_any_mixture_of_known_texts(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    check(pair, text, text[::-1])


def test_the_vocabularies_are_the_same(pair: tuple[Tokenizer, Tokenizer]) -> None:
    original, result = (tokenizer.get_vocab(with_added_tokens=True) for tokenizer in pair)
    assert result == original


def test_the_scores_and_merges_are_the_same(pair: tuple[Tokenizer, Tokenizer]) -> None:
    """The lowest score sets that of the unknown: even those of tokens that no text has must be right."""
    original, result = (json.loads(tokenizer.to_str())["model"] for tokenizer in pair)
    assert result["type"] == original["type"]
    if original["type"] == "Unigram":
        assert result["vocab"] == original["vocab"]
        assert result["unk_id"] == original["unk_id"]
    else:
        assert result["merges"] == original["merges"]


def test_roles_are_named_for_transformers(tmp_path: Path) -> None:
    original = gguf_models.xlm_roberta(tmp_path / "original", small=True)
    convert(gguf_layout.write_gguf(original, tmp_path / "m.gguf", "F16"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert config["pad_token"] == "<pad>"
    assert config["mask_token"] == "<mask>"
    assert config["sep_token"] == config["eos_token"] == "</s>"
    assert config["model_max_length"] == 256


def test_end_tokens_are_added_where_the_file_asks_for_them(tmp_path: Path) -> None:
    """Qwen3's embedding models end each text with a token; a reranker made from one may as well."""

    def change(pairs: dict[str, Any], _: dict[str, Any]) -> None:
        pairs["tokenizer.ggml.add_eos_token"] = True

    original = gguf_models.qwen3(tmp_path / "original")
    convert(gguf_layout.write_gguf(original, tmp_path / "m.gguf", "F16", change=change), tmp_path / "model")
    plain, result = (
        Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("original", "model")
    )
    end = plain.token_to_id("<|im_end|>")
    assert result.encode("hi").ids == [*plain.encode("hi").ids, end]
    assert result.encode("hi", add_special_tokens=False).ids == plain.encode("hi").ids


@pytest.mark.parametrize("beside", ["target", "base_files"])
def test_the_repositorys_own_tokenizer_is_used_where_it_is_the_files(tmp_path: Path, beside: str) -> None:
    original = gguf_models.xlm_roberta(tmp_path / "original", small=True)
    path = gguf_layout.write_gguf(original, tmp_path / "m.gguf", "F16")
    own = json.loads((original / "tokenizer.json").read_text())
    own["normalizer"] = {"type": "Lowercase"}
    names = ("tokenizer.json", "tokenizer_config.json")
    folder = tmp_path / ("model" if beside == "target" else "beside")
    folder.mkdir()
    (folder / names[0]).write_text(json.dumps(own))
    (folder / names[1]).write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    convert(path, tmp_path / "model", None if beside == "target" else {name: folder / name for name in names})
    for name in names:
        assert (tmp_path / "model" / name).read_bytes() == (folder / name).read_bytes()


def test_a_tokenizer_of_another_model_is_replaced(tmp_path: Path) -> None:
    original = gguf_models.xlm_roberta(tmp_path / "original", small=True)
    other = gguf_models.qwen3(tmp_path / "other")
    path = gguf_layout.write_gguf(original, tmp_path / "m.gguf", "F16")
    (tmp_path / "model").mkdir()
    shutil.copy(other / "tokenizer.json", tmp_path / "model")
    (tmp_path / "model" / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    convert(path, tmp_path / "model")
    result = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert result.get_vocab() == Tokenizer.from_file(str(original / "tokenizer.json")).get_vocab()
    assert not (tmp_path / "model" / "special_tokens_map.json").exists()


def test_the_activation_comes_from_a_config_of_the_same_model(tmp_path: Path) -> None:
    original = gguf_models.xlm_roberta(tmp_path / "original", small=True)
    path = gguf_layout.write_gguf(original, tmp_path / "m.gguf", "F16")
    said = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0"}
    config = json.loads((original / "config.json").read_text())
    for architecture, expected in ((config["architectures"], said), (["BertModel"], None)):
        base = tmp_path / "config.json"
        base.write_text(
            json.dumps({"architectures": architecture, "sentence_transformers": said, "vocab_size": 1})
        )
        convert(path, tmp_path / "model", {"config.json": base})
        result = json.loads((tmp_path / "model" / "config.json").read_text())
        assert result.get("sentence_transformers") == expected
        assert result["vocab_size"] == config["vocab_size"]
        (tmp_path / "model" / "config.json").unlink()
