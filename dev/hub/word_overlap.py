"""A BERT cross-encoder made by hand: it scores a pair by the share of the query's words that the document
has.

Nothing is trained. Two layers of 128 dimensions are enough:

* Embeddings: each word has random balanced signs in the content dimensions, so that two words are nearly
orthogonal.
  Stop words, punctuation and special tokens have none; they hold a filler of the same length instead, so that
  every layer normalisation scales all tokens alike. A segment dimension tells query from document.
* Layer 1, one head: each token looks for the same word in the other segment. Equal words score above a
threshold that
  [CLS] offers as a place to look when there is none. The value read is 1 from a word and 0 from [CLS]: the
  match.
* Layer 2, one head: every token averages the matches of the query's words; [CLS] is the one that is read.
* Pooler and classifier: a logit that grows with the share, then vLLM's sigmoid.

Deterministic: the same bytes wherever it is built.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HIDDEN, HEADS, POSITIONS, INTERMEDIATE = 128, 2, 512, 64
HEAD = HIDDEN // HEADS

# Dimensions of the hidden state. Every signal comes in a pair of opposite signs: the mean stays zero.
CONTENT = slice(0, 60)
SEGMENT = (60, 61)
IS_CLS = (62, 63)
FILLER = slice(64, 124)
MATCH = (124, 125)
SHARE = (126, 127)

SEGMENT_SIZE = 2.0
CLS_SIZE = 2.0
# What layer normalisation multiplies a token by: sqrt(dimensions / squared length).
GAIN = math.sqrt(HIDDEN / (60 + 2 * SEGMENT_SIZE**2))
CLS_GAIN = math.sqrt(HIDDEN / (60 + 2 * CLS_SIZE**2))

STOP_WORDS = frozenset(
    # As text, not a list: a screenful of quotes says no more.
    """
    a about after all also am an and any are as at be been before being between both but by can could
    did do does each every few for from had has have he her here his how i if in into is it its just may
    me might more most much must my no nor not of off on only or other our out own s same shall she
    should so some such t than that the their them then there these they this those through to too under
    up very was we were what when where which while who whom whose why will with would you your
    """.split()  # noqa: SIM905 - a list of 100 quoted words reads worse
)


def config(vocabulary_size: int) -> dict[str, Any]:
    """config.json of the model."""
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": HIDDEN,
        "id2label": {"0": "relevance"},
        "label2id": {"relevance": 0},
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "vocab_size": vocabulary_size,
    }


def tensors(vocabulary: list[str]) -> dict[str, Array]:
    """The weights, by the names that transformers gives them.

    Args:
        vocabulary: The tokenizer's tokens, in the order of their ids.
    """
    weights = {
        "bert.embeddings.word_embeddings.weight": _words(vocabulary),
        "bert.embeddings.position_embeddings.weight": _zeros(POSITIONS, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight": _segments(),
    } | _norm("bert.embeddings.LayerNorm")
    for index, attention in enumerate((_find_matches(), _average_matches())):
        prefix = f"bert.encoder.layer.{index}"
        weights |= {f"{prefix}.attention.{name}": value for name, value in attention.items()}
        weights |= _norm(f"{prefix}.attention.output.LayerNorm") | _norm(f"{prefix}.output.LayerNorm")
        weights |= _linear(f"{prefix}.intermediate.dense", _zeros(INTERMEDIATE, HIDDEN))
        weights |= _linear(f"{prefix}.output.dense", _zeros(HIDDEN, INTERMEDIATE))
    pooler, classifier = _zeros(HIDDEN, HIDDEN), _zeros(1, HIDDEN)
    pooler[0, SHARE[0]] = 0.5
    classifier[0, 0] = 8.0
    weights |= _linear("bert.pooler.dense", pooler)
    return weights | _linear("classifier", classifier, np.array([-3.0], dtype=np.float32))


def is_word(token: str) -> bool:
    """Whether a token counts when it is shared."""
    text = token.removeprefix("##")
    return text not in STOP_WORDS and not token.startswith("[") and any(c.isalnum() for c in text)


def _words(vocabulary: list[str]) -> Array:
    # PCG64 gives the same numbers on every machine; sorting them gives balanced signs.
    random = np.random.Generator(np.random.PCG64(20240229))
    order = np.argsort(random.random((len(vocabulary), 60)), axis=1)
    signs = np.where(order < 30, 1.0, -1.0).astype(np.float32)
    out = _zeros(len(vocabulary), HIDDEN)
    filler = np.array([1.0, -1.0] * 30, dtype=np.float32)
    for index, token in enumerate(vocabulary):
        if is_word(token):
            out[index, CONTENT] = signs[index]
        else:
            out[index, FILLER] = filler
        if token == "[CLS]":  # noqa: S105 - a token of text
            # It belongs to neither segment: what the segment embedding will add is taken off.
            out[index, list(SEGMENT)] = [-SEGMENT_SIZE, SEGMENT_SIZE]
            out[index, list(IS_CLS)] = [CLS_SIZE, -CLS_SIZE]
    return out


def _segments() -> Array:
    out = _zeros(2, HIDDEN)
    out[0, list(SEGMENT)] = [SEGMENT_SIZE, -SEGMENT_SIZE]
    out[1, list(SEGMENT)] = [-SEGMENT_SIZE, SEGMENT_SIZE]
    return out


def _find_matches() -> dict[str, Array]:
    """Layer 1: score = same word + other segment, against the threshold that [CLS] offers."""
    sharpness = 2.0
    same_word = 60 * GAIN**2 * sharpness
    other_segment, threshold = 0.7 * same_word, 0.6 * same_word
    query, key, value = _zeros(HIDDEN, HIDDEN), _zeros(HIDDEN, HIDDEN), _zeros(HIDDEN, HIDDEN)
    query_bias, value_bias = _zeros(HIDDEN), _zeros(HIDDEN)
    root = math.sqrt(sharpness)
    for dimension in range(60):
        query[dimension, dimension] = key[dimension, dimension] = root
    segment = math.sqrt(other_segment) / (GAIN * SEGMENT_SIZE)
    query[60, SEGMENT[0]], key[60, SEGMENT[0]] = segment, -segment
    query_bias[61] = 1.0
    key[61, IS_CLS[0]] = (other_segment + threshold) / (CLS_GAIN * CLS_SIZE)
    value[0, FILLER], value_bias[0] = _not_filler(), 1.0
    return _attention((query, query_bias), key, (value, value_bias), target=MATCH, size=4.0)


def _average_matches() -> dict[str, Array]:
    """Layer 2: every token looks at the query's words alone, all alike, and reads their matches."""
    query, key, value = _zeros(HIDDEN, HIDDEN), _zeros(HIDDEN, HIDDEN), _zeros(HIDDEN, HIDDEN)
    query_bias = _zeros(HIDDEN)
    query_bias[0] = query_bias[1] = 1.0
    # A matched token is longer and so scaled down by a third; the gaps are wide enough not to care.
    key[0, FILLER] = 400.0 * _not_filler()
    key[1, SEGMENT[0]] = 150.0 / (GAIN * SEGMENT_SIZE)
    value[0, MATCH[0]] = 1.0
    return _attention((query, query_bias), key, (value, _zeros(HIDDEN)), target=SHARE, size=2.0)


def _not_filler() -> Array:
    """Weights that give -1 for a token with filler and 0 for a word."""
    return np.array([1.0, -1.0] * 30, dtype=np.float32) * np.float32(-1.0 / (60 * GAIN))


def _attention(
    query: tuple[Array, Array],
    key: Array,
    value: tuple[Array, Array],
    *,
    target: tuple[int, int],
    size: float,
) -> dict[str, Array]:
    output = _zeros(HIDDEN, HIDDEN)
    output[target[0], 0], output[target[1], 0] = size, -size
    return (
        _linear("self.query", *query)
        | _linear("self.key", key)
        | _linear("self.value", *value)
        | _linear("output.dense", output)
    )


def _linear(name: str, weight: Array, bias: Array | None = None) -> dict[str, Array]:
    return {f"{name}.weight": weight, f"{name}.bias": _zeros(weight.shape[0]) if bias is None else bias}


def _norm(name: str) -> dict[str, Array]:
    return {f"{name}.weight": np.ones(HIDDEN, dtype=np.float32), f"{name}.bias": _zeros(HIDDEN)}


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, dtype=np.float32)
