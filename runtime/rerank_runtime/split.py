"""Whether a model can be split over several GPUs, as vLLM does it (tensor parallelism). Pure; used by plan.

What vLLM 0.32 asks for: config/model.py (verify_with_parallel_config), model_executor/layers/linear.py
(divide), the attention of each model, and models/adapters.py.
"""

from __future__ import annotations

from rerank_runtime import memory
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles

# Vocabularies and positions are divided too: vLLM fills them up to a multiple of 64.
COUNTS = (1, 2, 4, 8)
_STEP = 64
# Their class in vLLM divides the weights and not what it makes of them: models/modernbert.py splits what part
# of Wqkv gives into three times the whole width, and fails (`make parity` tries all families).
_WHOLE = frozenset({"modernbert"})


def obstacle(files: ModelFiles, profile: Profile, split: int) -> str:
    """Why the model cannot be split over so many GPUs, as the rest of a sentence; "" where it can be.

    Raises:
        Failure: `FileMissing` where the configuration does not give the sizes.
    """
    if split == 1:
        return ""
    if profile.family in _WHOLE:
        return f"vLLM does not divide models of the family {profile.family}"
    config = files.config
    hidden, heads = checks.integer(config, "hidden_size"), checks.integer(config, "num_attention_heads")
    intermediate = checks.integer(config, "intermediate_size", 4 * hidden)
    for name, size in (("attention heads", heads), ("intermediate_size", intermediate)):
        if size % split:
            return f"{name}, {size}, cannot be divided by {split}"
    groups = memory.key_value_heads(config)
    if groups % split and split % groups:
        return f"heads of keys and values, {groups}, cannot be divided by {split}"
    # vLLM takes the rows of these words from each GPU's own part of the vocabulary, as if it were all of it,
    # and the first GPU's answer counts.
    words = profile.hf_overrides.get("classifier_from_token", ())
    if not words:
        return ""
    part = -(-checks.integer(config, "vocab_size") // _STEP) * _STEP // split
    beyond = [word for word in words if files.words[word] >= part]
    return f"{' and '.join(beyond)} is not among the first {part} tokens" if beyond else ""
