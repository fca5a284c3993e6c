"""Rerankers in GGUF files, which vLLM does not load: one file of a repository is chosen and written out as a
normal safetensors folder while the model is fetched.
"""

from rerank_runtime.gguf.choice import Choice, choose
from rerank_runtime.gguf.convert import convert

__all__ = ["Choice", "choose", "convert"]
