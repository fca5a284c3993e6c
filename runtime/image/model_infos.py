"""Write down what vLLM otherwise asks a process of its own at each start: what a model class can do.

Called by the Dockerfile (target `runtime-cpu`). At start vLLM imports itself once more in a subprocess only
to learn that, unless it finds the answer under VLLM_CACHE_ROOT; a quarter of the time that a pod needs to
start. The root filesystem of a pod is read-only, so the answer must be in the image. vLLM checks it against a
hash of its own code.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vllm.model_executor.models import registry

# The classes that serve the architectures of rerank_runtime.families. Language models are looked up by the
# class that they are converted from.
ARCHITECTURES = (
    "BertModel",
    "BertForSequenceClassification",
    "RobertaModel",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForSequenceClassification",
    "ModernBertModel",
    "ModernBertForSequenceClassification",
    "GteNewForSequenceClassification",
    "Qwen3ForCausalLM",
    "Qwen2ForCausalLM",
    "GemmaForCausalLM",
    "LlamaBidirectionalForSequenceClassification",
    "JinaForRanking",
    # Looked up first for an architecture that vLLM makes of another one, as of Qwen3ForCausalLM.
    "TransformersForSequenceClassification",
)


def main() -> None:
    for name in ARCHITECTURES:
        lazy = registry.ModelRegistry.models[name]
        module = importlib.util.find_spec(lazy.module_name)
        if module is None or module.origin is None:
            raise SystemExit(f"vLLM has no module {lazy.module_name}")
        digest = lazy._get_modelinfo_module_hash(Path(module.origin))  # noqa: SLF001 - vLLM's version is pinned
        info = registry._ModelInfo.from_model_cls(lazy.load_model_cls())  # noqa: SLF001
        lazy._save_modelinfo_to_cache(info, digest)  # noqa: SLF001
        if lazy._load_modelinfo_from_cache(digest) is None:  # noqa: SLF001
            raise SystemExit(f"vLLM does not find what was written down about {name}")


if __name__ == "__main__":
    main()
